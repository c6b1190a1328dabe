"""A batch as a whole: order, failures in place, what is planned and what stands alone."""

import asyncio
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from optllm_router import (
    Budget,
    BudgetExceededError,
    Cheapest,
    ConfigError,
    InfeasiblePolicyError,
    MostAccurate,
    NoCandidateError,
    TargetAccuracy,
)
from optllm_router.records import Capabilities, Usage
from optllm_router.testing.scripted import Line, ScriptedClient


def run(router, shell, requests, **arguments):
    if shell == "sync":
        return router.complete_batch(requests, **arguments)
    return asyncio.run(router.acomplete_batch(requests, **arguments))


def candidates(results):
    return [result._hidden_params["optllm"]["candidate"] for result in results]


@pytest.fixture(params=["sync", "async"])
def shell(request):
    return request.param


@pytest.fixture
def echoing(client):
    """Have every candidate say what it was asked, the later ones faster."""

    def line(arguments) -> Line:
        text = arguments["messages"][-1]["content"]
        if text == "fail":
            return Line(error=RuntimeError("scripted"))
        return Line(text=text, latency_s=0.02 if text.endswith("0") else 0.0)

    client._scripts = dict.fromkeys(client._scripts, line)
    return client


def test_order_is_kept_and_exceptions_stand_in_their_place(make_router, echoing, shell):
    router = make_router()
    texts = [f"q{i}" for i in range(25)]
    texts[7] = "fail"

    results = run(router, shell, texts)

    said = [r if isinstance(r, Exception) else r.choices[0].message.content for r in results]
    assert texts[:7] + texts[8:] == said[:7] + said[8:]
    assert isinstance(said[7], RuntimeError)
    assert ["error"] == [attempt.status for attempt in said[7].optllm_attempts]


def test_an_item_is_a_text_messages_or_arguments_and_its_own_win(make_router, echoing, shell, ask):
    router = make_router()

    results = run(
        router,
        shell,
        ["a", ask("b"), {"messages": ask("c"), "temperature": 0.1, "model": "dear"}],
        temperature=0.9,
    )

    assert ["a", "b", "c"] == [r.choices[0].message.content for r in results]
    sent = {c.arguments["messages"][0]["content"]: c for c in echoing.calls}
    assert [0.9, 0.9, 0.1] == [sent[text].arguments["temperature"] for text in "abc"]
    assert "dear" == sent["c"].candidate


def test_what_cannot_be_read_stands_in_its_place_and_is_not_called(make_router, client, shell, ask):
    router = make_router()

    results = run(
        router,
        shell,
        [
            "a",
            7,
            {"messages": ask("b"), "stream": True},
            {"messages": None},
            {"messages": ask("c"), "api_key": "sk-x"},
            {"messages": ask("d"), "n": "many"},
        ],
    )

    assert [False, True, True, True, True, True] == [isinstance(r, ConfigError) for r in results]
    assert "`stream=True` in a batch item: stream single calls, batch whole ones" == str(results[2])
    assert 1 == len(client.calls)


def test_an_empty_batch_is_an_empty_list(trained, client, shell):
    router = trained()

    assert [] == run(router, shell, [])
    assert [] == run(router, shell, [], policy=Budget(usd=1e-6))
    assert (0,) == router.plan([]).choice.shape
    assert [] == client.calls


def test_one_query_one_candidate_and_duplicates(make_router, train, client, shell):
    router = make_router(["cheap"], default="cheap")
    train_one(router)

    assert ["cheap"] == candidates(run(router, shell, ["easy question"]))
    same = run(router, shell, ["easy question"] * 9, policy=MostAccurate())
    assert ["cheap"] * 9 == candidates(same)
    assert 9 == len({result._hidden_params["optllm"]["decision_id"] for result in same})


def train_one(router):
    router.probe([f"text {i}" for i in range(60)], grader=lambda text, reference: len(text) > 3)
    assert router.retrain().published


def test_a_batch_is_planned_as_plan_says_and_shares_a_batch_id(trained, logged, shell):
    router = trained()
    texts = [f"{kind} question {i}" for i in range(10) for kind in ("easy", "hard")]
    target = TargetAccuracy(0.8)

    plan = router.plan(texts, policy=target)
    results = run(router, shell, texts, policy=target)

    assert [plan.columns[j] for j in plan.choice] == candidates(results)
    assert 1 < len(set(candidates(results)))
    assert 1 == len({one.decision.batch_id for one in logged(router)})
    assert {"target accuracy 0.8"} == {one.decision.policy for one in logged(router)}


