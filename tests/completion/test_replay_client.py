"""Replays of a recorded table."""

import asyncio
import math

import numpy as np
import pytest

from optllm_router.completion.base import Answer
from optllm_router.completion.replay import ReplayClient
from optllm_router.errors import BudgetExceededError, ConfigError
from optllm_router.outcomes.table import OutcomeTable
from optllm_router.records import Candidate, Usage


def recorded(**changes):
    fields = {
        "query_ids": ["q1", "q2", "q3"],
        "tasks": ["", "", ""],
        "queries": ["two plus two?", "same", "same"],
        "models": ["small", "large"],
        "score": np.array([[0.0, 1.0], [0.5, 1.0], [0.25, math.nan]]),
        "cost_usd": np.array([[1e-10, 0.1], [0.0, 0.3], [2e-9, math.nan]]),
        "prompt_tokens": np.array([[5, 5], [4, 4], [-1, 4]]),
        "completion_tokens": np.array([[1, 2], [1, 1], [1, -1]]),
        "answers": np.array([["5", "4"], ["a", None], ["b", "c"]], dtype=object),
        "references": ["4", None, None],
    }
    return OutcomeTable(**{**fields, **changes})


def asks(text, **arguments):
    return {"messages": [{"role": "user", "content": text}], **arguments}


@pytest.fixture
def replay():
    return ReplayClient(recorded())


def test_a_call_gets_the_recorded_answer_cost_and_score(replay):
    response = replay.complete(replay.candidate("large"), asks("two plus two?"))

    assert response.choices[0].message.content == "4"
    assert response["choices"][0]["message"]["content"] == "4"
    assert response.get("model") == "large"
    assert response.get("nothing", 7) == 7
    assert response._hidden_params["replay"]["score"] == 1.0
    assert response._hidden_params["replay"]["query_id"] == "q1"
    assert response._hidden_params["response_cost"] == 0.1
    assert replay.describe(response) == Answer(
        text="4",
        usage=Usage(prompt_tokens=5, completion_tokens=2),
        response_id="replay-q1-large",
        cost_nusd=100_000_000,
    )
    with pytest.raises(KeyError):
        response["nothing"]


def test_costs_are_the_ceiling_of_their_decimal_value(replay):
    def cost(text, model):
        return replay.describe(replay.complete(replay.candidate(model), asks(text))).cost_nusd

    assert cost("two plus two?", "small") == 1
    assert cost("same", "small") == 0
    assert cost("same", "large") == 300_000_000


def test_rows_that_share_a_text_are_told_apart_by_id(replay):
    small = replay.candidate("small")

    first = replay.complete(small, asks("same"))
    named = replay.complete(small, asks("same", metadata={"query_id": "q3"}))
    unnamed = replay.complete(small, asks("same", metadata={"other": 1}))

    assert [r.choices[0].message.content for r in (first, named, unnamed)] == ["a", "b", "a"]
    assert replay.describe(named).usage is None


def test_the_last_user_message_is_looked_up(replay):
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "same"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "two plus two?"}]},
        {"role": "assistant", "content": ""},
    ]

    response = replay.complete(replay.candidate("small"), {"messages": messages})

    assert response._hidden_params["replay"]["query_id"] == "q1"


def test_an_awaited_call_is_the_same(replay):
    small = replay.candidate("small")

    awaited = asyncio.run(replay.acomplete(small, asks("same")))

    assert awaited == replay.complete(small, asks("same"))


def test_a_candidate_is_billed_by_the_table(replay):
    assert replay.candidate("large", {"name": "L", "model": "large"}) == Candidate(
        name="L", model="large", price=None, worst_case_nusd=300_000_000
    )
    assert replay.candidate("small").worst_case_nusd == 2


def test_absent_answers_are_empty_texts(replay):
    without = ReplayClient(recorded(answers=None))

    for client in (replay, without):
        response = client.complete(client.candidate("large"), asks("same"))
        assert response.choices[0].message.content == ""


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        ("small", asks("two plus three?"), "no query with the text 'two plus three?'"),
        ("small", asks("x" * 100), "no query with the text '" + "x" * 77 + "...'"),
        ("small", {"messages": []}, "no query with the text ''"),
        ("small", asks("same", metadata={"query_id": "q9"}), "no query with the id 'q9'"),
        ("large", asks("same", metadata={"query_id": "q3"}), "no `cost_usd` of 'large'"),
        ("small", asks("same", stream=True), "`stream=True` is not possible in a replay"),
        ("smal", asks("same"), "no model 'smal' (did you mean 'small'?)"),
    ],
)
def test_what_was_not_recorded_is_a_clear_error(replay, model, arguments, words):
    with pytest.raises(ConfigError) as caught:
        replay.complete(Candidate(name=model, model=model, price=None), arguments)

    assert words in str(caught.value)
    assert replay.maybe_billed(caught.value) is False


def test_a_column_without_costs_is_no_candidate():
    replay = ReplayClient(recorded(cost_usd=np.full((3, 2), math.nan)))

    with pytest.raises(ConfigError, match="no `cost_usd` for 'small'"):
        replay.candidate("small")
    with pytest.raises(ConfigError, match="no model 'medium'"):
        replay.candidate("medium")


def test_the_rest_of_the_protocol(replay):
    error = BudgetExceededError("no", budget="b", limit_usd=1, left_usd=0)
    replay.warm_up()

    assert replay.budget_error(error) is error
    assert replay.count_text("hello world") == 2
    assert replay.count_tokens([{"role": "user", "content": "hello world"}]) == 9
    assert replay.meter({}, None).answer() == Answer(text="", usage=None, response_id=None)
