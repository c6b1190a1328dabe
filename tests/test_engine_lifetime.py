"""A router's end: no new calls, no paid answer that is lost, no wait without an end."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from dataclasses import replace

import pytest

from optllm_router import Budget, Cheapest, Router, RouterError
from optllm_router.dispatch import journal, probing
from optllm_router.records import Usage
from optllm_router.router import engine, probes
from optllm_router.store.sql import open_store
from optllm_router.testing.scripted import Line, ScriptedClient

CLOSED = "this router is closed and makes no more calls: make another `Router`"
ASK = [{"role": "user", "content": "how many?"}]
SLOW = Line(text="slow", usage=Usage(prompt_tokens=1, completion_tokens=1), latency_s=0.2)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'log.db'}"


@pytest.fixture
def client():
    return ScriptedClient({"m": SLOW}, prices={"m": (1, 1)})


@pytest.fixture
def router(client, url):
    with Router(["m"], client=client, store=url, policy=Cheapest()) as router:
        yield router


def statuses(url) -> list[str]:
    store = open_store(url)
    found = [attempt.status for one in store.decisions() for attempt in one.attempts]
    store.close()
    return found


def test_a_closed_router_refuses_every_kind_of_call_before_spending(router, client):
    router.close()

    calls = [
        lambda: router.complete(messages=ASK),
        lambda: asyncio.run(router.acomplete(messages=ASK)),
        lambda: router.complete_batch(["a"]),
        lambda: asyncio.run(router.acomplete_batch(["a"])),
        lambda: router.probe(["a"]),
    ]
    for call in calls:
        with pytest.raises(RouterError) as caught:
            call()
        assert CLOSED == str(caught.value)
    assert [] == client.calls


def test_async_calls_in_flight_at_close_are_answered_and_written(router, client, url):
    async def across() -> list[object]:
        calls = [asyncio.create_task(router.acomplete(messages=ASK)) for _ in range(3)]
        while len(client.calls) < 3:
            await asyncio.sleep(0.001)
        router.close()
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(across())

    assert ["slow"] * 3 == [answer.choices[0].message.content for answer in answers]
    assert ["ok"] * 3 == statuses(url)


@pytest.mark.parametrize("shell", ["sync", "async"])
def test_a_batch_hands_out_nothing_more_once_closed(router, client, url, shell):
    client._scripts["m"] = lambda _arguments: replace(SLOW, latency_s=1.0)  # closed within it

    def close() -> None:
        while not client.calls:
            time.sleep(0.001)
        router.close()

    closing = threading.Thread(target=close)
    closing.start()
    if shell == "sync":
        results = router.complete_batch(["a"] * 20, concurrency=1)
    else:
        results = asyncio.run(router.acomplete_batch(["a"] * 20, concurrency=1))
    closing.join()

    assert 1 == len(client.calls)
    assert "slow" == results[0].choices[0].message.content
    assert [CLOSED] * 19 == [str(result) for result in results[1:]]
    assert ["ok"] == statuses(url)


def test_a_probe_waits_for_its_gradings_as_long_as_they_go_on(router, monkeypatch):
    monkeypatch.setattr(probing, "PATIENCE_S", 0.6)
    monkeypatch.setattr(probes, "FLUSH_S", 0.6)

    def slow(_text, reference):
        time.sleep(0.2)
        return None if reference == "unknown" else 1.0

    report = router.probe(["a", "b", "c", "d"], ["x", "x", "x", "unknown"], grader=slow)

    assert (4, 3, 1) == (report.n_calls, report.n_graded, report.n_ungraded)


def test_a_probe_and_a_refit_say_what_a_hanging_grader_keeps_them_from(router, monkeypatch):
    monkeypatch.setattr(probing, "PATIENCE_S", 0.2)
    monkeypatch.setattr(engine, "FLUSH_S", 0.2)
    may_go = threading.Event()
    scores = iter([1.0])

    def hangs(_text, _reference):
        score = next(scores, None)
        if score is None:
            may_go.wait(30)
        return score

    report = router.probe(["a", "b", "c"], grader=hangs)
    refitted = router.retrain()
    may_go.set()

    assert (3, 0, 1, 2) == (report.n_calls, report.n_errors, report.n_graded, report.n_ungraded)
    assert "not fitted: 1/50 labels; 2 writes are still waiting" == refitted.reason


def test_a_hanging_grader_keeps_no_row_and_no_budgeted_call_waiting(client, url):
    may_go = threading.Event()
    with Router(["m"], client=client, store=url, policy=Budget(usd=1.0, per="call")) as router:
        writer = router._engine.writer
        writer.submit(lambda: may_go.wait(30) and [])
        router._engine.desk.journal._write_later(lambda store: store.log_event("test", "late", {}))
        deadline = time.monotonic() + 10
        while router._engine.desk.journal.n_waiting and time.monotonic() < deadline:
            time.sleep(0.001)

        assert "slow" == router.complete(messages=ASK).choices[0].message.content
        assert 1 == writer.n_waiting
        may_go.set()


def test_callers_do_not_wait_for_a_locked_log_one_after_the_other(router, client, url, monkeypatch):
    monkeypatch.setattr(journal, "LOCKED_S", 0.5)
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    started = time.monotonic()
    answers = router.complete_batch(["a"] * 8, concurrency=8)
    took_s = time.monotonic() - started
    other.execute("ROLLBACK")
    other.close()

    assert ["slow"] * 8 == [answer.choices[0].message.content for answer in answers]
    assert 0.5 <= took_s < 2.0  # one after the other, they would take 4 s
    assert 0 == router.flush(60)
    assert ["ok"] * 8 == statuses(url)


def test_a_caller_behind_a_writer_that_waits_for_a_locked_log_waits_no_longer(router, url):
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    database = router._engine.store._database
    database._lock.acquire()  # as the background writer does for as long as SQLite waits

    started = time.monotonic()
    answer = router.complete(messages=ASK)
    took_s = time.monotonic() - started
    database._lock.release()
    other.execute("ROLLBACK")
    other.close()

    assert "slow" == answer.choices[0].message.content
    assert took_s < 5.0
    assert 0 == router.flush(60)
    assert ["ok"] == statuses(url)