def test_all_candidates_filtered_is_an_error_in_place(make_router, shell, ask):
    client = ScriptedClient(
        {"a": Line(), "b": Line()},
        prices={"a": (1, 1), "b": (2, 2)},
        capabilities={"a": Capabilities(tools=False), "b": Capabilities(tools=False)},
    )
    router = make_router(["a", "b"], default="a", client=client)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]

    results = run(router, shell, [{"messages": ask(), "tools": tools}, "plain"])

    assert isinstance(results[0], NoCandidateError)
    assert {"a": "it cannot call tools", "b": "it cannot call tools"} == results[0].reasons
    assert "ok" == results[1].choices[0].message.content


def test_a_budget_below_the_cheapest_allocation_states_the_minimum_before_any_call(
    trained, client, logged, shell
):
    router = trained()
    texts = [f"easy question {i}" for i in range(10)]

    with pytest.raises(InfeasiblePolicyError) as caught:
        run(router, shell, texts, policy=Budget(usd=0.0001))

    cheapest = router.plan(texts, policy=Cheapest()).expected_cost_usd
    assert pytest.approx(cheapest) == caught.value.nearest
    assert 0.0001 == caught.value.asked
    assert [] == client.calls
    assert [] == logged(router)


def test_per_call_budgets_of_the_batch_bind_every_item(trained, client, shell):
    router = trained()
    texts = ["hard question", "easy question"]

    capped = run(router, shell, texts, policy=Budget(usd=0.015, per="call"))
    refused = run(router, shell, texts, policy=Budget(usd=0.001, per="call"))
    with pytest.raises(InfeasiblePolicyError, match="below the worst case of every candidate"):
        router.plan(texts, policy=Budget(usd=0.001, per="call"))

    assert "dear" not in candidates(capped)  # its worst case is 0.041 USD
    assert [BudgetExceededError] * 2 == [type(result) for result in refused]
    assert 2 == len(client.calls)


def test_a_configured_budget_per_call_binds_a_batch_with_another_aim(trained, shell):
    router = trained(policy=Budget(usd=0.015, per="call"))

    results = run(router, shell, ["hard question"] * 4, policy=MostAccurate())

    assert "dear" not in candidates(results)


def test_an_item_may_bring_its_own_policy(trained, shell, ask):
    router = trained()

    results = run(
        router,
        shell,
        ["hard question", {"messages": ask("hard question"), "policy": MostAccurate()}],
        policy=Cheapest(),
    )

    assert ["cheap", "dear"] == candidates(results)


def test_pins_in_a_capped_batch_spend_of_its_budget(trained, client, shell, ask):
    client._scripts["dear"] = lambda _: Line(usage=Usage(prompt_tokens=10, completion_tokens=10))
    router = trained()
    pin = {"messages": ask("easy question"), "model": "dear"}  # worst case 0.0417 USD

    results = run(
        router,
        shell,
        [pin, pin, pin, {"messages": ask("easy question"), "model": "other"}],
        policy=Budget(usd=0.0420),
        concurrency=4,
    )

    answered = [r for r in results[:3] if not isinstance(r, Exception)]
    assert 2 == len(answered)  # each costs 0.0002, so that two fit, one after the other
    assert isinstance(results[3], BudgetExceededError)
    assert "no known token price" in str(results[3])


def test_a_fault_while_planning_falls_back_to_the_default_item_by_item(trained, shell, caplog):
    router = trained()
    snapshot = router._engine.state.snapshot
    serving = snapshot.predictor._serving
    snapshot.predictor._serving = replace(serving, of_rest=np.zeros((3, 2)))

    results = run(router, shell, ["a", "b"])

    assert ["middling", "middling"] == candidates(results)
    assert 3 == router._engine.desk.decider.n_faults
    assert "the batch could not be planned; its items are decided one by one" in caplog.text


