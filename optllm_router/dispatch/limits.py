"""Limits that a candidate's provider, or its hardware, sets: calls at once, calls per minute."""

from __future__ import annotations

import threading

from optllm_router.dispatch.breaker import Clock

WINDOW_S = 60.0
LOOK_S = 0.02


class Limit:
    """Lets calls of one candidate in; safe to call from many threads. None means no limit.

    In any 60 seconds no more than `per_minute` calls get in; at no time are more than `at_once` in.
    Who calls itself `call` when it enters may step back as that, as if it had not been let in.
    """

    def __init__(self, *, at_once: int | None, per_minute: int | None, clock: Clock) -> None:
        self._at_once = at_once
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._n_inside = 0
        self._entered: dict[object, float] = {}  # in the order of their times

    def enter(self, call: object) -> float:
        """Let a call in and return 0.0, or return how many seconds to wait before asking again."""
        with self._lock:
            if self._at_once is not None and self._n_inside >= self._at_once:
                return LOOK_S
            now = self._clock()
            while self._entered and self._first_at <= now - WINDOW_S:
                del self._entered[next(iter(self._entered))]
            if self._per_minute is not None and len(self._entered) >= self._per_minute:
                return max(self._first_at + WINDOW_S - now, LOOK_S)
            if self._per_minute is not None:
                self._entered[call] = now
            self._n_inside += 1
            return 0.0

    def leave(self) -> None:
        """Take down that a call is over."""
        with self._lock:
            self._n_inside -= 1

    def step_back(self, call: object) -> None:
        """Take down that a call was let in, but not sent: it is none of its minute's."""
        with self._lock:
            self._entered.pop(call, None)
            self._n_inside -= 1

    @property
    def _first_at(self) -> float:
        return next(iter(self._entered.values()))
