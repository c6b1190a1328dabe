"""What serves a fitted predictor: its ensemble's mean and what is stacked on it, folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.features import SparseText
from optllm_router.core.projection import Projection
from optllm_router.core.success.ensemble import RidgeEnsemble
from optllm_router.core.success.stacking import Stack
from optllm_router.records import Bools, Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Serving:
    """What estimates a text, ready to use.

    `per_bucket` (N_FEATURES, width), `of_rest` (n_tasks + 5 + n_dense, width) and `centre` (width,)
    are the ridges' mean, n_columns wide, and beside it, where there is a `stack`, what is added of
    the second estimate; `kept` (n_columns, n_columns) then takes the first one to what is kept.
    """

    ensemble: RidgeEnsemble
    projection: Projection
    stack: Stack | None
    centre: Floats
    per_bucket: NDArray[np.float32]
    of_rest: Floats
    kept: Floats | None

    @classmethod
    def of(cls, ensemble: RidgeEnsemble, projection: Projection, stack: Stack | None) -> Self:
        """Fold the members' mean weights, and the stack's, into the projection."""
        mean, r = ensemble.weights.mean(axis=1), projection.axes.shape[1]
        centre, of_text = ensemble.centre + mean[0].astype(np.float64), mean[1 : 1 + r]
        of_rest, kept = mean[1 + r :].astype(np.float64), None
        if stack is not None:
            mixing = stack.mixing()
            kept = np.eye(len(mixing)) - mixing
            added = (stack.of_text @ mixing).astype(np.float32)
            of_tasks = np.zeros_like(of_rest)
            of_tasks[: len(stack.of_tasks)] = stack.of_tasks @ mixing
            centre = np.concatenate([centre, np.nan_to_num(stack.mean) @ mixing])
            of_text, of_rest = np.hstack([of_text, added]), np.hstack([of_rest, of_tasks])
        return cls(
            ensemble=ensemble,
            projection=projection,
            stack=stack,
            centre=centre,
            per_bucket=projection.fold(of_text),
            of_rest=of_rest,
            kept=kept,
        )

    def estimates(
        self, texts: Sequence[SparseText], rest: Floats, *, components: bool
    ) -> tuple[Floats, Floats, Floats]:
        """Return the first estimates, (n_texts, n_columns), what is added to them, and components.

        What is added is as wide, or empty without a stack; the texts' components are (n_texts, n),
        empty where they are not asked for. `rest` is (n_texts, n_tasks + 5 + n_dense).
        """
        axes = [self.projection.axes] if components else []
        wide, *found = self.projection.times(texts, self.per_bucket, *axes)
        wide += rest @ self.of_rest
        wide += self.centre
        n = self.ensemble.weights.shape[2]
        return wide[:, :n], wide[:, n:], found[0] if found else np.empty((len(texts), 0))

    def stacked(self, first: Floats, added: Floats, met: Bools) -> Floats:
        """Return what the stack makes of first estimates; those of texts that were met stay."""
        if self.kept is None:
            return first
        return np.where(met[:, None], first, first @ self.kept + added)


def design_of(components: Floats, rest: Floats) -> Floats:
    """Return the ridges' design: intercept, text, tasks, shape, embedding components."""
    return np.hstack([np.ones((len(rest), 1)), components, rest])
