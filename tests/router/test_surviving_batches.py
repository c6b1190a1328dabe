"""A batch with a name: what was answered is returned, the rest is asked, nothing is asked twice."""

import asyncio
import json
import threading
from datetime import UTC, datetime

import pytest

from optllm_router import (
    BatchBusyError,
    Budget,
    BudgetExceededError,
    ConfigError,
    InfeasiblePolicyError,
    ItemInterruptedError,
    MostAccurate,
    TargetAccuracy,
)
from optllm_router.dispatch import resuming
from optllm_router.testing.openai_server import FakeOpenAIServer, Reply, ToolCall
from optllm_router.testing.scripted import Line, ScriptedClient
from optllm_router.testing.store_suite import a_decision, an_attempt

TEXTS = [f"q{i}" for i in range(12)]
FORECAST_NUSD = 123_000


@pytest.fixture(params=["sync", "async"])
def shell(request):
    return request.param


@pytest.fixture
def failing(client):
    """The texts that fail, which may change."""
    texts = {"q3", "q7"}

    def line(arguments) -> Line:
        text = arguments["messages"][-1]["content"]
        return Line(text=text.upper(), error=RuntimeError("down") if text in texts else None)

    client._scripts = dict.fromkeys(client._scripts, line)
    return texts


def run(router, shell, requests=TEXTS, *, batch_id="night", **arguments):
    if shell == "sync":
        return router.complete_batch(requests, batch_id=batch_id, **arguments)
    return asyncio.run(router.acomplete_batch(requests, batch_id=batch_id, **arguments))


def asked(client):
    return [call.arguments["messages"][-1]["content"] for call in client.calls]


def leave_open(router, items, requests=TEXTS, **common):
    """Leave in the log what a process leaves that is killed while it asks these items."""
    store = router._engine.store
    keys = resuming.request_keys(requests, common, b"")
    held = resuming.hold_batch(store, router._engine.client, "night", keys, "ask")
    for item in items:
        now = datetime.now(tz=UTC)
        decision = a_decision(item, batch_id="night", served=None, created_at=now)
        opened = an_attempt(decision, status="open", cost_nusd=FORECAST_NUSD, estimated=True)
        store.record(decision, [opened], item=held.place(item).claimed(decision.id))
    held.close()


def test_answers_are_returned_as_they_were_and_only_failed_items_are_asked(
    make_router, client, failing, shell
):
    first = run(make_router(), shell)
    assert [RuntimeError, RuntimeError] == [type(first[i]) for i in (3, 7)]
    client.calls.clear()
    failing.remove("q3")

    again = run(make_router(), shell)

    assert ["q3", "q7"] == sorted(asked(client))
    assert isinstance(again[7], RuntimeError)
    assert "Q3" == again[3].choices[0].message.content
    same = [i for i in range(12) if i not in (3, 7)]
    assert [first[i] for i in same] == [again[i] for i in same]
    assert first[0]._hidden_params["optllm"] == again[0]._hidden_params["optllm"]
    assert first[0]._hidden_params["optllm"]["decision_id"]


def test_an_answered_batch_asks_nothing_and_spends_nothing(make_router, client, logged, shell):
    first = run(make_router(), shell)
    client.calls.clear()
    router = make_router()

    assert first == run(router, shell)

    assert [] == client.calls
    assert 12 == len(logged(router))
    assert {"night"} == {one.decision.batch_id for one in logged(router)}


def test_without_a_name_nothing_is_kept(make_router, client, shell):
    router = make_router()

    run(router, shell, batch_id=None)
    run(router, shell, batch_id=None)

    assert 24 == len(client.calls)
    assert router.history.batch("night") is None


def test_equal_requests_are_items_of_their_own(make_router, client, shell):
    results = run(make_router(), shell, ["same"] * 4)

    assert 4 == len({result.id for result in results})
    assert results == run(make_router(), shell, ["same"] * 4)
    assert 4 == len(client.calls)


