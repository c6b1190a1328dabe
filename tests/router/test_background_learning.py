"""New predictors are taken over from elsewhere, refits run by themselves, forks are survived."""

import gc
import logging
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from optllm_router import Router
from optllm_router.router import refitting
from optllm_router.router.housekeeping import Housekeeper
from optllm_router.router.refitting import RefitClock

ROOT = Path(__file__).parents[2]


@pytest.fixture
def quickly(monkeypatch):
    """Have routers look around every 50 ms instead of every 2 s."""
    monkeypatch.setattr(Housekeeper.__init__, "__kwdefaults__", {"poll_s": 0.05})
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def until(is_so, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def version(router):
    snapshot = router._engine.state.snapshot
    return None if snapshot is None else snapshot.version


def test_a_predictor_that_another_router_published_is_taken_over(make_router, train, quickly, ask):
    serving, learning = make_router(retrain={"enabled": False}), make_router()
    first = serving.complete(messages=ask("easy question"))
    train(learning)

    until(lambda: version(serving) is not None)

    assert version(learning) == version(serving)
    assert first._hidden_params["optllm"]["reason"].startswith("not fitted")
    then = serving.complete(messages=ask("easy question"))
    assert version(learning) == then._hidden_params["optllm"]["predictor_version"]


def test_a_predictor_that_another_process_published_is_taken_over(
    make_router, train, quickly, ask, url
):
    learning = make_router(retrain={"min_labels": 10_000, "enabled": False})
    with pytest.raises(AssertionError, match="not fitted"):
        train(learning)
    serving = make_router(retrain={"enabled": False})
    serving.complete(messages=ask())
    code = (
        "import sys; from optllm_router.store.sql import open_store\n"
        "from optllm_router.learning import RefitSettings, refit\n"
        "from optllm_router.records import Candidate\n"
        "store = open_store(sys.argv[1])\n"
        "candidates = [Candidate(name=n, model=n, price=None) for n in sys.argv[2:]]\n"
        "print(refit(store, candidates, RefitSettings(n_bootstraps=5)).version)\n"
        "store.close()"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, url, "cheap", "middling", "dear"],
        capture_output=True,
        text=True,
        check=True,
    )

    until(lambda: version(serving) == done.stdout.strip())


def test_looking_around_asks_once_which_predictor_is_published(make_router, train, monkeypatch):
    serving, learning = make_router(), make_router()
    store, asked = serving._engine.store, []
    find = store.current_predictor
    monkeypatch.setattr(store, "current_predictor", lambda: asked.append(1) or find())

    serving._engine._keep_house()
    train(learning)
    serving._engine._keep_house()

    assert 2 == len(asked)
    assert version(learning) == version(serving)


def test_a_refit_runs_in_a_child_process_when_enough_outcomes_came(
    make_router, train, quickly, ask
):
    router = make_router(retrain={"every_outcomes": 20, "min_labels": 50})
    train(router)
    first = version(router)
    responses = [router.complete(messages=ask(f"easy question {i}")) for i in range(20)]
    for response in responses:
        router.feedback(response, score=1.0)

    until(router._engine.store.events)

    (event,) = router._engine.store.events()
    assert "refit" == event.kind
    assert 110 == event.facts["n_labels"]
    newest = router._engine.store.predictors()[0]
    assert newest.version > first
    if "published" == newest.status:
        until(lambda: version(router) == newest.version)


def test_the_first_fit_happens_by_itself(make_router, train, quickly, ask):
    router = make_router(retrain={"min_labels": 55})
    responses = [router.complete(messages=ask(f"question {i}")) for i in range(54)]
    for response in responses:
        router.feedback(response, score=1.0)
    assert version(router) is None

    router.feedback(router.complete(messages=ask("the last one")), score=0.0)

    until(lambda: version(router) is not None)


