"""Ridges on resampled texts: every column's, stacked in one array of weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.ridge import BlockGrams, choose_own_penalties, choose_penalties
from optllm_router.core.success.labels import SuccessEstimate
from optllm_router.records import Bools, Floats, Ints

_ROWS_AT_ONCE = 1024  # in cache, and little memory, while every member's estimate is there


@dataclass(frozen=True, slots=True, eq=False)
class RidgeEnsemble:
    """The members' `weights`, (n_design, n_members, n_columns), and the labels' overall mean.

    A design has an intercept first, (n_queries, n_design).
    """

    weights: NDArray[np.float32]
    centre: float

    @classmethod
    def fit(
        cls, design: Floats, scores: Floats, blocks: Ints, n_members: int, rng: np.random.Generator
    ) -> tuple[Self, Bools]:
        """Fit every member on blocks of rows that are drawn with replacement.

        Where all labelled columns are observed throughout, a member is the mean of two fits on the
        same draw: of the columns, and of the principal components of their scores, each shrunk by
        as much as it is noise (what columns have in common is easier to tell than how they differ).

        Returns: the ensemble, and which rows each member did not see, (n_members, n_rows).
        """
        seen = ~np.isnan(scores)
        centre = float(scores[seen].mean())
        n_blocks = int(blocks.max()) + 1
        draws = rng.multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), n_members)
        drawn = draws.astype(np.float64)
        grams = BlockGrams(design, scores - centre, blocks)
        weights = grams.solve(drawn, choose_penalties(grams))
        labelled = np.flatnonzero(seen.any(axis=0))
        if labelled.size > 1 and seen[:, labelled].all():
            of_components = _by_components(design, scores[:, labelled], blocks, drawn, centre)
            weights[:, :, labelled] = (weights[:, :, labelled] + of_components) / 2.0
        return cls(weights.astype(np.float32), centre), draws[:, blocks] == 0

    def members(self, design: Floats) -> NDArray[np.float32]:
        """Return every member's estimates, (n_queries, n_members, n_columns)."""
        flat = self.weights.reshape(self.weights.shape[0], -1)
        stacked = design.astype(np.float32) @ flat
        stacked += np.float32(self.centre)
        return stacked.reshape(len(design), *self.weights.shape[1:])

    def spread(self, design: Floats) -> Floats:
        """Return the members' standard deviation, each cut to [0, 1]; (n_queries, n_columns)."""
        found = np.empty((len(design), self.weights.shape[2]))
        for start in range(0, len(design), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            members = self.members(design[rows])
            np.clip(members, 0.0, 1.0, out=members)
            members -= members.mean(axis=1, keepdims=True)
            members *= members
            found[rows] = np.sqrt(members.mean(axis=1))
        return found

    def out_of_bag(self, design: Floats, out: Bools) -> SuccessEstimate:
        """Average, per row, the members that did not see it; all members where none is left.

        The means are not cut to [0, 1].
        """
        use = out | ~out.any(axis=0)  # (n_members, n_rows)
        share = (use / use.sum(axis=0)).T.astype(np.float32)[:, None, :]
        mean = np.empty((len(design), self.weights.shape[2]))
        std = np.empty_like(mean)
        for rows in np.array_split(np.arange(len(design)), len(design) // _ROWS_AT_ONCE + 1):
            members = self.members(design[rows])
            average = share[rows] @ members
            members -= average
            mean[rows] = average[:, 0]
            std[rows] = np.sqrt(share[rows] @ members**2)[:, 0]
        return SuccessEstimate(mean, std)


def _by_components(
    design: Floats, scores: Floats, blocks: Ints, drawn: Floats, centre: float
) -> Floats:
    """Weights as `BlockGrams.solve` gives them, fitted to the scores' principal components."""
    mean = scores.mean(axis=0)
    axes = np.linalg.svd(scores - mean, full_matrices=False)[2]
    grams = BlockGrams(design, (scores - mean) @ axes.T, blocks)
    weights = grams.solve(drawn, choose_own_penalties(grams)) @ axes
    weights[0] += mean - centre
    return np.asarray(weights)