@pytest.mark.parametrize("interrupted", ["ask", "skip"])
def test_what_was_being_asked_is_settled_at_its_forecast_and_asked_again_or_skipped(
    make_router, client, shell, logged, interrupted
):
    killed = make_router()
    leave_open(killed, [2, 5])
    left = killed.history.batch("night")
    assert (12, 0, 2) == (left.n_items, left.n_answered, left.n_interrupted)
    router = make_router()

    results = run(router, shell, interrupted=interrupted)

    lost = logged(router)[:2]
    attempts = [attempt for one in lost for attempt in one.attempts]
    assert [("abandoned", True, FORECAST_NUSD)] * 2 == [
        (attempt.status, attempt.estimated, attempt.cost_nusd) for attempt in attempts
    ]
    if interrupted == "ask":
        assert sorted(TEXTS) == sorted(asked(client))
        assert not any(isinstance(result, Exception) for result in results)
        return
    assert sorted(set(TEXTS) - {"q2", "q5"}) == sorted(asked(client))
    assert [2, 5] == [i for i, r in enumerate(results) if isinstance(r, ItemInterruptedError)]
    assert ("night", 5) == (results[5].batch_id, results[5].item)
    assert lost[1].decision.id == results[5].decision_id
    client.calls.clear()
    assert isinstance(run(router, shell, interrupted="skip")[2], ItemInterruptedError)
    assert [] == client.calls
    run(router, shell)
    assert ["q2", "q5"] == sorted(asked(client))


@pytest.mark.parametrize(
    ("requests", "says"),
    [
        ([*TEXTS[:4], "other", *TEXTS[5:]], "item 4 is not the request that stood there"),
        (TEXTS[:5], "it has 5 requests, and began with 12"),
        ([*TEXTS, "more"], "it has 13 requests, and began with 12"),
        (TEXTS[::-1], "item 0 is not the request"),
    ],
)
def test_other_requests_are_refused_before_anything_is_asked(
    make_router, client, shell, requests, says
):
    router = make_router()
    run(router, shell)
    client.calls.clear()

    with pytest.raises(ConfigError, match=f"the batch 'night' cannot go on: {says}"):
        run(router, shell, requests)

    assert [] == client.calls
    assert not router.history.batch("night").is_running


def test_what_is_beside_the_question_may_change(make_router, client, shell, ask):
    run(make_router(), shell, ["a", {"messages": ask("b"), "task": "t"}], tags=["monday"])

    run(
        make_router(),
        shell,
        [{"messages": ask("a"), "reference": "A"}, {"messages": ask("b"), "model": None}],
        policy=MostAccurate(),
        session_id="s",
    )
    assert 2 == len(client.calls)
    with pytest.raises(ConfigError, match="item 0 is not"):
        run(make_router(), shell, ["a", "b"], temperature=0.5)


def test_requests_have_one_hash_in_every_process_and_none_without_the_key():
    class Answer:
        pass

    requests = ["a", {"messages": [{"role": "user", "content": "b"}], "response_format": Answer}, 7]

    keys = resuming.request_keys(requests, {"temperature": 0.5}, b"")

    assert 48 == len(keys)
    assert keys == resuming.request_keys(list(requests), {"temperature": 0.5}, b"")
    assert "b9bdd41d4dd2e7a0ba1f9c5b2e2d9bd1" != keys[:16].hex()
    other = resuming.request_keys(requests, {"temperature": 0.5}, b"key")
    assert all(keys[at : at + 16] != other[at : at + 16] for at in (0, 16, 32))


def test_a_budget_counts_what_earlier_runs_spent(trained, client, shell):
    router = trained()
    texts = [f"easy question {i}" for i in range(20)]
    cost = 150e-6  # of each
    leave_open(router, [0], requests=texts, max_tokens=200)
    lost = FORECAST_NUSD / 1e9
    assert lost == router.history.batch("night").cost_usd

    results = run(router, shell, texts, policy=Budget(usd=lost + 10 * cost), max_tokens=200)

    batch = router.history.batch("night")
    assert batch.cost_usd <= lost + 10 * cost
    refused = [r for r in results if isinstance(r, BudgetExceededError)]
    assert 0 < len(refused) == 20 - batch.n_answered
    client.calls.clear()
    again = run(router, shell, texts, policy=Budget(usd=lost + 10 * cost), max_tokens=200)
    assert [] == client.calls
    assert len(refused) == sum(isinstance(r, BudgetExceededError) for r in again)

    run(router, shell, texts, policy=Budget(usd=1.0), max_tokens=200)

    assert len(refused) == len(client.calls)
    assert 20 == router.history.batch("night").n_answered


