"""Who is asked next, and when: the order of one call's attempts. Knows nothing of the world.

The policy's column comes first. After a failure that passes it is asked once more, in a moment,
while an attempt is left for somebody else too; after any other failure, or when it asks for
patience, the next column is asked at once. When all have been asked, those that may recover are
asked again, whoever is ready first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from optllm_router.completion.base import Failure
from optllm_router.dispatch.offers import Offer

FIRST_WAIT_S = 0.5
MAX_WAIT_S = 8.0
PATIENT_S = 2.0  # a longer wait is not waited for while somebody else may answer at once
TRIES_IN_A_ROW = 2


@dataclass(slots=True, eq=False)
class Leg:
    """One column that may be asked: how often it was, and from when on it may be again."""

    offer: Offer
    n_tries: int = 0
    ready_at: float = 0.0
    is_out: bool = False


def backoff_s(n_failures: int, rng: np.random.Generator) -> float:
    """Return how long to wait after so many failures: 0.5, 1, 2, 4, 8, 8, ... less up to a half."""
    longest = min(FIRST_WAIT_S * 2.0 ** (n_failures - 1), MAX_WAIT_S)
    return float(longest * (1.0 - 0.5 * rng.random()))


class Course:
    """The attempts of one call.

    Args:
        first: the column that was decided on.
        others: finds the further columns, the best first; only asked after a failure.
        max_attempts: how many there may be altogether.
        may_retry: whether a column may be asked more than once.
        rng: draws the waits' jitter.
    """

    def __init__(
        self,
        first: Offer,
        others: Callable[[], Sequence[Offer]],
        *,
        max_attempts: int,
        may_retry: Callable[[Offer], bool],
        rng: np.random.Generator,
    ) -> None:
        self._legs = [Leg(first)]
        self._others = others
        self._max_attempts = max_attempts
        self._may_retry = may_retry
        self._rng = rng
        self._is_whole = False

    def legs(self) -> list[Leg]:
        """Every column that is not out, asked or not, the policy's first."""
        if not self._is_whole:
            self._is_whole = True
            self._legs += map(Leg, self._others())
        return [leg for leg in self._legs if not leg.is_out]

    @property
    def first(self) -> Leg:
        """The column that was decided on."""
        return self._legs[0]

    def after(self, leg: Leg, failure: Failure, now: float) -> list[Leg]:
        """Take down a failed attempt; return whom to ask next, the best first, none to give up."""
        self._take_down(leg, failure, now)
        n_left = self._max_attempts - sum(each.n_tries for each in self._legs)
        if failure.remedy == "none" or n_left < 1:
            return []
        legs = self.legs()
        if failure.needs_room:
            legs = self._with_room(legs, leg.offer)
        fresh = [each for each in legs if not each.n_tries]
        tried = sorted((each for each in legs if each.n_tries), key=lambda each: each.ready_at)
        if not leg.is_out and fresh and self._is_worth_waiting(leg, n_left, now):
            return [leg, *fresh]
        return [*fresh, *tried]

    def _take_down(self, leg: Leg, failure: Failure, now: float) -> None:
        leg.n_tries += 1
        wait_s = backoff_s(leg.n_tries, self._rng)
        leg.ready_at = now + max(wait_s, failure.retry_after_s or 0.0)
        leg.is_out = failure.remedy != "retry" or not self._may_retry(leg.offer)

    def _with_room(self, legs: Sequence[Leg], than: Offer) -> list[Leg]:
        """Leave out, for good, whoever has no larger context window than one that was too small."""
        for leg in legs:
            leg.is_out = not _has_more_room(leg.offer, than)
        return [leg for leg in legs if not leg.is_out]

    def _is_worth_waiting(self, leg: Leg, n_left: int, now: float) -> bool:
        """Whether to ask again before somebody else, who then still has to have an attempt."""
        return n_left > 1 and leg.n_tries < TRIES_IN_A_ROW and leg.ready_at - now <= PATIENT_S


def _has_more_room(offer: Offer, than: Offer) -> bool:
    """Whether a candidate's context window is larger than another's, as far as is known."""
    window = offer.candidate.capabilities.context_window
    filled = than.candidate.capabilities.context_window
    return window is None or filled is None or window > filled
