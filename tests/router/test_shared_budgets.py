"""Budgets that processes share hold through a router: exactly, whoever calls, however it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from optllm_router import BudgetExceededError, StoreError
from optllm_router.completion.base import Failure
from optllm_router.core.cost import worst_case_nusd
from optllm_router.records import NANO_PER_USD, Query
from optllm_router.testing.scripted import Line
from optllm_router.testing.store_suite import SteppedClock

ROOT = Path(__file__).parents[2]
LIMIT = 400  # output tokens
QUERY = Query(text="", n_prompt_tokens=3, max_output_tokens=LIMIT)  # as of all texts below
AGAIN = Failure(remedy="another")


@pytest.fixture
def worst(client) -> dict[str, int]:
    """The worst case of a call of each candidate, in nano-USD."""
    names = ("cheap", "middling", "dear")
    return {name: worst_case_nusd(client.candidate(name), QUERY) for name in names}


@pytest.fixture(params=["sync", "async"])
def shell(request) -> str:
    return request.param


def a_budget(nusd: int, **changes) -> dict[str, object]:
    return {"name": "room", "usd": nusd / NANO_PER_USD, "per": "day", **changes}


def messages(i: int = 0) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"number {i:03d}"}]


def call(router, shell, i: int = 0, **arguments):
    arguments = {"messages": messages(i), "max_tokens": LIMIT, **arguments}
    if shell == "sync":
        return router.complete(**arguments)
    return asyncio.run(router.acomplete(**arguments))


def calls(router, shell, n: int) -> list[object]:
    """Make as many calls at once; refusals stand in their places."""

    def ask(i):
        try:
            return router.complete(messages=messages(i), max_tokens=LIMIT)
        except BudgetExceededError as error:
            return error

    async def all_at_once():
        asked = (router.acomplete(messages=messages(i), max_tokens=LIMIT) for i in range(n))
        return await asyncio.gather(*asked, return_exceptions=True)

    if shell == "sync":
        with ThreadPoolExecutor(n) as threads:
            return list(threads.map(ask, range(n)))
    return asyncio.run(all_at_once())


def told(response) -> dict[str, object]:
    return response._hidden_params["optllm"]


def nothing_is_reserved(router) -> bool:
    return all(one.reserved_usd == 0 for one in router.budgets())


@pytest.mark.parametrize(("share", "served"), [(1, 50), (20, 31)])
def test_exactly_as_many_calls_are_served_as_fit(
    make_router, client, store_url, worst, shell, share, served
):
    cost = worst["cheap"] // share
    client._scripts["cheap"] = lambda _: Line(cost_nusd=cost, latency_s=0.002)
    budgets = [a_budget(50 * cost)]
    router = make_router(["cheap"], default="cheap", store=store_url, budgets=budgets)

    results = calls(router, shell, 200)

    refused = [one for one in results if isinstance(one, Exception)]
    assert {BudgetExceededError} == {type(error) for error in refused}
    assert [served] * 2 == [200 - len(refused), len(client.calls)]
    (status,) = router.budgets()
    assert (served, 0, 0) == (status.n_calls, status.reserved_usd, status.overshoot_usd)
    assert served * cost / NANO_PER_USD == status.spent_usd


@pytest.mark.parametrize("batch_id", [None, "nightly"])
@pytest.mark.parametrize(("share", "served"), [(1, 25), (20, 6)])
def test_exactly_as_many_items_of_a_batch_are_served_as_fit(
    make_router, client, store_url, worst, shell, share, served, batch_id
):
    cost = worst["cheap"] // share
    client._scripts["cheap"] = lambda _: Line(cost_nusd=cost, latency_s=0.002)
    budgets = [a_budget(25 * cost)]
    router = make_router(["cheap"], default="cheap", store=store_url, budgets=budgets)
    texts = [message[0]["content"] for message in map(messages, range(60))]
    asked = {"max_tokens": LIMIT, "concurrency": 16, "batch_id": batch_id}

    if shell == "sync":
        results = router.complete_batch(texts, **asked)
    else:
        results = asyncio.run(router.acomplete_batch(texts, **asked))

    refused = [one for one in results if isinstance(one, BudgetExceededError)]
    assert [served] * 2 == [60 - len(refused), len(client.calls)]
    (status,) = router.budgets()
    assert (served * cost / NANO_PER_USD, 0) == (status.spent_usd, status.reserved_usd)
    if batch_id is not None:
        assert served == router.history.batch(batch_id).n_answered


def test_those_who_wait_ask_the_database_one_by_one(make_router, client, worst, url):
    client._scripts["cheap"] = lambda _: Line(cost_nusd=1, latency_s=0.05)
    budgets = [a_budget(worst["cheap"])]
    router = make_router(["cheap"], default="cheap", budgets=budgets)
    store, n_asked = router._engine.store, []
    reserve = store.reserve
    store.reserve = lambda *given, **more: n_asked.append(1) or reserve(*given, **more)

    results = calls(router, "sync", 30)

    assert 30 - 1 == sum(isinstance(one, BudgetExceededError) for one in results)
    # Each asks on arrival; then, while a call of 50 ms runs, the first of the line asks now and
    # then; and when it is over, each finds out that there is no more.
    assert len(n_asked) < 30 + 30 + 10


def test_a_call_that_waits_in_vain_slides_to_the_next_column_that_fits(
    make_router, client, worst, shell
):
    client._scripts["middling"] = lambda _: Line(cost_nusd=worst["middling"], latency_s=1.0)
    budgets = [a_budget(worst["middling"] + worst["cheap"])]
    router = make_router(budgets=budgets, calls={"reserve_timeout": "0.1s"})
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(call, router, "sync")
        while not client.calls:
            time.sleep(0.002)

        response = call(router, shell)
        first.result()

    assert "cheap" == told(response)["candidate"]
    assert told(response)["reason"].endswith(
        "; middling does not fit the budget any more; cheap answers"
    )
    assert ["middling", "cheap"] == [one.candidate for one in client.calls]


def test_what_slides_is_logged_as_it_went_without_a_propensity(
    trained, client, logged, worst, shell
):
    budgets = [a_budget(worst["middling"] - 1)]
    router = trained(policy="most_accurate", budgets=budgets)

    response = call(router, shell)

    (one,) = logged(router)
    assert ("dear", "cheap", None) == (
        one.decision.chosen,
        one.decision.served,
        one.decision.propensity,
    )
    assert told(response)["reason"] == one.decision.reason
    assert "dear does not fit the budget any more; cheap answers" in one.decision.reason


def test_a_fallback_reserves_anew_and_is_logged_right(trained, client, logged, worst, shell):
    down = Line(error=RuntimeError("down"), billed=True, failure=AGAIN)
    client._scripts["dear"] = lambda _: down
    budgets = [a_budget(worst["dear"] + worst["middling"] - 1)]
    router = trained(policy="most_accurate", budgets=budgets)

    response = call(router, shell)

    (one,) = logged(router)
    failed, answered = one.attempts
    assert ("dear", "error", True) == (failed.candidate, failed.status, failed.estimated)
    assert "ok" == answered.status
    assert told(response)["candidate"] == one.decision.served == answered.candidate
    assert one.decision.propensity is None
    assert f"dear failed: RuntimeError; {answered.candidate} answers" in one.decision.reason
    (status,) = router.budgets()
    spent = failed.cost_nusd + answered.cost_nusd
    assert (spent / NANO_PER_USD, 0, 2) == (status.spent_usd, status.reserved_usd, status.n_calls)


def test_at_the_cap_a_budget_may_refuse_instead_of_sliding(make_router, client, worst, shell):
    budgets = [a_budget(worst["middling"] - 1, at_cap="refuse")]
    router = make_router(budgets=budgets)

    with pytest.raises(BudgetExceededError) as caught:
        call(router, shell)

    assert ("room", []) == (caught.value.budget, client.calls)
    assert (worst["middling"] - 1) / NANO_PER_USD == caught.value.left_usd
    assert [] == router.history.decisions()


def test_at_the_cap_a_budget_may_leave_only_what_is_free(make_router, client, worst, shell):
    free = {"model": "other", "input_usd_per_1m": 0, "output_usd_per_1m": 0}
    budgets = [a_budget(worst["middling"] - 1, at_cap="cheapest_free")]
    router = make_router(["cheap", "middling", free], budgets=budgets)

    assert "other" == told(call(router, shell))["candidate"]
    client._scripts["cheap"] = lambda _: Line(cost_nusd=2 * worst["middling"])  # an overshoot
    call(router, shell, model="cheap")
    assert router.budgets()[0].left_usd < 0

    assert "other" == told(call(router, shell))["candidate"]


def test_a_refusal_names_the_cheapest_column_and_the_budget(make_router, worst, shell):
    router = make_router(budgets=[a_budget(worst["cheap"] - 1)])

    with pytest.raises(BudgetExceededError) as caught:
        call(router, shell)

    needed = f"{worst['cheap'] / NANO_PER_USD:.9f}".rstrip("0")
    assert f"less than {needed} USD" in str(caught.value)
    assert "room" == caught.value.budget


def test_a_cache_hit_costs_nothing(make_router, client, worst, shell):
    client._scripts["middling"] = lambda _: Line(cache_hit=True)
    router = make_router(budgets=[a_budget(worst["middling"])])

    call(router, shell)
    call(router, shell)

    (status,) = router.budgets()
    assert (0, 0, 2) == (status.spent_usd, status.reserved_usd, status.n_calls)


def test_pins_are_bound_and_do_not_slide(make_router, client, worst, shell):
    router = make_router(budgets=[a_budget(worst["dear"] - 1)])

    with pytest.raises(BudgetExceededError):
        call(router, shell, model="dear")
    assert "cheap" == told(call(router, shell, model="cheap"))["candidate"]

    assert ["cheap"] == [one.candidate for one in client.calls]


def test_a_pin_of_unknown_price_is_refused_while_a_budget_binds(make_router, client, shell):
    budget = a_budget(NANO_PER_USD, match={"tag": "team"})
    router = make_router(budgets=[budget])

    with pytest.raises(BudgetExceededError, match="'other' has no known token price"):
        call(router, shell, model="other", tags=["team"])
    call(router, shell, model="other")

    assert 1 == len(client.calls)


def test_probes_are_bound(make_router, client, worst):
    client._scripts = {
        name: lambda _, name=name: Line(cost_nusd=worst[name]) for name in client._scripts
    }
    budgets = [a_budget(2 * sum(worst.values()))]
    router = make_router(budgets=budgets)

    texts = [message[0]["content"] for message in map(messages, range(5))]
    report = router.probe(texts, grader=lambda _text, _: 1.0, max_tokens=LIMIT)

    assert 0 < report.n_errors < 15
    (status,) = router.budgets()
    assert report.cost_usd == pytest.approx(status.spent_usd)
    assert status.spent_usd <= status.limit_usd


def test_a_stream_is_settled_when_it_ends(make_router, client, worst, shell):
    router = make_router(budgets=[a_budget(worst["middling"])])

    async def read() -> list[object]:
        stream = await router.acomplete(messages=messages(), max_tokens=LIMIT, stream=True)
        assert not nothing_is_reserved(router)
        return [chunk async for chunk in stream]

    if shell == "sync":
        stream = call(router, shell, stream=True)
        assert not nothing_is_reserved(router)
        list(stream)
    else:
        asyncio.run(read())

    (status,) = router.budgets()
    assert (0, 1) == (status.reserved_usd, status.n_calls)
    assert 0 < status.spent_usd < status.limit_usd


def test_a_stream_that_nobody_reads_is_settled_when_it_is_dropped(make_router, worst):
    router = make_router(budgets=[a_budget(worst["middling"])])
    stream = call(router, "sync", stream=True)
    next(stream)

    del stream
    gc.collect()
    router.flush()

    assert nothing_is_reserved(router)
    assert router.budgets()[0].spent_usd > 0


def test_a_cancelled_task_gives_back_what_it_had_not_sent_and_books_what_it_had(
    make_router, client, logged, worst
):
    client._scripts["middling"] = lambda _: Line(latency_s=20)
    router = make_router(["middling"], budgets=[a_budget(worst["middling"])])

    async def cancel_both() -> list[object]:
        sent = asyncio.create_task(router.acomplete(messages=messages(), max_tokens=LIMIT))
        while not client.calls:
            await asyncio.sleep(0.002)
        waits = asyncio.create_task(router.acomplete(messages=messages(), max_tokens=LIMIT))
        await asyncio.sleep(0.05)
        for task in (waits, sent):
            task.cancel()
        return await asyncio.gather(sent, waits, return_exceptions=True)

    results = asyncio.run(cancel_both())

    assert [asyncio.CancelledError] * 2 == [type(result) for result in results]
    assert nothing_is_reserved(router)
    (one,) = logged(router)
    (attempt,) = one.attempts
    assert attempt.cost_nusd / NANO_PER_USD == router.budgets()[0].spent_usd > 0
    assert {} == router._engine.money.turns._lines


def test_a_task_that_is_cancelled_while_its_reservation_is_made_releases_it(
    make_router, client, logged, worst
):
    router = make_router(["middling"], budgets=[a_budget(worst["middling"])])
    store, is_made, go_on = router._engine.store, threading.Event(), threading.Event()
    reserve = store.reserve

    def slowly(*given, **more):
        reply = reserve(*given, **more)
        is_made.set()
        go_on.wait(10)
        return reply

    store.reserve = slowly

    async def cancel() -> object:
        task = asyncio.create_task(router.acomplete(messages=messages(), max_tokens=LIMIT))
        await asyncio.to_thread(is_made.wait)
        task.cancel()
        await asyncio.sleep(0.01)
        go_on.set()
        return await asyncio.gather(task, return_exceptions=True)

    (result,) = asyncio.run(cancel())

    assert isinstance(result, asyncio.CancelledError)
    assert ([], True) == (client.calls, nothing_is_reserved(router))
    (one,) = logged(router)
    assert [("refused", 0)] == [(a.status, a.cost_nusd) for a in one.attempts]


def test_a_coroutine_that_is_closed_while_its_reservation_is_made_releases_it(
    make_router, client, logged, worst
):
    router = make_router(["middling"], budgets=[a_budget(worst["middling"])])
    store, is_asked, go_on = router._engine.store, threading.Event(), threading.Event()
    reserve = store.reserve

    def slowly(*given, **more):
        is_asked.set()
        go_on.wait(10)
        return reserve(*given, **more)

    store.reserve = slowly

    async def close() -> None:
        coroutine = router.acomplete(messages=messages(), max_tokens=LIMIT)
        task = asyncio.create_task(coroutine)
        await asyncio.to_thread(is_asked.wait)
        coroutine.close()
        task.cancel()
        go_on.set()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(close())
    router._engine.store_thread().submit(bool).result()

    assert ([], True) == (client.calls, nothing_is_reserved(router))
    (one,) = logged(router)
    assert [("refused", 0)] == [(a.status, a.cost_nusd) for a in one.attempts]


def test_what_nobody_knows_to_be_reserved_is_released_at_the_latest_at_close(
    make_router, client, worst
):
    router = make_router(budgets=[a_budget(NANO_PER_USD)])
    store, reserve = router._engine.store, router._engine.store.reserve

    def lost(*given, **more):
        reserve(*given, **more)
        raise StoreError("the connection was lost")

    store.reserve = lost
    with pytest.raises(StoreError, match="no call was made"):
        call(router, "sync")
    router.close()

    (status,) = make_router(budgets=[a_budget(NANO_PER_USD)]).budgets()
    assert (0, 0, []) == (status.reserved_usd, status.spent_usd, client.calls)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, RuntimeError])
def test_what_comes_between_an_answer_and_its_settling_leaves_nothing_reserved(
    make_router, client, logged, worst, monkeypatch, shell, interrupt
):
    if (shell, interrupt) == ("async", KeyboardInterrupt):
        pytest.skip("asyncio stops its loop for one")
    router = make_router(["middling"], budgets=[a_budget(worst["middling"])])

    def interrupted(*_given, **_more):
        raise interrupt

    monkeypatch.setattr("optllm_router.dispatch.calls.bill", interrupted)
    with pytest.raises(interrupt):
        call(router, shell)

    assert (1, True) == (len(client.calls), nothing_is_reserved(router))
    (one,) = logged(router)
    (attempt,) = one.attempts
    assert ("error", True) == (attempt.status, attempt.estimated)
    assert attempt.cost_nusd / NANO_PER_USD == router.budgets()[0].spent_usd > 0


def test_a_store_that_fails_refuses_where_a_budget_binds_and_nowhere_else(
    make_router, client, shell
):
    router = make_router(budgets=[a_budget(NANO_PER_USD, match={"tag": "team"})])
    call(router, shell, tags=["team"])
    database = router._engine.store._database
    with database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE attempts RENAME TO lost")

    with pytest.raises(StoreError, match="a hard budget binds: no call was made"):
        call(router, shell, tags=["team"])
    assert "middling" == told(call(router, shell))["candidate"]

    with database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE lost RENAME TO attempts")
    assert 2 == len(client.calls)
    assert 0 == router.flush()
    call(router, shell, tags=["team"])
    router._engine.money.ledger.keep()
    assert nothing_is_reserved(router)


CHILD = """
import sys, threading
from optllm_router import Router
from optllm_router.testing.scripted import Line, ScriptedClient

