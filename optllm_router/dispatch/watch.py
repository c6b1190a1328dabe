"""Waits for a provider no longer than allowed, also where the provider never stops sending.

The time limits of HTTP libraries start again with every byte, so that an answer that trickles in
outlasts them all. A blocking call therefore runs on a thread of ours while its caller waits; one
that is overdue is left behind, and what still comes of it is thrown away. Threads are kept for the
next call (the way there and back takes some 15 µs) and never keep the process alive.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from typing_extensions import override

Result = TypeVar("Result")

GRACE_S = 0.25  # so that the client's own limit comes first, which ends the call as well
MAX_IDLE = 64


class Overdue(Exception):  # noqa: N818  # it never leaves dispatch
    """A wait took longer than its watch allows."""


class Watch:
    """Bounds the waits of one attempt: each by `each_s`, all together by `left_s` seconds.

    What the caller does between two waits does not count. All waits of a watch see one copy of the
    context variables of whoever made it, as if they had run in its thread.
    """

    def __init__(self, *, each_s: float, left_s: float) -> None:
        self._each_s = each_s
        self._left_s = left_s
        self._context = contextvars.copy_context()

    def allow(self, left_s: float) -> None:
        """Set what all further waits may take together, in seconds."""
        self._left_s = left_s

    def run(
        self, action: Callable[[], Result], *, late: Callable[[Result], object] | None = None
    ) -> Result:
        """Wait for a blocking action; `late` is told the result of one that was left behind.

        Raises: Overdue.
        """
        start, limit_s = time.monotonic(), self._limit_s()
        try:
            return _on_a_thread(_Errand(lambda: self._context.run(action), late), limit_s)
        finally:
            self._left_s -= time.monotonic() - start

    async def arun(self, begin: Callable[[], Awaitable[Result]]) -> Result:
        """Begin and await; cancelled when it is overdue. Raises: Overdue."""
        start, scope = time.monotonic(), asyncio.timeout(self._limit_s())
        try:
            async with scope:
                return await begin()
        except TimeoutError:
            if scope.expired():
                raise Overdue from None
            raise
        finally:
            self._left_s -= time.monotonic() - start

    def _limit_s(self) -> float:
        if self._left_s <= 0:  # chunks that come within the grace would go on for ever
            raise Overdue
        return min(self._each_s, self._left_s) + GRACE_S


class _Errand(Generic[Result]):
    """One action, done on another thread, and whether anybody still waits for it."""

    def __init__(
        self, action: Callable[[], Result], late: Callable[[Result], object] | None
    ) -> None:
        self._action = action
        self._late = late
        self._outcome: list[tuple[Result | None, BaseException | None]] = []
        self._lock = threading.Lock()
        self._is_left = False
        self.done = threading.Lock()
        self.done.acquire()

    def do(self, free: Callable[[], None]) -> None:
        """Act, `free` the thread, and hand the outcome over; throw it away where nobody waits."""
        result: Any = None
        error: BaseException | None = None
        try:
            result = self._action()
        except BaseException as raised:  # noqa: BLE001  # raised again where it is waited for
            error = raised
        with self._lock:
            is_left = self._is_left
            self._outcome.append((result, error))
        if is_left and error is None and self._late is not None:
            self._late(result)
        free()
        self.done.release()

    def leave(self) -> bool:
        """Wait no more; return whether there is no outcome yet."""
        with self._lock:
            self._is_left = not self._outcome
            return self._is_left

    def outcome(self) -> Result:
        """Return what came of it, or raise it; once."""
        result, error = self._outcome.pop()
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # set wherever there is no error


class _Hand(threading.Thread):
    """A thread that does one errand after the other."""

    def __init__(self) -> None:
        super().__init__(name="optllm-call", daemon=True)
        self.errands: SimpleQueue[_Errand[Any]] = SimpleQueue()
        self._is_wanted = True

    @override
    def run(self) -> None:
        while self._is_wanted:
            self.errands.get().do(self._free)

    def _free(self) -> None:
        self._is_wanted = len(_idle) < MAX_IDLE
        if self._is_wanted:
            _idle.append(self)


_idle: deque[_Hand] = deque()
os.register_at_fork(after_in_child=_idle.clear)


def _on_a_thread(errand: _Errand[Result], limit_s: float) -> Result:
    try:
        hand = _idle.pop()
    except IndexError:
        hand = _Hand()
        hand.start()
    hand.errands.put(errand)
    try:
        is_done = errand.done.acquire(timeout=limit_s)
    except BaseException:
        errand.leave()  # interrupted
        raise
    if not is_done and errand.leave():
        raise Overdue
    return errand.outcome()
