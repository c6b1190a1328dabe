"""Waiting no longer than allowed, also for what cannot be interrupted."""

import asyncio
import contextvars
import os
import signal
import threading

import pytest

from optllm_router.dispatch import watch as watching
from optllm_router.dispatch.watch import Overdue, Watch


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(watching, "GRACE_S", 0.0)


def patient():
    return Watch(each_s=30, left_s=30)


def test_results_and_exceptions_come_through():
    watch = patient()

    assert 42 == watch.run(lambda: 42)
    with pytest.raises(KeyError, match="gone"):
        watch.run(lambda: {}["gone"])
    with pytest.raises(KeyboardInterrupt):
        watch.run(_interrupt)


def _interrupt():
    raise KeyboardInterrupt


def test_a_blocking_action_is_left_behind_and_its_late_result_thrown_away():
    release, thrown = threading.Event(), threading.Event()
    late = []

    def throw_away(result):
        late.append(result)
        thrown.set()

    with pytest.raises(Overdue):
        Watch(each_s=0.02, left_s=9).run(lambda: release.wait(30) and "late", late=throw_away)
    release.set()

    assert thrown.wait(30)
    assert ["late"] == late


def test_all_waits_together_have_a_limit_of_their_own():
    watch = Watch(each_s=30, left_s=30)
    watch.run(lambda: None)
    watch.allow(0.0)

    with pytest.raises(Overdue):
        watch.run(threading.Event().wait)


async def test_an_awaited_action_is_cancelled():
    cancelled = []

    async def hang():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(Overdue):
        await Watch(each_s=0.02, left_s=9).arun(hang)

    assert [True] == cancelled


async def test_a_timeout_of_the_action_itself_is_not_ours():
    async def give_up():
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await patient().arun(give_up)


def test_context_variables_are_those_of_the_caller_for_all_waits():
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("the caller's")
    watch = patient()

    watch.run(lambda: variable.set(variable.get() + ", changed"))

    assert "the caller's, changed" == watch.run(variable.get)
    assert "the caller's" == variable.get()


def test_threads_are_used_again():
    watch = patient()
    threads = {watch.run(threading.get_ident) for _ in range(50)}

    assert len(threads) < 5


def test_an_interrupt_reaches_who_waits():
    release = threading.Event()
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()

    with pytest.raises(KeyboardInterrupt):
        patient().run(lambda: release.wait(30))

    release.set()
    timer.join()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    patient().run(lambda: None)
    child = os.fork()
    if child == 0:
        os._exit(patient().run(lambda: 7))

    assert 7 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
