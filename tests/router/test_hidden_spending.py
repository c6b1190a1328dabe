"""What could spend more than a worst case says: refused, switched off, or reserved for."""

import pytest

from optllm_router import Budget, BudgetExceededError, ConfigError, Exact, Router
from optllm_router.core.cost import worst_case_nusd
from optllm_router.records import Capabilities
from optllm_router.testing.openai_server import FakeOpenAIServer, Reply
from optllm_router.testing.scripted import Line, ScriptedClient

PLENTY = Budget(usd=5.0)
LIMITS = ("n", "max_tokens", "max_completion_tokens", "max_output_tokens")


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize(("model", "policy"), [("auto", None), ("cheap", PLENTY)])
def test_limits_inside_extra_body_are_refused(make_router, client, ask, name, model, policy):
    router = make_router()
    arguments = {"model": model, "messages": ask(), "policy": policy, "extra_body": {name: 50}}
    instead = "n" if name == "n" else "max_tokens"
    says = (
        f"`extra_body={{{name!r}: 50}}` would bypass the worst case of this call: pass "
        f"`{instead}` as an argument of its own"
    )

    with pytest.raises(ConfigError) as caught:
        router.complete(**arguments)
    (in_place,) = router.complete_batch([arguments])

    assert [says, says] == [str(caught.value), str(in_place)]
    assert [] == client.calls


def test_extra_body_passes_with_a_pin_and_with_other_keys(make_router, client, ask):
    router = make_router()

    router.complete("cheap", ask(), extra_body={"n": 2})
    router.complete(messages=ask(), extra_body={"top_k": 5}, policy=PLENTY)

    assert [{"n": 2}, {"top_k": 5}] == [call.arguments["extra_body"] for call in client.calls]


@pytest.mark.parametrize("name", LIMITS)
def test_limits_inside_a_candidates_extra_body_are_refused(make_router, name):
    with pytest.raises(
        ConfigError, match=f"`{name}` in `extra_body` would make worst cases untrue"
    ):
        make_router([{"model": "middling", "arguments": {"extra_body": {name: 5}}}])


@pytest.mark.parametrize("name", ["fallbacks", "context_window_fallback_dict", "model_list"])
def test_a_candidate_that_may_be_rerouted_is_refused(make_router, name):
    with pytest.raises(ConfigError, match=f"`{name}` lets another model answer under this"):
        make_router([{"model": "middling", "arguments": {name: ["dear"]}}])


@pytest.mark.parametrize("name", ["fallbacks", "context_window_fallback_dict", "model_list"])
def test_a_pin_that_may_be_rerouted_is_refused_under_a_budget(make_router, client, ask, name):
    router = make_router(policy=PLENTY)
    arguments = {"model": "cheap", "messages": ask(), name: ["dear"]}

    with pytest.raises(ConfigError, match=f"^`{name}=\\['dear'\\]` was passed while a hard budget"):
        router.complete(**arguments)
    (in_place,) = router.complete_batch([arguments])

    assert isinstance(in_place, ConfigError)
    assert [] == client.calls


@pytest.mark.parametrize("stream", [False, True])
def test_a_pin_that_may_be_rerouted_is_no_label_and_has_no_cost(make_router, only, ask, stream):
    router = make_router()

    response = router.complete("cheap", ask(), fallbacks=["dear"], stream=stream)
    if stream:
        list(response)

    decision, attempt = only(router)
    assert (None, None, "ok") == (decision.served, attempt.cost_nusd, attempt.status)
    router.feedback(response, score=1.0)
    assert [] == router._engine.store.training_rows()


@pytest.fixture
def failing(url):
    """Start a router whose provider answers 500, and is asked for with these arguments."""
    opened = []

    def start(**arguments):
        server = FakeOpenAIServer(lambda _: Reply(status=500, error="down")).start()
        candidate = {
            "model": "openai/house",
            "api_base": server.url,
            "arguments": {"api_key": "sk-test", **arguments},
            "input_usd_per_1m": 1,
            "output_usd_per_1m": 2,
        }
        router = Router([candidate], store=url, calls={"max_attempts": 1})
        opened.extend((router.close, server.stop))
        return router, server

    yield start
    for close in opened:
        close()