client = ScriptedClient({"cheap": Line(latency_s=60)}, prices={"cheap": (1, 1)})
budget = {"name": "room", "usd": float(sys.argv[2]), "per": "total"}
router = Router(["cheap"], store=sys.argv[1], client=client, budgets=[budget])
call = {"messages": [{"role": "user", "content": "number 000"}], "max_tokens": 400}
threading.Thread(target=router.complete, kwargs=call, daemon=True).start()
while not client.calls:
    pass
print("sent", flush=True)
sys.stdin.readline()
"""


def test_what_a_killed_process_had_reserved_is_settled_once_its_lease_is_over(
    make_router, client, store_url, worst, logged
):
    budget = a_budget(worst["cheap"] + 1, per="total")
    router = make_router(["cheap"], default="cheap", store=store_url, budgets=[budget])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, store_url, str(budget["usd"])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "sent\n" == child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    (held,) = router.budgets()
    clock = SteppedClock(router._engine.store.decisions()[0].decision.created_at)
    clock.now += timedelta(minutes=5)
    router._engine.store._database.clock = clock

    router._engine._keep_books()

    (status,) = router.budgets()
    assert (worst["cheap"] / NANO_PER_USD, 0) == (held.reserved_usd, status.reserved_usd)
    (one,) = logged(router)
    (attempt,) = one.attempts
    assert ("abandoned", True) == (attempt.status, attempt.estimated)
    assert attempt.cost_nusd / NANO_PER_USD == status.spent_usd > 0