def test_the_rest_is_planned_as_it_would_have_been(trained, client, shell):
    texts = [f"{kind} question {i}" for i in range(8) for kind in ("easy", "hard")]
    target = TargetAccuracy(0.8)
    router = trained()
    plan = router.plan(texts, policy=target)
    planned = [plan.columns[j] for j in plan.choice]
    assert 1 < len(set(planned))
    leave_open(router, range(0, 16, 3), requests=texts)

    results = run(router, shell, texts, policy=target, interrupted="skip")

    rest = [i for i in range(16) if i % 3]
    served = [results[i]._hidden_params["optllm"]["candidate"] for i in rest]
    assert [planned[i] for i in rest] == served


def test_one_run_at_a_time(make_router, client, monkeypatch, shell):
    monkeypatch.setattr(resuming, "RENEW_S", 0.05)
    may_go, arrived = threading.Event(), threading.Event()

    class Holding(ScriptedClient):
        def complete(self, candidate, arguments):
            arrived.set()
            assert may_go.wait(30)
            return super().complete(candidate, arguments)

    first = make_router(["m"], default="m", client=Holding({"m": Line()}, prices={"m": (1, 1)}))
    worker = threading.Thread(target=lambda: run(first, "sync", ["a"]))
    worker.start()
    assert arrived.wait(30)
    second = make_router(["m"], default="m", client=first._engine.client)

    with pytest.raises(BatchBusyError, match="another run is working on the batch 'night'"):
        run(second, shell, ["a"])
    with pytest.raises(BatchBusyError):
        second.forget_answers("night")

    may_go.set()
    worker.join(30)
    assert 1 == len(first._engine.client.calls)
    run(second, shell, ["a"])
    assert 1 == len(first._engine.client.calls)


def test_a_run_that_lost_its_batch_asks_nothing_more(make_router, client, shell, logged):
    router = make_router()

    def take_over(arguments) -> Line:
        if len(client.calls) == 3:  # as after a long sleep of this process
            store = router._engine.store
            owner = store.batch("night").owner
            store.release_batch("night", owner=owner)
            assert store.hold_batch("night", owner="thief", request_keys=b"")
        return Line(text="ok")

    client._scripts = dict.fromkeys(client._scripts, take_over)

    results = run(router, shell, concurrency=1)

    assert 3 == len(client.calls) == len(logged(router))
    assert [BatchBusyError] * 9 == [type(result) for result in results[3:]]
    assert "thief" == router.history._store.batch("night").owner


def test_a_killed_runs_lease_is_waited_for(make_router, client, shell, monkeypatch):
    from optllm_router.store import batches

    router = make_router()
    monkeypatch.setattr(batches, "LEASE_S", 0.5)
    keys = resuming.request_keys(TEXTS, {}, b"")
    assert router._engine.store.hold_batch("night", owner="killed", request_keys=keys)

    run(router, shell)

    assert 12 == len(client.calls)


def test_a_dropped_batch_is_let_go(make_router):
    engine = make_router()._engine
    held = resuming.hold_batch(engine.store, engine.client, "night", b"", "ask")
    thread = held._renewing

    del held
    thread.join(30)

    assert not engine.store.batch("night").is_held


def test_a_batch_whose_planning_fails_is_let_go(trained, shell):
    router = trained()

    with pytest.raises(InfeasiblePolicyError, match="to its cheapest column"):
        run(router, shell, policy=Budget(usd=1e-9))

    assert not router.history.batch("night").is_running


def test_an_item_is_on_disk_before_it_is_asked(make_router, client, logged, shell):
    router, seen = make_router(), []

    def look(arguments) -> Line:
        (one,) = logged(router)
        seen.append((one.attempts[0].status, router.history.batch("night").n_interrupted))
        return Line()

    client._scripts = dict.fromkeys(client._scripts, look)

    run(router, shell, ["a"])

    assert [("open", 1)] == seen


