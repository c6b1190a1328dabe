"""Writes that may wait: grader outcomes, events, and rows that a failing store would not take.

A bounded queue and one thread, which starts with a write and ends when there is nothing to do.
Nothing is ever dropped: a full queue makes the caller write for itself, a failing store keeps its
writes in line (then beyond the bound) until it answers again, and what waits is written on
`flush`, `close`, exit and SIGTERM. Writes are done in the order in which they were given, except
that one which met a full queue overtakes those in it.

Gradings have a queue and a thread of their own: a grader is somebody else's code, may take long
or never return, and no write waits for it. What it returns is then written like anything else.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from optllm_router.errors import StoreError
from optllm_router.records import Attempt, Decision, Outcome
from optllm_router.store import goodbye
from optllm_router.store.base import Store

Write: TypeAlias = Callable[[Store], object]
Grading: TypeAlias = Callable[[], Sequence[Outcome]]

_LOG = logging.getLogger(__name__)
_RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # the pause after the first, second, ... failure
_IDLE_S = 10.0
_IMPOSSIBLE = "a write to the log was given up: it can never succeed"


class BackgroundWriter:
    """Takes writes from any thread and does them on its own.

    After a fork the child begins with an empty queue: what was in line belongs to the parent.
    """

    _closed: bool

    def __init__(self, store: Store, *, capacity: int = 1000) -> None:
        self._store = store
        self._capacity = capacity
        self._begin()
        goodbye.on_sigterm(self)

    def submit(self, work: Sequence[Outcome] | Grading) -> None:
        """Write outcomes, ready or still to be graded.

        Args:
            work: outcomes, or a function that grades and returns them. It is called once, on a
                thread for gradings (by the caller, when too many are in line); when it raises,
                that is logged and counted, and nothing written.
        """
        if not callable(work):
            self.write(_outcomes(work))
            return
        self._follow_fork()
        with self._changed:
            has_room = len(self._gradings) < self._capacity
            if not self._closed and has_room and self._start_grading():
                self._gradings.append(work)
                self._changed.notify_all()
                return
        self._grade(work)

    def log_event(self, kind: str, message: str, facts: Mapping[str, object]) -> None:
        """Write an event."""
        self.write(lambda store: store.log_event(kind, message, facts))

    def record(self, decision: Decision, attempts: Sequence[Attempt]) -> None:
        """Write a decision, such as one that the store did not take when it was made."""
        self.write(lambda store: store.record(decision, attempts))

    def settle(self, attempt: Attempt, *, served: str | None) -> None:
        """Complete an attempt, such as one that the store did not take when it ended."""
        self.write(lambda store: store.settle(attempt, served=served))

    def write(self, write: Write) -> None:
        """Do any write on the store, later; now, when the queue is full.

        A write must be harmless when it is done twice: it is repeated after a failure, and the
        store may have failed after writing.

        Raises: StoreError when the writer is closed and the store fails.
        """
        self._follow_fork()
        with self._changed:
            has_room = len(self._waiting) < self._capacity or self._n_failures
            if not self._closed and has_room and self._start_thread():
                self._waiting.append(write)
                self._changed.notify_all()
                return
        self._write_here(write)

    @property
    def n_waiting(self) -> int:
        """How many writes and gradings are in line or under way."""
        self._follow_fork()
        with self._changed:
            return self._n_writes() + self._n_gradings()

    @property
    def is_failing(self) -> bool:
        """Whether the store has not taken the write that is first in line."""
        self._follow_fork()
        return self._n_failures > 0

    @property
    def n_given_up(self) -> int:
        """How many writes and gradings could never succeed; each was logged with its traceback."""
        self._follow_fork()
        return self._n_given_up

    @property
    def n_graded(self) -> int:
        """How many gradings have come to an end, whatever it was."""
        self._follow_fork()
        return self._n_graded

    def flush(self, timeout_s: float = 10.0) -> int:
        """Wait until all is graded and written; return how many of both are still in line.

        A failing store is asked again at once, and then often until the timeout.
        """
        self._follow_fork()
        with self._changed:
            if self._waiting:
                self._start_thread()
            if self._gradings:
                self._start_grading()
            self._n_in_a_hurry += 1
            self._changed.notify_all()
            self._changed.wait_for(self._is_done, timeout_s)
            self._n_in_a_hurry -= 1
            return self._n_writes() + self._n_gradings()

    def close(self, timeout_s: float = 5.0) -> int:
        """Grade and write what is in line, end the threads, and return how many were not done.

        They are also reported in the log, gradings apart: a grader that hangs is no fault of the
        log. Later writes and gradings are done at once, by their callers.
        """
        self.flush(timeout_s)
        with self._changed:
            n_writes, n_gradings = self._n_writes(), self._n_gradings()
            is_first = not self._closed
            self._closed = True
            self._changed.notify_all()
        goodbye.off_sigterm(self)
        if self._stay_at_exit is not None:
            self._stay_at_exit()
        if n_writes and is_first:
            _LOG.error("%d writes were never done: the log did not take them in time", n_writes)
        if n_gradings and is_first:
            _LOG.error("%d answers were not graded: the graders did not end in time", n_gradings)
        return n_writes + n_gradings

    def _begin(self) -> None:
        """Start with nothing in line and no thread, as a forked process must."""
        self._pid = os.getpid()
        # Its lock is reentrant, for code of signal handlers that runs while this thread holds it.
        self._changed = threading.Condition()
        self._waiting: deque[Write] = deque()
        self._gradings: deque[Grading] = deque()
        self._n_under_way = 0
        self._n_grading = 0
        self._n_graded = 0
        self._n_failures = 0  # in a row
        self._n_given_up = 0
        self._n_in_a_hurry = 0
        self._thread: threading.Thread | None = None
        self._grading_thread: threading.Thread | None = None
        self._stay_at_exit: Callable[[], object] | None = None
        self._closed = False

    def _follow_fork(self) -> None:
        if self._pid != os.getpid():
            self._begin()

    def _is_done(self) -> bool:
        return not self._n_writes() and not self._n_gradings()

    def _n_writes(self) -> int:
        return len(self._waiting) + self._n_under_way

    def _n_gradings(self) -> int:
        return len(self._gradings) + self._n_grading

    def _start_thread(self) -> bool:
        """Return whether the thread runs, starting it if need be; late in an exit none can."""
        self._thread = self._running(self._thread, self._work, "optllm-log")
        return self._thread is not None

    def _start_grading(self) -> bool:
        """Do the same for the thread that grades."""
        self._grading_thread = self._running(
            self._grading_thread, self._work_gradings, "optllm-grading"
        )
        return self._grading_thread is not None

    def _running(
        self, thread: threading.Thread | None, work: Callable[[], None], name: str
    ) -> threading.Thread | None:
        if thread is not None and thread.is_alive():
            return thread
        thread = threading.Thread(target=work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return None
        if self._stay_at_exit is None:
            self._stay_at_exit = goodbye.at_exit(self)
        return thread

    def _work(self) -> None:
        """Do one write after the other until closed, or idle for a while."""
        while (write := self._next()) is not None:
            is_done = self._try(write)
            with self._changed:
                self._n_under_way = 0
                self._n_failures = 0 if is_done else self._n_failures + 1
                if not is_done:
                    self._waiting.appendleft(write)
                self._changed.notify_all()
                if not is_done:
                    self._pause()

    def _next(self) -> Write | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, _IDLE_S)
            if self._closed or not self._waiting:
                self._thread = None  # under the lock: the next write starts another
                return None
            self._n_under_way = 1
            return self._waiting.popleft()

    def _work_gradings(self) -> None:
        """Do one grading after the other until closed, or idle for a while."""
        while (grade := self._next_grading()) is not None:
            self._grade(grade)
            del grade  # it holds a whole answer
            with self._changed:
                self._n_grading = 0
                self._changed.notify_all()

    def _next_grading(self) -> Grading | None:
        with self._changed:
            self._changed.wait_for(lambda: self._gradings or self._closed, _IDLE_S)
            if self._closed or not self._gradings:
                self._grading_thread = None
                return None
            self._n_grading = 1
            return self._gradings.popleft()

    def _grade(self, grade: Grading) -> None:
        """Grade and have the outcomes written; a grader may raise anything, also to stop us."""
        try:
            outcomes = grade()
            if outcomes:
                self.write(_outcomes(outcomes))
        except BaseException as error:
            self._give_up("an answer was not graded: its grader, or writing its grade, failed")
            if self._is_for_caller(error):
                raise
        finally:
            with self._changed:
                self._n_graded += 1

    def _is_for_caller(self, error: BaseException) -> bool:
        """Whether an exception is no failure but an interruption of a thread that is not ours."""
        ours = threading.current_thread() in (self._thread, self._grading_thread)
        return isinstance(error, KeyboardInterrupt) and not ours

    def _pause(self) -> None:
        """Wait before asking a failing store again, shortly when someone waits for the result."""
        pause_s = _RETRY_S[min(self._n_failures, len(_RETRY_S)) - 1]
        hurried = self._n_in_a_hurry > 0
        self._changed.wait_for(
            lambda: self._closed or (self._n_in_a_hurry > 0 and not hurried),
            min(pause_s, 0.2) if hurried else pause_s,
        )

    def _try(self, write: Write) -> bool:
        """Return whether a write is over with: done, or given up because it cannot be done."""
        try:
            write(self._store)
        except StoreError as error:
            if _is_permanent(error):
                self._give_up(_IMPOSSIBLE)
                return True
            if not self._n_failures:
                _LOG.warning("the log fails, its writes wait and are tried again: %s", error)
            return False
        except BaseException as error:
            self._give_up(_IMPOSSIBLE)  # the rest must go on
            if self._is_for_caller(error):
                raise
        return True

    def _give_up(self, what: str) -> None:
        with self._changed:
            self._n_given_up += 1
        _LOG.exception(what)

    def _write_here(self, write: Write) -> None:
        if self._closed:
            write(self._store)
        elif not self._try(write):
            with self._changed:
                self._n_failures += 1
                self._waiting.append(write)


def _outcomes(outcomes: Sequence[Outcome]) -> Write:
    return lambda store: store.add_outcomes(outcomes)


def _is_permanent(error: StoreError) -> bool:
    from optllm_router.store.faults import is_permanent

    return is_permanent(error)
