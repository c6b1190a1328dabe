"""When a router refits, and how: here and now, or in a child process once it is due."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from optllm_router.config import Config
from optllm_router.dispatch.deciding import RouterState
from optllm_router.dispatch.embedding import Embeddings
from optllm_router.learning import RefitSettings, RetrainReport, refit, refit_in_child
from optllm_router.records import Candidate
from optllm_router.router.joining import JOINED_TO
from optllm_router.store.base import Store

SEARCHED = 50  # predictors, for the last one that was fitted and not only joined


class RefitClock:
    """When the next refit is due: after so many new outcomes or so much time, whichever first.

    New is what came since the last fit, whichever process made it, and since the last try of this
    one. Time alone needs at least one new outcome.
    """

    def __init__(self, *, every_outcomes: int, every_s: float, min_labels: int) -> None:
        self._every_outcomes = every_outcomes
        self._every_s = every_s
        self._min_labels = min_labels
        self._tried_at = -math.inf
        self._n_tried = 0

    def is_due(self, n_graded: int, *, n_since_fit: int | None, fit_age_s: float) -> bool:
        """Return whether to refit now.

        Args:
            n_graded: decisions that are graded in all.
            n_since_fit: those that were graded since the last fit; None where nothing is fitted.
            fit_age_s: the age of that fit.
        """
        new = n_graded - self._n_tried
        if n_since_fit is None:
            return n_graded >= self._min_labels and new > 0
        new = min(new, n_since_fit)
        waited = min(fit_age_s, time.monotonic() - self._tried_at)
        return new >= self._every_outcomes or (new > 0 and waited >= self._every_s)

    def tried(self, n_graded: int) -> None:
        """Note a refit, successful or not."""
        self._n_tried = n_graded
        self._tried_at = time.monotonic()


class Refits:
    """Refits on one store as the config says."""

    def __init__(self, store: Store, config: Config, embeddings: Embeddings | None) -> None:
        self._store = store
        self._enabled = config.retrain.enabled
        self._settings = RefitSettings(
            kind=config.predictor.kind,
            n_bootstraps=config.predictor.n_bootstraps,
            seed=config.predictor.seed,
            min_labels=config.retrain.min_labels,
            n_dimensions=0 if embeddings is None else embeddings.n_dimensions,
        )
        self._clock = RefitClock(
            every_outcomes=config.retrain.every_outcomes,
            every_s=config.retrain.every_s,
            min_labels=config.retrain.min_labels,
        )

    def now(self, candidates: Sequence[Candidate]) -> RetrainReport:
        """Refit in this process."""
        report = refit(self._store, candidates, self._settings)
        self._clock.tried(self._store.n_graded())
        return report

    def when_due(self, state: RouterState, n_graded: int) -> RetrainReport | None:
        """Refit in a child process, which a store in memory cannot have; None while not due."""
        if not self._enabled or not self._is_due(state, n_graded):
            return None
        self._clock.tried(n_graded)
        if self._store.url.endswith(("://", ":memory:")):
            return refit(self._store, state.candidates, self._settings)
        return refit_in_child(
            self._store.url, state.candidates, self._settings, price_version=state.price_version
        )

    def _is_due(self, state: RouterState, n_graded: int) -> bool:
        """Ask the clock, with the last fit of whichever process."""
        known = self._store.predictors(limit=SEARCHED)
        fits = [one for one in known if JOINED_TO not in one.metrics] or known[-1:]
        if state.snapshot is None or not fits:
            return self._clock.is_due(n_graded, n_since_fit=None, fit_age_s=0.0)
        fitted_at = fits[0].created_at
        return self._clock.is_due(
            n_graded,
            n_since_fit=self._store.n_graded(since=fitted_at),
            fit_age_s=(datetime.now(tz=UTC) - fitted_at).total_seconds(),
        )