def test_concurrency_is_kept_and_checked(make_router, client):
    running, most = [], []
    lock, all_three = threading.Lock(), threading.Barrier(3)

    class Counting(ScriptedClient):
        def complete(self, candidate, arguments):
            with lock:
                running.append(1)
                most.append(len(running))
                is_early = len(most) <= 3
            if is_early:
                all_three.wait(20)
            time.sleep(0.01)  # a fourth one at the same time would show
            with lock:
                running.pop()
            return super().complete(candidate, arguments)

    router = make_router(["m"], default="m", client=Counting({"m": Line()}, prices={"m": (1, 1)}))

    router.complete_batch(["q"] * 20, concurrency=3)

    assert 3 == max(most)
    for wrong in (0, -1, 1.5, True, "3"):
        with pytest.raises(ConfigError, match="is not a whole number of at least 1"):
            router.complete_batch(["q"], concurrency=wrong)


def test_progress_is_drawn_on_standard_error_and_reaches_its_total(make_router, capsys):
    router = make_router()

    router.complete_batch(["a", 7, "b"], progress=True)

    shown = capsys.readouterr()
    assert "3/3" in shown.err
    assert "" == shown.out


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_client_that_gives_up_costs_a_batch_no_other_answer(make_router, client, concurrency):
    gone = asyncio.CancelledError("gave up")
    lines = {"b": Line(error=gone)}
    client._scripts["middling"] = lambda call: lines.get(call["messages"][0]["content"], Line())

    results = make_router().complete_batch(["a", "b", "c"], concurrency=concurrency)

    assert gone is results[1]
    assert ["ok", "ok"] == [results[i].choices[0].message.content for i in (0, 2)]


class Holding(ScriptedClient):
    """Keeps its calls until they may go."""

    def __init__(self) -> None:
        super().__init__({"m": Line()}, prices={"m": (1, 1)})
        self.arrived, self.may_go = threading.Semaphore(0), threading.Event()

    def complete(self, candidate, arguments):
        self.arrived.release()
        assert self.may_go.wait(30)
        return super().complete(candidate, arguments)


def test_an_interrupt_hands_out_nothing_more_and_loses_no_row(make_router, logged):
    client = Holding()
    router = make_router(["m"], default="m", client=client)

    def interrupt() -> None:
        assert all(client.arrived.acquire(timeout=20) for _ in range(4))
        (job,) = router._engine._jobs.values()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        deadline = time.monotonic() + 20
        while not job._stopped and time.monotonic() < deadline:
            time.sleep(0.001)
        client.may_go.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        router.complete_batch([f"q{i}" for i in range(50)], concurrency=4)
    thread.join()

    rows = logged(router)
    assert 4 == len(client.calls) == len(rows)
    assert ["ok"] * 4 == [one.attempts[0].status for one in rows]


async def test_a_cancelled_batch_loses_no_row(make_router, client, logged):
    client._scripts = dict.fromkeys(client._scripts, lambda _: Line(latency_s=30))
    router = make_router()

    batch = asyncio.create_task(router.acomplete_batch([f"q{i}" for i in range(50)], concurrency=4))
    while len(client.calls) < 4:
        await asyncio.sleep(0.01)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch

    rows = await asyncio.to_thread(logged, router)
    assert 4 == len(client.calls) == len(rows)
    attempts = [attempt for one in rows for attempt in one.attempts]
    assert [("error", "CancelledError", True)] * 4 == [
        (a.status, a.error_class, a.estimated) for a in attempts
    ]
    assert all(attempt.cost_nusd > 0 for attempt in attempts)


async def test_a_client_that_gives_up_by_itself_fills_its_items_place(make_router):
    client = ScriptedClient(
        {"m": [Line(error=asyncio.CancelledError("inside")), Line()]}, prices={"m": (1, 1)}
    )
    router = make_router(["m"], default="m", client=client)

    results = await router.acomplete_batch(["a", "b"], concurrency=1)

    assert isinstance(results[0], asyncio.CancelledError)
    assert "ok" == results[1].choices[0].message.content


def test_batch_completion_has_litellms_shape(make_router, client, ask):
    router = make_router()

    results = router.batch_completion("auto", [ask("a"), ask("b")], temperature=0.3, max_workers=2)

    assert ["middling says"] * 2 == [r.choices[0].message.content for r in results]
    assert [0.3, 0.3] == [call.arguments["temperature"] for call in client.calls]
