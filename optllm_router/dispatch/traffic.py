"""What the calls of one router share about its candidates: the client, circuits and limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optllm_router.completion.base import Client
from optllm_router.config import CallSettings, CandidateSettings
from optllm_router.dispatch.breaker import Breaker, Clock
from optllm_router.dispatch.limits import Limit
from optllm_router.records import Candidate


class Traffic:
    """The circuit of every candidate, and the limits of those that have any.

    Args:
        client: who answers on their behalf.
        candidates: their settings.
        calls: how often a call is tried, and when a circuit opens.
        clock: seconds that never go back.
        rng: draws how long to wait before a retry.
    """

    def __init__(
        self,
        client: Client,
        candidates: Sequence[CandidateSettings],
        calls: CallSettings,
        *,
        clock: Clock,
        rng: np.random.Generator,
    ) -> None:
        self.client = client
        self.calls = calls
        self.clock = clock
        self.rng = rng
        self._breakers = {
            settings.name: Breaker(
                open_after=calls.open_after, cooldown_s=calls.cooldown_s, clock=clock
            )
            for settings in candidates
        }
        self._limits = {
            settings.name: Limit(
                at_once=settings.max_concurrency,
                per_minute=settings.requests_per_minute,
                clock=clock,
            )
            for settings in candidates
            if settings.max_concurrency or settings.requests_per_minute
        }

    def breaker(self, candidate: Candidate) -> Breaker:
        """Return the circuit of one of the router's candidates."""
        return self._breakers[candidate.name]

    def limit(self, candidate: Candidate) -> Limit | None:
        """Return the limits of a candidate; None where it has none, and for other pins."""
        return self._limits.get(candidate.name)
