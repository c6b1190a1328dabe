"""Limits that a candidate's provider, or its hardware, sets: calls at once, calls per minute."""

from __future__ import annotations

import threading
from collections import deque

from optllm_router.dispatch.breaker import Clock

WINDOW_S = 60.0
LOOK_S = 0.02


class Limit:
    """Lets calls of one candidate in; safe to call from many threads. None means no limit.

    In any 60 seconds no more than `per_minute` calls get in; at no time are more than `at_once` in.
    """

    def __init__(self, *, at_once: int | None, per_minute: int | None, clock: Clock) -> None:
        self._at_once = at_once
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._n_inside = 0
        self._entered: deque[float] = deque()

    def enter(self) -> float:
        """Let a call in and return 0.0, or return how many seconds to wait before asking again."""
        with self._lock:
            if self._at_once is not None and self._n_inside >= self._at_once:
                return LOOK_S
            now = self._clock()
            while self._entered and self._entered[0] <= now - WINDOW_S:
                self._entered.popleft()
            if self._per_minute is not None and len(self._entered) >= self._per_minute:
                return max(self._entered[0] + WINDOW_S - now, LOOK_S)
            if self._per_minute is not None:
                self._entered.append(now)
            self._n_inside += 1
            return 0.0

    def leave(self) -> None:
        """Take down that a call is over."""
        with self._lock:
            self._n_inside -= 1
