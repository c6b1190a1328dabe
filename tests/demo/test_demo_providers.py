"""The simulated LLMs, asked through the real litellm over loopback HTTP."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from optllm_router.config import CandidateSettings
from optllm_router.demo.providers import SIMULATED_LLMS, SimulatedProvider
from optllm_router.demo.tasks import KINDS, is_right, make_queries

QUERIES = make_queries(600, seed=0)


def right(model: str, *, seed: int = 0) -> np.ndarray:
    (llm,) = (llm for llm in SIMULATED_LLMS if llm.model == model)
    return np.array([llm.answers_right(query, seed=seed) for query in QUERIES])


def test_there_are_at_least_six_and_all_are_named_simulated() -> None:
    names = [llm.model for llm in SIMULATED_LLMS]

    assert len(set(names)) == len(names) >= 6
    assert all(name.startswith("openai/simulated-") for name in names)


def test_answers_are_drawn_once_per_seed_llm_and_question() -> None:
    model = "openai/simulated-mini"

    assert (right(model) == right(model)).all()
    assert (right(model) != right(model, seed=1)).any()


def test_errors_of_two_llms_are_drawn_apart() -> None:
    both_wrong = ~right("openai/simulated-large") & ~right("openai/simulated-frontier")

    assert 0 < both_wrong.sum() < (~right("openai/simulated-frontier")).sum()


def test_answers_follow_the_configured_skill() -> None:
    for llm in SIMULATED_LLMS:
        for kind in KINDS:
            of_kind = np.array([query.task == kind for query in QUERIES])
            prob = np.array([llm.prob(query) for query in QUERIES])[of_kind]
            spread = np.sqrt((prob * (1 - prob)).sum()) / prob.size
            assert abs(right(llm.model)[of_kind].mean() - prob.mean()) < 4 * spread


def test_harder_questions_succeed_less_often() -> None:
    llm = SIMULATED_LLMS[0]
    by_kind = [q for q in QUERIES if q.task == "units"]
    by_difficulty = sorted(by_kind, key=lambda query: query.difficulty)

    probs = [llm.prob(query) for query in by_difficulty]
    assert probs == sorted(probs, reverse=True)


def test_the_best_single_one_is_dear_and_good_but_not_perfect() -> None:
    accuracy = {llm.model: right(llm.model).mean() for llm in SIMULATED_LLMS}
    cost = {llm.model: sum(map(llm.cost_nusd, QUERIES)) for llm in SIMULATED_LLMS}

    assert max(accuracy, key=accuracy.get) == "openai/simulated-frontier"
    assert max(cost, key=cost.get) == "openai/simulated-frontier"
    assert 0.84 <= accuracy["openai/simulated-frontier"] <= 0.92
    assert min(cost, key=cost.get) == "openai/simulated-nano"


def test_routing_with_known_skills_beats_the_best_at_under_a_third_of_its_cost() -> None:
    prob = np.array([[llm.prob(query) for llm in SIMULATED_LLMS] for query in QUERIES])
    cost = np.array([[llm.cost_nusd(q) for llm in SIMULATED_LLMS] for q in QUERIES]) / 1e9
    choice = np.argmax(prob - 40 * cost, axis=1)
    rows = np.arange(len(QUERIES))

    assert prob[rows, choice].mean() >= prob.mean(axis=0).max()
    assert cost[rows, choice].sum() < cost[:, -1].sum() / 3


def test_cost_is_the_ceiling_of_tokens_times_price() -> None:
    llm, query = SIMULATED_LLMS[0], QUERIES[0]
    reply = llm.reply(query, seed=0)
    exact = reply.prompt_tokens * Decimal(llm.input_usd_per_1m)
    exact += reply.completion_tokens * Decimal(llm.output_usd_per_1m)

    assert llm.cost_nusd(query) == -(-exact * 1000 // 1)


@pytest.fixture(scope="module")
def provider():
    with SimulatedProvider(QUERIES, seed=0) as provider:
        yield provider


def ask(settings: dict, text: str):
    from optllm_router.completion.litellm_client import LiteLLMClient

    client = LiteLLMClient()
    candidate = client.candidate(settings["model"], CandidateSettings(**settings).overrides())
    return client.complete(candidate, {"messages": [{"role": "user", "content": text}]})


def test_litellm_gets_the_simulated_answers_and_tokens(provider) -> None:
    for settings, llm in zip(provider.candidates(), SIMULATED_LLMS, strict=True):
        for query in QUERIES[:3]:
            response = ask(settings, query.text)
            reply = llm.reply(query, seed=0)

            assert reply.text == response.choices[0].message.content
            assert reply.prompt_tokens == response.usage.prompt_tokens
            assert reply.completion_tokens == response.usage.completion_tokens
            graded = is_right(response.choices[0].message.content, query.reference)
            assert llm.answers_right(query, seed=0) == graded


def test_a_foreign_question_is_told_that_this_is_a_simulation(provider) -> None:
    response = ask(provider.candidates()[0], "Who are you?")

    assert "simulation" in response.choices[0].message.content