@pytest.mark.parametrize("model", ["auto", "openai/house"])
def test_under_a_budget_one_attempt_is_one_request(failing, ask, model):
    router, server = failing()

    with pytest.raises(Exception, match="down"):
        router.complete(model, ask(), policy=PLENTY)

    assert 1 == len(server.requests)


@pytest.mark.parametrize("by_candidate", [False, True])
@pytest.mark.parametrize(
    ("retries", "n_tries"), [({"max_retries": 1}, 2), ({"num_retries": 1}, 3)], ids=str
)
def test_retries_that_were_asked_for_are_reserved_for(failing, ask, by_candidate, retries, n_tries):
    router, server = failing(**(retries if by_candidate else {}))
    given = {} if by_candidate else retries
    request = router._engine.read("auto", ask(), {})
    (candidate,) = failing()[0].candidates  # without retries
    one_try = worst_case_nusd(candidate, request.query)
    short = Budget(usd=(n_tries * one_try - n_tries) / 1e9)

    with pytest.raises(BudgetExceededError):
        router.complete(messages=ask(), policy=short, **given)
    with pytest.raises(Exception, match="down"):
        router.complete(messages=ask(), policy=Budget(usd=n_tries * one_try / 1e9), **given)

    assert 1 < len(server.requests) <= n_tries


def test_the_output_limit_leaves_room_for_the_prompt(make_router, ask):
    client = ScriptedClient(
        {"small": Line(), "large": Line()},
        prices={"small": (1, 1), "large": (9, 9)},
        capabilities={"small": Capabilities(context_window=1_000)},
    )
    router = make_router(["small", "large"], default="small", client=client)

    for n_tokens in (100, 769, 770):
        router.complete(messages=ask("four" * n_tokens))
    router.complete(messages=ask("four" * 770), max_tokens=5)

    sent = [(call.candidate, call.arguments["max_tokens"]) for call in client.calls]
    assert [("small", 870), ("large", 4096), ("large", 4096), ("small", 5)] == sent


def test_thinking_gets_its_budget_beside_the_output_limit(make_router, client, ask):
    router = make_router()
    thinking = {"type": "enabled", "budget_tokens": 8_000}

    router.complete(messages=ask(), thinking=thinking)
    router.complete(messages=ask(), thinking=thinking, max_tokens=9_000)
    router.complete(messages=ask(), thinking=thinking, policy=PLENTY)

    assert [12_096, 9_000, 12_096] == [call.arguments["max_tokens"] for call in client.calls]
    query = router._engine.read("auto", ask(), {"thinking": thinking}).query
    plain = router._engine.read("auto", ask(), {}).query
    cheap = router.candidates[0]
    assert 8_000_000 == worst_case_nusd(cheap, query) - worst_case_nusd(cheap, plain)


def test_reasoning_at_an_effort_has_a_limit_only_under_a_budget(make_router, client, ask):
    router = make_router()

    router.complete(messages=ask(), reasoning_effort="high")
    router.complete(messages=ask(), reasoning_effort="high", policy=PLENTY)

    assert [None, 4096] == [call.arguments.get("max_tokens") for call in client.calls]


def test_a_probe_grades_numbers_and_refuses_other_references_before_it_spends(make_router, client):
    router = make_router(graders={"default": {"kind": "exact"}})
    client._scripts = dict.fromkeys(client._scripts, lambda _: Line(text="4"))

    report = router.probe(["q"], [4], grader=Exact())
    assert (3, {"cheap": 1.0, "middling": 1.0, "dear": 1.0}) == (report.n_graded, report.mean_score)
    client.calls.clear()
    with pytest.raises(ConfigError, match=r"^reference \['4'\] is a list"):
        router.probe(["q"], [["4"]], grader=Exact())
    with pytest.raises(ConfigError, match=r"^reference \['4'\] is a list"):
        router.complete(messages=[{"role": "user", "content": "q"}], reference=["4"])

    assert [] == client.calls
