"""One call: who answers, what is sent, what the log and the response say about it."""

import asyncio
import logging
from dataclasses import replace

import numpy as np
import pytest

from optllm_router import (
    Budget,
    BudgetExceededError,
    Cheapest,
    ConfigError,
    Fixed,
    MostAccurate,
    NoCandidateError,
    TargetAccuracy,
)
from optllm_router.core.cost import RETRIES
from optllm_router.records import Capabilities
from optllm_router.testing.scripted import Line, ScriptedClient

FACTS = {
    "decision_id",
    "candidate",
    "chosen",
    "expected_accuracy",
    "expected_cost_usd",
    "cost_usd",
    "propensity",
    "policy",
    "predictor_version",
    "reason",
}


def facts(response):
    return response._hidden_params["optllm"]


def both(router, **arguments):
    """Call synchronously and asynchronously; return both responses."""
    return router.complete(**arguments), asyncio.run(router.acomplete(**arguments))


def comparable(record):
    """A record without what differs from call to call."""
    changing = {"id": "", "decision_id": "", "latency_s": 0.0, "response_id": None}
    moment = {name: None for name in ("created_at", "started_at") if hasattr(record, name)}
    known = {name: value for name, value in changing.items() if hasattr(record, name)}
    return replace(record, **known, **moment)


def test_sync_and_async_make_the_same_decision_rows_and_annotations(trained, logged, ask):
    router = trained()

    ours, theirs = both(router, messages=ask("easy question"), task="t", tags=["a"], seed=3)

    assert ours.choices[0].message.content == theirs.choices[0].message.content == "cheap says"
    one, other = logged(router)
    assert comparable(one.decision) == comparable(other.decision)
    assert [comparable(a) for a in one.attempts] == [comparable(a) for a in other.attempts]
    same = {name: value for name, value in facts(ours).items() if name != "decision_id"}
    assert same == {name: v for name, v in facts(theirs).items() if name != "decision_id"}
    assert facts(ours).keys() == FACTS


def test_the_decision_and_its_attempt_are_on_disk_before_the_answer_is_returned(trained, only, ask):
    router = trained(policy=MostAccurate())

    response = router.complete(messages=ask("hard question"))

    decision, attempt = only(router)
    assert facts(response)["decision_id"] == decision.id == attempt.decision_id
    assert (decision.kind, decision.requested) == ("route", "auto")
    assert decision.chosen == decision.served == attempt.candidate == facts(response)["candidate"]
    assert (attempt.status, attempt.prompt_tokens, attempt.completion_tokens) == ("ok", 100, 50)
    assert (
        attempt.cost_nusd
        == 150 * {"cheap": 1000, "middling": 3000, "dear": 10000}[attempt.candidate]
    )
    assert facts(response)["cost_usd"] == attempt.cost_nusd / 1e9
    assert decision.propensity == 1.0
    assert decision.allowed == ("cheap", "middling", "dear")


def test_policies_pick_different_candidates(trained, ask):
    router = trained()

    cheapest = router.complete(messages=ask("hard question"))
    best = router.complete(messages=ask("hard question"), policy=MostAccurate())
    fixed = router.complete(messages=ask("hard question"), policy=Fixed("middling"))

    assert "cheap" == facts(cheapest)["candidate"]
    assert "dear" == facts(best)["candidate"]
    assert "middling" == facts(fixed)["candidate"]


def test_a_target_out_of_reach_is_missed_and_the_reason_says_so(trained, ask):
    router = trained()

    response = router.complete(messages=ask("hard question"), policy=TargetAccuracy(1.0))

    assert facts(response)["reason"].startswith(
        "target accuracy 1: out of reach on recent traffic, nearest is 0."
    )


def test_an_explicit_none_is_unset(make_router, client, ask):
    router = make_router()

    both(router, model=None, messages=ask(), temperature=None, tools=None, task=None, tags=None)

    for call in client.calls:
        assert call.arguments.keys() == {"messages", "max_tokens", *RETRIES}


def test_a_routed_call_gets_the_candidates_output_limit_unless_the_caller_set_one(
    make_router, client, ask
):
    router = make_router([{"model": "middling", "max_output_tokens": 77}])

    router.complete(messages=ask())
    router.complete(messages=ask(), max_tokens=5)
    router.complete(messages=ask(), max_completion_tokens=6)
    router.complete("middling", ask())

    ours = {"messages", *RETRIES}
    sent = [{k: v for k, v in c.arguments.items() if k not in ours} for c in client.calls]
    assert sent == [{"max_tokens": 77}, {"max_tokens": 5}, {"max_completion_tokens": 6}, {}]