def test_an_answer_that_cannot_be_kept_is_the_callers_and_is_asked_again(
    make_router, client, shell, monkeypatch, caplog
):
    monkeypatch.setattr(client, "dump", lambda response: 1 / 0)

    results = run(make_router(), shell, ["a"])

    assert "middling says" == results[0].choices[0].message.content
    assert "an answer of the batch 'night' cannot be kept" in caplog.text
    monkeypatch.undo()
    run(make_router(), shell, ["a"])
    assert 2 == len(client.calls)


async def test_what_a_cancelled_batch_was_asking_counts_as_interrupted(make_router, client):
    client._scripts = dict.fromkeys(client._scripts, lambda _: Line(latency_s=30))
    router = make_router()
    batch = asyncio.create_task(router.acomplete_batch(TEXTS, batch_id="night", concurrency=3))
    while len(client.calls) < 3:
        await asyncio.sleep(0.01)

    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch

    left = await asyncio.to_thread(router.history.batch, "night")
    assert (3, 0, False) == (left.n_interrupted, left.n_answered, left.is_running)
    client._scripts = dict.fromkeys(client._scripts, lambda _: Line())
    results = await router.acomplete_batch(TEXTS, batch_id="night", interrupted="skip")
    assert 3 == sum(isinstance(result, ItemInterruptedError) for result in results)


def test_what_cannot_be_read_stands_in_its_place_every_time(make_router, client, shell):
    for _ in range(2):
        results = run(make_router(), shell, ["a", 7, {"messages": None}])
        assert [False, True, True] == [isinstance(result, ConfigError) for result in results]

    assert 1 == len(client.calls)


@pytest.mark.parametrize("batch_id", ["", "  ", 7, "x" * 5001])
def test_a_name_that_is_none_is_refused(make_router, client, shell, batch_id):
    with pytest.raises(ConfigError, match="is no name for a batch"):
        run(make_router(), shell, batch_id=batch_id)

    assert [] == client.calls


def test_an_unknown_way_with_lost_calls_is_refused(make_router, shell):
    with pytest.raises(ConfigError, match="`interrupted='drop'` is not known: 'ask' asks again"):
        run(make_router(), shell, interrupted="drop")


def test_forgotten_answers_are_asked_again_at_a_fresh_budget(make_router, client, shell):
    router = make_router()
    run(router, shell)

    assert 12 == router.forget_answers("night")

    assert 0 == router.forget_answers("night")
    run(router, shell)
    assert 24 == len(client.calls)
    batch = router.history.batch("night")
    assert 12 * 450e-6 == pytest.approx(batch.cost_usd)
    assert json.dumps(batch.to_dict())


def test_the_progress_bar_counts_what_was_answered_before(make_router, capsys, shell):
    run(make_router(), shell)
    capsys.readouterr()

    run(make_router(), shell, progress=True)

    assert "12/12" in capsys.readouterr().err


def test_litellms_responses_come_back_equal(make_router, shell):
    from litellm import ModelResponse

    def respond(request):
        calls = [ToolCall(name="f", arguments='{"of": "é \\u0000"}')]
        return Reply(text="a \x00 b", reasoning="hm", tool_calls=calls, cached_tokens=1)

    with FakeOpenAIServer(respond) as server:
        candidate = {
            "model": "openai/any",
            "api_base": server.url,
            "arguments": {"api_key": "sk-test"},
            "input_usd_per_1m": 1,
            "output_usd_per_1m": 1,
        }
        settings = {"default": "openai/any", "client": None}
        (first,) = run(make_router([candidate], **settings), shell, ["a"])
        (again,) = run(make_router([candidate], **settings), shell, ["a"])

    assert 1 == len(server.requests)
    assert isinstance(again, ModelResponse)
    assert first.model_dump() == again.model_dump()
    assert (first.choices, first.usage) == (again.choices, again.usage)
    assert "a \x00 b" == again.choices[0].message.content
    assert first._hidden_params["optllm"] == again._hidden_params["optllm"]
    assert first._hidden_params["litellm_call_id"] == again._hidden_params["litellm_call_id"]
    assert "additional_headers" not in again._hidden_params
