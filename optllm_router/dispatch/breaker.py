"""A circuit breaker: a candidate that keeps failing is left alone for a while, then tried once.

Closed, every call passes. After some failures in a row it opens: calls go elsewhere. When its time
is up one call is let through on trial; its success closes the circuit, its failure opens it again,
for twice as long. Where nobody else could answer (a single candidate, or all circuits open) the
circuit never refuses by itself: one call at a time goes through without waiting for the time to be
up, and the others wait for what becomes of it. They go on when it succeeds, and share its error
when it fails; a trial that takes longer than the cool-down no longer holds anybody up. So an outage
costs one call at a time instead of all, and ends with the first call that is answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

from optllm_router.completion.base import Failure

MAX_OPEN_S = 60.0

Clock = Callable[[], float]
Admission = Literal["pass", "trial", "elsewhere", "wait"]


class Breaker:
    """The circuit of one candidate; safe to call from many threads.

    Args:
        open_after: how many failures in a row open it, at least 1.
        cooldown_s: how long it stays open the first time.
        clock: seconds that never go back, such as `time.monotonic`.
    """

    def __init__(self, *, open_after: int, cooldown_s: float, clock: Clock) -> None:
        self._open_after = open_after
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._lock = threading.Lock()
        self._n_failures = 0
        self._n_openings = 0
        self._open_until: float | None = None
        self._tried_at: float | None = None
        self.n_lost_trials = 0
        self.last: tuple[BaseException, Failure] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a call that can go elsewhere should."""
        with self._lock:
            return self._open_until is not None and not self._may_try(last_resort=False)

    def admit(self, *, last_resort: bool = False) -> Admission:
        """Ask to pass; `last_resort` where nobody else could answer.

        A "trial" has to end with `succeeded`, `failed` or `released`.
        """
        with self._lock:
            if self._open_until is None:
                return "pass"
            if self._may_try(last_resort=last_resort):
                self._tried_at = self._clock()
                return "trial"
            return "wait" if last_resort else "elsewhere"

    def succeeded(self) -> None:
        """Take down that the candidate answered, if only to refuse what it was asked."""
        with self._lock:
            self._n_failures = self._n_openings = 0
            self._open_until = self._tried_at = self.last = None

    def failed(self, error: BaseException, failure: Failure, *, trial: bool) -> None:
        """Take down a failure of the candidate's; it stays open as long as that asks, at most 60 s.

        Of a circuit that is open only a trial's failure changes anything.
        """
        with self._lock:
            self._n_failures += 1
            if trial:
                self.n_lost_trials += 1
                self._tried_at = None
            if not trial and (self._open_until is not None or self._n_failures < self._open_after):
                return
            asked_s, own_s = failure.retry_after_s or 0.0, self._cooldown_s * 2.0**self._n_openings
            self._open_until = self._clock() + min(max(asked_s, own_s), MAX_OPEN_S)
            self._n_openings = min(self._n_openings + 1, 30)
            self.last = twin(error), failure

    def released(self) -> None:
        """Take down that a trial came to no end of its own: somebody gave it up."""
        with self._lock:
            self._tried_at = None

    def _may_try(self, *, last_resort: bool) -> bool:
        now = self._clock()
        is_under_way = self._tried_at is not None and now - self._tried_at < self._cooldown_s
        is_time = self._open_until is not None and now >= self._open_until
        return (last_resort or is_time) and not is_under_way


def twin(error: BaseException) -> BaseException:
    """Return an exception like another one, without its traceback, to be raised elsewhere."""
    made: BaseException = type(error).__new__(type(error), *error.args)
    made.args = error.args
    made.__dict__.update(error.__dict__)
    return made