def test_our_own_arguments_are_not_sent_and_tags_and_session_are_stored(
    make_router, client, only, ask
):
    router = make_router()

    router.complete(
        messages=ask(),
        task="triage",
        policy=Cheapest(),
        tags=["team-a", "team-a", "b"],
        session_id=7,
        reference="42",
    )

    assert client.calls[0].arguments.keys() == {"messages", "max_tokens", *RETRIES}
    decision, _ = only(router)
    assert (decision.task, decision.tags, decision.session_id) == ("triage", ("team-a", "b"), "7")


def test_the_task_defaults_to_a_hash_of_the_system_prompt(make_router, logged):
    router = make_router()
    system = {"role": "system", "content": "You sort letters."}
    router.complete(messages=[system, {"role": "user", "content": "a"}])
    router.complete(messages=[system, {"role": "user", "content": "b"}])
    router.complete(messages=[{"role": "user", "content": "a"}])

    tasks = [one.decision.task for one in logged(router)]

    assert tasks[0] == tasks[1]
    assert tasks[0].startswith("system-")
    assert "" == tasks[2]


def test_names_in_route_models_are_routed(make_router, only, ask):
    router = make_router(route_models=["gpt-4o"])

    response = router.complete("gpt-4o", ask())

    decision, _ = only(router)
    assert ("route", "gpt-4o", "middling") == (decision.kind, decision.requested, decision.served)
    assert "middling" == response.model


def test_a_pin_is_called_as_given_and_warns_once_how_to_route_it(
    trained, client, logged, ask, caplog
):
    router = trained()

    with caplog.at_level(logging.WARNING, "optllm_router"):
        both(router, model="dear", messages=ask())

    assert ["dear", "dear"] == [call.candidate for call in client.calls]
    assert {"messages"} == client.calls[0].arguments.keys()
    for one in logged(router):
        assert ("pin", "pin", None) == (
            one.decision.kind,
            one.decision.policy,
            one.decision.propensity,
        )
    assert [record.getMessage() for record in caplog.records] == [
        (
            "'dear' names a candidate and was called as asked (a pin): pass model='auto', or add "
            "it to `route_models`, to have such calls routed"
        )
    ]


def test_an_unpriced_pin_is_logged_without_a_cost_and_warns_once(make_router, logged, ask, caplog):
    router = make_router()

    with caplog.at_level(logging.WARNING, "optllm_router"):
        responses = both(router, model="other", messages=ask())

    for one in logged(router):
        assert [None] == [attempt.cost_nusd for attempt in one.attempts]
    assert [None, None] == [facts(response)["cost_usd"] for response in responses]
    assert [record.getMessage() for record in caplog.records] == [
        "'other' has no known token price: its calls are logged without"
    ]


@pytest.mark.parametrize("per", ["call", "batch"])
def test_an_unpriced_pin_is_refused_under_a_hard_cap(make_router, client, logged, ask, per):
    router = make_router(policy=Budget(usd=1.0, per=per))

    with pytest.raises(BudgetExceededError, match="'other' has no known token price"):
        router.complete("other", ask())

    assert [] == client.calls
    assert [] == logged(router)


def test_a_pin_above_the_budget_is_refused_and_below_it_is_sent_with_its_limit(
    make_router, client, ask
):
    router = make_router(policy=Budget(usd=0.005, per="call"))

    with pytest.raises(BudgetExceededError, match="no money was spent"):
        router.complete("middling", ask())
    router.complete("cheap", ask())

    assert [("cheap", 4096)] == [(c.candidate, c.arguments["max_tokens"]) for c in client.calls]


def test_a_callers_policy_tightens_a_budget_and_never_loosens_it(trained, client, ask):
    router = trained(policy=Budget(usd=0.02, per="call"))

    loosened = router.complete(messages=ask("hard question"), policy=Budget(usd=9.0))
    aimed = router.complete(messages=ask("hard question"), policy=MostAccurate())
    tightened = router.complete(messages=ask("hard question"), policy=Budget(usd=0.005))

    assert facts(loosened)["candidate"] != "dear"  # its worst case is 0.041 USD
    assert facts(aimed)["candidate"] != "dear"
    assert "cheap" == facts(tightened)["candidate"]


