"""Many threads and processes on one budget: never more than fits, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from optllm_router.errors import StoreError
from optllm_router.ledger import Ledger
from optllm_router.records import BudgetLine
from optllm_router.store.sql import open_store
from optllm_router.testing.store_suite.spending import a_call, money

ROOT = Path(__file__).parents[2]
LINE = BudgetLine(name="room", limit_nusd=50, per="total", warn_at=None)
CHILD = """
import sys, time
from dataclasses import replace
from optllm_router.ledger import Ledger
from optllm_router.records import BudgetLine
from optllm_router.store.sql import open_store
from optllm_router.testing.store_suite.spending import a_call

url, first, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = open_store(url)
line = BudgetLine(name="room", limit_nusd=limit, per="total", warn_at=None)
ledger = Ledger(store, [line], lease_s=float(sys.argv[4]))

def serve(number, worst):
    call = a_call(number)
    while True:
        reply = ledger.reserve(*call, amount_nusd=worst, forecast_nusd=1)
        if reply.verdict != "wait":
            break
        time.sleep(0.002)
    if reply.verdict == "reserved":
        store.settle(replace(call[1], status="ok", cost_nusd=1), served="small")
    return reply.verdict == "reserved"

print("ready", flush=True)
sys.stdin.readline()
"""
HAMMER = """
print(sum(serve(first + number, int(sys.argv[5])) for number in range(20)), flush=True)
ledger.close()
store.close()
"""
HOLD = """
ledger.reserve(*a_call(first), amount_nusd=20, forecast_nusd=7)
print("reserved", flush=True)
sys.stdin.readline()
"""
FORK = """
import os
before = ledger.worker
pid = os.fork()
if pid == 0:
    ok = serve(first + 1, 30) and ledger.worker != before and ledger.worker == ledger.worker
    ledger.close()
    os._exit(0 if ok else 1)
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status), ledger.worker == before, serve(first, 30), flush=True)
"""


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def go(processes: list[subprocess.Popen[str]]) -> None:
    """Let all begin at once."""
    for process in processes:
        assert "ready\n" == process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def served_by(store, ledger: Ledger, number: int, worst: int) -> bool:
    """Serve one call that costs 1, waiting for others where it fails only for them."""
    call = a_call(number)
    while (reply := ledger.reserve(*call, amount_nusd=worst, forecast_nusd=1)).verdict == "wait":
        time.sleep(0.002)
    if reply.verdict != "reserved":
        return False
    store.settle(replace(call[1], status="ok", cost_nusd=1), served="small")
    return True


@pytest.mark.parametrize(("worst", "served"), [(1, 50), (20, 31)])
def test_threads_are_served_exactly_as_often_as_fits(store_url, worst, served):
    store = open_store(store_url)
    ledger = Ledger(store, [LINE])

    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda n: served_by(store, ledger, n, worst), range(150)))

    assert served == sum(found)
    assert [(served, 0, 0, served)] == [money(status) for status in store.budgets()]
    ledger.close()
    store.close()


@pytest.mark.parametrize(("worst", "served"), [(1, 50), (20, 31)])
def test_processes_are_served_exactly_as_often_as_fits(store_url, worst, served):
    store = open_store(store_url)
    processes = [child(HAMMER, store_url, 100 * n, 50, 60, worst) for n in range(4)]

    go(processes)
    found = [int(process.communicate(timeout=120)[0]) for process in processes]

    assert served == sum(found)
    assert [(served, 0, 0, served)] == [money(status) for status in store.budgets()]
    store.close()


def test_a_killed_process_loses_its_lease_and_its_calls_are_settled(store_url):
    store = open_store(store_url)
    ledger = Ledger(store, [LINE])
    process = child(HOLD, store_url, 1, 50, 1)
    go([process])
    assert "reserved\n" == process.stdout.readline()
    assert "wait" == ledger.reserve(*a_call(2), amount_nusd=31, forecast_nusd=1).verdict

    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    while not (report := ledger.keep()).n_workers:
        time.sleep(0.05)

    assert (1, 1, 7) == (report.n_workers, report.n_reservations, report.settled_nusd)
    assert [(7, 0, 0, 1)] == [money(status) for status in store.budgets()]
    (attempt,) = store.decision("decision-1").attempts
    assert ("abandoned", 7, True) == (attempt.status, attempt.cost_nusd, attempt.estimated)
    assert "reserved" == ledger.reserve(*a_call(3), amount_nusd=43, forecast_nusd=1).verdict
    store.close()


def test_of_two_processes_with_different_limits_the_lower_holds(store_url, caplog):
    store = open_store(store_url)
    process = child("sys.stdin.readline()", store_url, 1, 30, 600)
    assert "ready\n" == process.stdout.readline()

    ledger = Ledger(store, [LINE])

    assert "refused" == ledger.reserve(*a_call(2), amount_nusd=31, forecast_nusd=1).verdict
    assert "the lowest, 30, holds" in caplog.text
    assert ["budget_limits_differ"] == [event.kind for event in store.events()]
    end(process)
    store.close()


def test_a_forked_process_is_a_worker_of_its_own(store_url):
    open_store(store_url).close()
    process = child(FORK, store_url, 1, 50, 60)
    go([process])

    assert "0 True True\n" == process.communicate(timeout=60)[0]


def test_a_ledger_whose_worker_was_swept_registers_again(store_url):
    from optllm_router.testing.store_suite import SECOND, SteppedClock

    clock = SteppedClock()
    store = open_store(store_url, clock=clock)
    ledger = Ledger(store, [LINE], lease_s=10.0)
    clock.now += 11 * SECOND
    assert 1 == store.sweep().n_workers

    assert "reserved" == ledger.reserve(*a_call(1), amount_nusd=1, forecast_nusd=1).verdict
    clock.now += 11 * SECOND
    store.sweep()
    ledger.keep()

    assert (50,) == store.budgets()[0].claims_nusd
    store.close()


def test_a_reserve_that_failed_is_released_by_the_next_sign_of_life(store_url):
    class Flaky:
        """A store whose answer to a reserve is lost on the way back."""

        def __init__(self, store) -> None:
            self._store = store

        def __getattr__(self, name: str):
            return getattr(self._store, name)

        def reserve(self, *arguments, **others):
            self._store.reserve(*arguments, **others)
            raise StoreError("the connection was lost")

    store = open_store(store_url)
    ledger = Ledger(Flaky(store), [LINE])
    with pytest.raises(StoreError):
        ledger.reserve(*a_call(1), amount_nusd=30, forecast_nusd=1)
    assert 30 == store.budgets()[0].reserved_nusd

    ledger.keep()

    assert [(0, 0, 0, 0)] == [money(status) for status in store.budgets()]
    assert ["refused"] == [a.status for a in store.decision("decision-1").attempts]
    store.close()