def test_a_refit_that_fails_is_logged_and_serving_goes_on(
    make_router, train, quickly, ask, caplog, monkeypatch
):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    router = make_router(retrain={"every_outcomes": 1})
    train(router)
    first = version(router)
    caplog.clear()

    with caplog.at_level(logging.ERROR):
        router.feedback(router.complete(messages=ask("easy question")), score=1.0)
        until(lambda: "background work failed" in caplog.text)

    assert "FileNotFoundError" in caplog.text
    assert first == version(router)
    assert "cheap says" == router.complete(messages=ask("easy one")).choices[0].message.content


def test_a_damaged_predictor_is_left_aside(make_router, train, tmp_path, caplog, ask):
    router = make_router()
    train(router)
    router.close()
    with sqlite3.connect(tmp_path / "log.db") as connection:
        connection.execute("UPDATE predictors SET artifact = x'00'")
    connection.close()

    with caplog.at_level(logging.WARNING):
        again = make_router()

    assert "is left aside: the predictor's bytes do not match their hash" in caplog.text
    facts = again.complete(messages=ask())._hidden_params["optllm"]
    assert "middling" == facts["candidate"]


def test_the_clock_counts_outcomes_and_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(refitting.time, "monotonic", lambda: now[0])
    clock = RefitClock(every_outcomes=10, every_s=60, min_labels=50)

    assert [False, True] == [clock.is_due(n, n_since_fit=None, fit_age_s=0) for n in (49, 50)]
    clock.tried(50)
    assert not clock.is_due(50, n_since_fit=None, fit_age_s=0)  # nothing new since it was tried
    assert clock.is_due(51, n_since_fit=None, fit_age_s=0)
    assert [False, True] == [clock.is_due(n, n_since_fit=99, fit_age_s=0) for n in (59, 60)]
    assert [False, True] == [clock.is_due(90, n_since_fit=n, fit_age_s=0) for n in (9, 10)]
    assert not clock.is_due(51, n_since_fit=1, fit_age_s=99)  # tried just now
    now[0] = 61.0
    assert [False, True] == [clock.is_due(51, n_since_fit=n, fit_age_s=60) for n in (0, 1)]
    assert not clock.is_due(51, n_since_fit=1, fit_age_s=59)


def test_a_restart_does_not_refit_what_is_fitted_already(make_router, train):
    router = make_router(retrain={"enabled": False})
    train(router)
    router.close()
    again = make_router(retrain={"every_outcomes": 20})

    for _ in range(3):
        again._engine._keep_house()

    assert 1 == len(again._engine.store.predictors())


def test_a_router_that_nobody_holds_ends_its_thread(url, client, quickly, ask):
    router = Router(["cheap"], store=url, client=client)
    router.complete(messages=ask())
    gone = weakref.ref(router._engine)
    thread = router._engine.housekeeper._thread

    router._engine.writer.close()
    router._engine.store.close()
    del router
    until(lambda: gc.collect() >= 0 and gone() is None)
    thread.join(5)

    assert not thread.is_alive()


def fork_and_call(router, ask, sending):
    response = router.complete(messages=ask("from the child"))
    stream = router.complete(messages=ask("streamed"), stream=True)
    list(stream)
    sending.send((os.getpid(), response._hidden_params["optllm"]["decision_id"]))
    alive = {thread.name for thread in threading.enumerate()}
    sending.send(alive)
    router.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_router_works_in_a_forked_child_and_in_its_parent(make_router, logged, ask):
    router = make_router()
    router.complete(messages=ask("before"))
    receiving, sending = multiprocessing.Pipe()

    child = multiprocessing.get_context("fork").Process(
        target=fork_and_call, args=(router, ask, sending)
    )
    child.start()
    assert receiving.poll(30)
    pid, decision_id = receiving.recv()
    threads = receiving.recv()
    child.join(30)
    router.complete(messages=ask("after"))

    assert (0, child.pid) == (child.exitcode, pid)
    assert "optllm-housekeeping" in threads
    rows = logged(router)
    assert 4 == len(rows)
    assert decision_id in {one.decision.id for one in rows}
    assert {"ok"} == {attempt.status for one in rows for attempt in one.attempts}