def test_shadow_mode_calls_what_was_asked_and_logs_what_would_have_been_chosen(
    trained, client, logged, ask
):
    router = trained(mode="shadow", route_models=["dear"])

    for model in ("auto", "dear", "other"):
        router.complete(model, ask("easy question"))

    assert ["middling", "dear", "other"] == [call.candidate for call in client.calls]
    assert [{"messages"}] * 3 == [set(call.arguments) for call in client.calls]
    for one, served in zip(logged(router), ("middling", "dear", "other"), strict=True):
        decision = one.decision
        assert ("shadow", "cheap", served) == (decision.kind, decision.chosen, decision.served)
        assert decision.propensity is None
        assert decision.reason.startswith("shadow: cheapest")


def test_shadow_mode_lets_a_routed_name_bring_its_own_key(make_router, client, ask):
    router = make_router(mode="shadow", route_models=["dear"])

    router.complete("dear", ask(), api_key="sk-own")

    assert "sk-own" == client.calls[0].arguments["api_key"]


def test_shadow_mode_answers_where_routing_would_have_refused(make_router, only, ask):
    client = ScriptedClient(
        {"dear": Line(), "other": Line()},
        prices={"dear": (1, 1)},
        capabilities={"dear": Capabilities(context_window=3)},
    )
    router = make_router(["dear"], default="dear", mode="shadow", client=client)

    response = router.complete("other", ask("a long question, longer than three tokens"))

    assert "ok" == response.choices[0].message.content
    decision, _ = only(router)
    assert decision.reason.startswith(
        "shadow: would have been refused: no candidate can serve this request (dear: the prompt"
    )


@pytest.mark.parametrize("name", ["api_key", "api_base", "base_url", "custom_llm_provider"])
@pytest.mark.parametrize("model", ["auto", "gpt-4o"])
def test_credentials_with_a_routed_model_are_refused_and_nothing_is_called(
    make_router, client, logged, ask, name, model
):
    router = make_router(route_models=["gpt-4o"])

    with pytest.raises(ConfigError) as caught:
        router.complete(model, ask(), **{name: "x"})

    assert str(caught.value).startswith(f"`{name}` was passed with the routed model {model!r}")
    assert [] == client.calls
    assert [] == logged(router)


