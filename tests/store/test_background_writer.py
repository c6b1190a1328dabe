"""Background writes: in order, bounded, retried, never dropped, written before the process ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import event

from optllm_router.errors import StoreError
from optllm_router.store.background import BackgroundWriter
from optllm_router.store.sql import open_store
from optllm_router.testing.store_suite import a_decision, an_attempt, an_outcome, record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "log.db"


@pytest.fixture
def store(file):
    store = open_store(f"sqlite:///{file}")
    yield store
    store.close()


@pytest.fixture
def writer(store):
    writer = BackgroundWriter(store, capacity=100)
    yield writer
    writer.close(0.1)


def query_only(store, *, on: bool) -> None:
    """Make every connection of the store refuse writes from now on, or take them again."""
    database = store._database

    def set_query_only(connection, _record) -> None:
        connection.execute(f"PRAGMA query_only = {'ON' if on else 'OFF'}")

    with database._lock:  # nobody connects to write meanwhile
        event.listen(database.engine, "connect", set_query_only)
    database.close()  # those there are


def messages(store) -> list[str]:
    return [event.message for event in reversed(store.events(limit=1_000))]


def child(code: str, file: Path) -> subprocess.Popen[str]:
    """Start a process that has a store of one decision and a writer on it, then runs `code`."""
    prelude = (
        "import os, signal, sys, time\n"
        "from optllm_router.store.background import BackgroundWriter\n"
        "from optllm_router.store.sql import open_store\n"
        "from optllm_router.testing.store_suite import an_outcome, record\n"
        "store = open_store(sys.argv[1])\n"
        "decision = record(store)\n"
        "writer = BackgroundWriter(store)\n"
        "def slow():\n"
        "    time.sleep(0.3)\n"
        "    return [an_outcome(decision)]\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, f"sqlite:///{file}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_outcomes_are_written_whether_ready_or_graded_later(store, writer):
    decision = record(store)

    writer.submit([an_outcome(decision, 0.25)])
    writer.submit(lambda: [an_outcome(decision, 0.75, source="grader:slow")])

    assert 0 == writer.flush()
    assert [("grader:exact", 0.25), ("grader:slow", 0.75)] == [
        (one.source, one.score) for one in store.decision(decision.id).outcomes
    ]


def test_rows_that_the_store_did_not_take_before_are_written(store, writer):
    decision = a_decision(served=None)
    opened = an_attempt(decision, status="open")

    writer.record(decision, [opened])
    writer.settle(an_attempt(decision), served="small")
    writer.submit([an_outcome(decision)])
    writer.flush()

    logged = store.decision(decision.id)
    assert ("small", "ok", 1.0) == (
        logged.decision.served,
        logged.attempts[0].status,
        logged.outcomes[0].score,
    )


def test_writes_are_done_in_the_order_in_which_they_were_given(store, writer):
    for number in range(90):
        writer.log_event("test", str(number), {})
    writer.flush()

    assert [str(number) for number in range(90)] == messages(store)


def test_a_full_queue_makes_the_caller_write_and_drops_nothing(store):
    writer = BackgroundWriter(store, capacity=2)
    may_go = threading.Event()
    writers = []

    def slow(_store) -> None:
        may_go.wait(30)

    writer.write(slow)
    while writer._n_under_way == 0:
        time.sleep(0.001)
    for number in range(4):
        writer.write(lambda store, number=number: store.log_event("test", str(number), {}))
        writer.write(lambda _store: writers.append(threading.current_thread().name))

    assert ["1", "2", "3"] == messages(store)
    assert ["MainThread"] * 3 == writers
    assert 3 == writer.n_waiting
    may_go.set()
    assert 0 == writer.close()
    assert ["1", "2", "3", "0"] == messages(store)
    assert ["MainThread"] * 3 + ["optllm-log"] == writers


def test_a_grader_that_raises_is_logged_with_its_traceback_and_counted(store, writer, caplog):
    def broken():
        raise ZeroDivisionError("no such grade")

    with caplog.at_level(logging.ERROR):
        writer.submit(broken)
        writer.log_event("test", "after it", {})
        assert 0 == writer.flush()

    assert 1 == writer.n_given_up
    assert ["after it"] == messages(store)
    (logged,) = caplog.records
    assert logged.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize(
    "error",
    [SystemExit(1), StoreError("its own"), asyncio.CancelledError(), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
def test_a_grader_cannot_stop_the_writer(store, writer, error):
    def broken():
        raise error

    writer.submit(broken)
    writer.log_event("test", "after it", {})

    assert 0 == writer.flush()
    assert 1 == writer.n_given_up
    assert ["after it"] == messages(store)


def test_a_grader_that_hangs_keeps_no_write_waiting_and_is_reported_apart(store, caplog):
    writer = BackgroundWriter(store)
    may_go = threading.Event()
    writer.submit(lambda: may_go.wait(30) and [])
    writer.submit(list)
    writer.log_event("test", "after it", {})

    assert 2 == writer.flush(0.5)
    assert ["after it"] == messages(store)
    with caplog.at_level(logging.ERROR):
        assert 2 == writer.close(0.1)
    may_go.set()

    assert ["2 answers were not graded: the graders did not end in time"] == [
        one.message for one in caplog.records
    ]


def test_what_can_never_be_written_does_not_stop_the_rest(store, writer):
    writer.submit([an_outcome(a_decision(404))])
    writer.record(a_decision(1, expected_cost_nusd=2**70), [])
    writer.log_event("test", "after it", {})

    assert 0 == writer.flush()
    assert 2 == writer.n_given_up
    assert ["after it"] == messages(store)


def test_writes_wait_while_the_store_fails_and_are_done_when_it_recovers(store, caplog):
    decision = record(store)
    writer = BackgroundWriter(store, capacity=3)
    n_gradings = []

    def grade():
        n_gradings.append(1)
        return [an_outcome(decision)]

    query_only(store, on=True)
    with caplog.at_level(logging.WARNING):
        writer.submit(grade)
        for number in range(10):  # more than fit: none is dropped, none is tried by the caller
            writer.log_event("test", str(number), {})
        assert 11 == writer.flush(0.5)
    query_only(store, on=False)

    assert 0 == writer.flush()
    assert [str(number) for number in range(10)] == messages(store)
    assert 1 == store.n_graded()
    assert [1] == n_gradings
    assert any("tried again" in one.message for one in caplog.records)
    assert 0 == writer.close()


def test_what_is_unwritten_at_close_is_returned_and_logged(store, caplog):
    writer = BackgroundWriter(store, capacity=10)
    query_only(store, on=True)
    writer.log_event("test", "one", {})
    writer.log_event("test", "two", {})

    with caplog.at_level(logging.ERROR):
        assert 2 == writer.close(0.3)
        assert 2 == writer.close(0.0)
    query_only(store, on=False)

    assert ["2 writes were never done: the log did not take them in time"] == [
        one.message for one in caplog.records if one.levelno >= logging.ERROR
    ]


def test_after_closing_writes_are_done_at_once(store, writer):
    writer.close()

    writer.log_event("test", "late", {})

    assert ["late"] == messages(store)


def test_no_thread_runs_before_the_first_write_or_after_closing(store, writer):
    def names() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "optllm-log"]

    assert [] == names()
    writer.log_event("test", "", {})
    assert ["optllm-log"] == names()
    thread = writer._thread
    writer.close()
    thread.join(10)
    assert [] == names()


def test_many_threads_lose_nothing(store, writer):
    def write(thread: int) -> None:
        for number in range(100):
            writer.log_event("test", f"{thread}-{number}", {})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.flush()

    assert 800 == len(set(messages(store)))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork with threads
def test_a_forked_child_writes_its_own_and_leaves_the_parents_alone(store, writer):
    may_go = threading.Event()
    writer.write(lambda _store: may_go.wait(30))
    writer.log_event("test", "parent", {})
    pid = os.fork()
    if pid == 0:
        try:
            writer.log_event("test", "child", {})
            left = writer.flush()
        finally:
            os._exit(0 if left == 0 and messages(store) == ["child"] else 1)

    assert (pid, 0) == os.waitpid(pid, 0)
    may_go.set()
    assert 0 == writer.flush()
    assert ["child", "parent"] == messages(store)


def test_what_waits_is_written_when_the_process_exits(store, file):
    code, _, errors = end(child("writer.submit(slow)\n", file))

    assert (0, "") == (code, errors)
    assert 1 == store.n_graded()


def test_what_waits_is_written_when_a_multiprocessing_child_exits(store, file):
    code, _, errors = end(
        child(
            "import multiprocessing\n"
            "process = multiprocessing.get_context('fork').Process(\n"
            "    target=lambda: writer.submit(slow))\n"
            "process.start()\n"
            "process.join()\n"
            "sys.exit(process.exitcode)\n",
            file,
        )
    )

    assert (0, "") == (code, errors)
    assert 1 == store.n_graded()


def test_what_waits_is_written_on_sigterm_which_then_ends_the_process(store, file):
    process = child(
        "writer.submit(slow)\nprint('ready', flush=True)\ntime.sleep(60)\nprint('survived')\n", file
    )
    assert "ready\n" == process.stdout.readline()
    process.send_signal(signal.SIGTERM)

    assert (-signal.SIGTERM, "", "") == end(process)
    assert 1 == store.n_graded()


def test_a_users_handler_of_sigterm_stays(store, file):
    process = child(
        "def mine(*_): print('mine', flush=True); sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, mine)\n"
        "another = BackgroundWriter(store)\n"
        "another.submit(slow)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n",
        file,
    )
    assert "ready\n" == process.stdout.readline()
    process.send_signal(signal.SIGTERM)

    assert (7, "mine\n", "") == end(process)
    assert 1 == store.n_graded()


def test_closing_the_last_writer_gives_sigterm_its_default_back(store):
    before = signal.getsignal(signal.SIGTERM)
    one, two = BackgroundWriter(store), BackgroundWriter(store)
    ours = signal.getsignal(signal.SIGTERM)

    one.close()
    assert ours is signal.getsignal(signal.SIGTERM)
    two.close()

    assert signal.SIG_DFL is before
    assert signal.SIG_DFL is signal.getsignal(signal.SIGTERM)
    assert ours is not before