class SeeingClient(ScriptedClient):
    """Keeps the candidates that it is called with."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def candidate(self, model, overrides=None):
        return replace(super().candidate(model, overrides), api_key_env=overrides["api_key_env"])

    def complete(self, candidate, arguments):
        self.seen.append(candidate)
        return super().complete(candidate, arguments)


def test_credentials_with_a_pin_pass_and_replace_the_candidates_own(make_router, ask):
    client = SeeingClient({"cheap": Line()}, prices={"cheap": (1, 1)})
    router = make_router(
        [
            {
                "model": "cheap",
                "api_key_env": "OURS",
                "arguments": {"api_base": "http://ours", "seed": 1},
            }
        ],
        default="cheap",
        client=client,
    )

    router.complete("cheap", ask(), api_key="sk-own", api_base="http://theirs")
    router.complete("cheap", ask(), extra_headers={"x": "1"})

    assert ("sk-own", "http://theirs") == (
        client.calls[0].arguments["api_key"],
        client.calls[0].arguments["api_base"],
    )
    assert [None, "OURS"] == [candidate.api_key_env for candidate in client.seen]
    assert {"seed": 1} == client.seen[0].arguments
    assert {"api_base": "http://ours", "seed": 1} == client.seen[1].arguments


def test_a_pins_headers_join_the_candidates_own(make_router, ask):
    client = SeeingClient({"cheap": Line()}, prices={"cheap": (1, 1)})
    headers = {"x-team": "a", "x-trace": "ours"}
    router = make_router(
        [{"model": "cheap", "api_key_env": "OURS", "arguments": {"extra_headers": headers}}],
        default="cheap",
        client=client,
    )

    router.complete("cheap", ask(), extra_headers={"x-trace": "theirs"})

    (seen,) = client.seen
    assert {"extra_headers": {"x-team": "a", "x-trace": "theirs"}} == seen.arguments


def test_an_exact_name_goes_before_a_model(make_router, client, only, ask):
    router = make_router(
        [
            {"name": "first", "model": "cheap", "input_usd_per_1m": 5, "output_usd_per_1m": 5},
            {"name": "cheap", "model": "cheap", "input_usd_per_1m": 1, "output_usd_per_1m": 1},
        ],
        default="first",
    )

    router.complete("cheap", ask())

    decision, attempt = only(router)
    assert ("cheap", "cheap", 150_000) == (decision.served, attempt.candidate, attempt.cost_nusd)
    assert (0, 1, -1) == tuple(map(router._engine.state.position, ("first", "cheap", "dear")))


@pytest.mark.parametrize("limit", [0, 10.0, -1])
def test_a_pin_passes_limits_on_as_they_are_unless_a_budget_needs_them(
    make_router, client, ask, limit
):
    router = make_router()

    router.complete("cheap", ask(), max_tokens=limit)
    with pytest.raises(ConfigError, match=f"`max_tokens={limit!r}` is not a whole number"):
        router.complete("cheap", ask(), max_tokens=limit, policy=Budget(usd=1.0))

    assert [limit] == [call.arguments["max_tokens"] for call in client.calls]


def test_the_aims_of_many_policies_are_not_all_kept(trained):
    router = trained()

    for i in range(200):
        router._engine.state.aim_of(TargetAccuracy(0.5 + i / 1000))

    assert 0 < len(router._engine.state.aims) <= 64


def test_candidates_that_cannot_serve_a_request_are_left_out(trained, make_router, client, ask):
    router = trained()
    able = {
        "cheap": Capabilities(tools=False),
        "middling": Capabilities(context_window=10),
        "dear": Capabilities(tools=True, parameters=frozenset({"tools", "temperature"})),
    }
    router.close()
    client._capabilities = able
    router = make_router()
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]

    with_tools = router.complete(messages=ask("easy question " * 10), tools=tools)
    with pytest.raises(NoCandidateError) as caught:
        router.complete(messages=ask("easy question " * 10), tools=tools, seed=3)

    assert "dear" == facts(with_tools)["candidate"]
    assert {
        "cheap": "it cannot call tools",
        "dear": "it does not support `seed`",
    }.items() <= caught.value.reasons.items()


def test_what_is_no_policy_is_refused_before_a_call(make_router, client, ask):
    router = make_router()

    with pytest.raises(ConfigError, match=r"`policy='cheapest'` is no policy: pass an object"):
        router.complete(messages=ask(), policy="cheapest")
    with pytest.raises(ConfigError, match="fixed on 'nobody' names no candidate"):
        router.complete(messages=ask(), policy=Fixed("nobody"))
    with pytest.raises(ConfigError, match="is no policy"):
        router.complete_batch(["a"], policy={"kind": "cheapest"})
    with pytest.raises(ConfigError, match="names no candidate"):
        router.plan(["a"], policy=Fixed("nobody"))
    with pytest.raises(ConfigError, match="names no candidate"):
        make_router(policy=Fixed("nobody"))

    assert [] == client.calls


def test_a_router_fault_is_counted_and_logged_and_the_default_answers(trained, only, ask, caplog):
    router = trained()
    snapshot = router._engine.state.snapshot
    serving = snapshot.predictor._serving
    snapshot.predictor._serving = replace(serving, of_rest=np.zeros((3, 2)))

    with caplog.at_level(logging.ERROR, "optllm_router"):
        response = router.complete(messages=ask("easy question"))

    assert "middling says" == response.choices[0].message.content
    decision, attempt = only(router)
    assert "router fault: the default answers" == decision.reason
    assert "ok" == attempt.status
    assert 1 == router._engine.desk.decider.n_faults
    assert "the router could not decide; middling answers" == caplog.records[0].getMessage()
    assert "ValueError" in caplog.text


def test_a_router_fault_does_not_cross_a_hard_budget(trained, client, ask):
    router = trained(policy=Budget(usd=0.005, per="call"))
    snapshot = router._engine.state.snapshot
    serving = snapshot.predictor._serving
    snapshot.predictor._serving = replace(serving, of_rest=np.zeros((3, 2)))

    with pytest.raises(BudgetExceededError):
        router.complete(messages=ask("easy question"))

    assert [] == client.calls


def test_an_answer_that_cannot_be_read_still_reaches_its_caller(make_router, only, ask):
    class Unreadable(ScriptedClient):
        def describe(self, response):
            raise RuntimeError(f"a bug of ours, on {response.id}")

    client = Unreadable({"middling": Line(text="middling says")}, prices={"middling": (1, 1)})
    router = make_router(["middling"], client=client)

    response = router.complete(messages=ask())

    assert "middling says" == response.choices[0].message.content
    _, attempt = only(router)
    assert ("ok", True) == (attempt.status, attempt.estimated)
    assert 1 == router._engine.desk.decider.n_faults
