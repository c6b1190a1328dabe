"""Kernel ridge by principal components of the scores, each penalty chosen by leave-one-out.

The kernel is the product of two rows of features, so a decomposition of their matrix, by its
smaller side, is the primal and the dual form at once. Candidates succeed and fail together: what
they have in common, and what sets them apart, are the components of their scores, and each is
smoothed as much as its own leave-one-out error asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from optllm_router.records import Floats, Ints

PENALTIES = np.geomspace(0.01, 1_000.0, 16)
"""For rows of about unit length: from next to none to one that leaves next to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KernelRidge:
    """What was fitted: the mean of the scores, (n_columns,), and weights, (n_features, n_columns).

    `penalties` (n_components,) are those chosen, infinite for a component that was dropped.
    """

    mean: Floats
    weights: Floats
    penalties: Floats

    @classmethod
    def fit(cls, points: Floats, scores: Floats, group: Ints) -> Self:
        """Fit one ridge per principal component of the centred scores.

        A component's penalty is the one of `PENALTIES` of the least leave-one-out error, of a tie
        the strongest. Where that is not below the error of predicting 0, the component is dropped:
        nothing of it can be told from the features.

        Args:
            points: (n, n_features), at least one row; a product of two rows is their kernel.
            scores: (n, n_columns), each observed.
            group: (n,), equal for equal texts, which are left out together.
        """
        mean = scores.mean(axis=0)
        left, spread, axes = np.linalg.svd(scores - mean, full_matrices=False)
        targets, design = left * spread, Design.of(points, group)
        grid = PENALTIES[::-1]
        errors = design.left_out_errors(targets, grid)
        helps = errors.min(axis=0) < (targets**2).sum(axis=0)
        penalties = np.where(helps, grid[errors.argmin(axis=0)], np.inf)
        weights = design.weights(targets, penalties) @ axes
        return cls(mean=mean, weights=weights, penalties=penalties)

    def predict(self, points: Floats) -> Floats:
        """Return the expected scores, (n_points, n_columns), not cut to [0, 1]."""
        return np.asarray(self.mean + points @ self.weights)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Design:
    """Rows of features, decomposed into left * scale @ right; equal rows of a group are one.

    Such a row stands for `n` queries: times the root of `n` it counts as much as they do. `row` is
    each query's row, `group` each row's group.
    """

    left: Floats
    scale: Floats
    right: Floats
    n: Ints
    row: Ints
    group: Ints

    @classmethod
    def of(cls, points: Floats, group: Ints) -> Self:
        """Join equal rows of `points` (n, n_features) that are of one `group` (n,); decompose."""
        keys = np.column_stack([group, points])
        _, first, row, n = np.unique(
            keys, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        joined = points[first] * np.sqrt(n)[:, None]
        left, scale, right = np.linalg.svd(joined, full_matrices=False)
        return cls(
            left=left, scale=scale, right=right, n=n, row=row.reshape(-1), group=group[first]
        )

    def weights(self, targets: Floats, penalties: Floats) -> Floats:
        """Return ridge coefficients, (n_features, n_targets), of each target at its penalty.

        Args:
            targets: (n, n_targets).
            penalties: (n_targets,), infinite for coefficients of 0.
        """
        shrunk = self.scale[:, None] / (self.scale[:, None] ** 2 + penalties)
        return np.asarray(self.right.T @ (shrunk * (self.left.T @ self._joined(targets))))

    def left_out_errors(self, targets: Floats, penalties: Floats) -> Floats:
        """Return sums of squared errors, each query predicted by a fit without its group.

        Exact, from the hat matrix H of the fit on all: what the rows G of a group are missed by is
        (1 - H_GG)^-1 times their residuals (Cook & Weisberg, Residuals and Influence in
        Regression, 1982). Equal rows are one, so G has a row per task of the text.

        Args:
            targets: (n, n_targets).
            penalties: (n_penalties,), above 0.

        Returns: (n_penalties, n_targets).
        """
        joined = self._joined(targets)
        among_equals = (targets**2).sum(axis=0) - (joined**2).sum(axis=0)
        _, member, size = np.unique(self.group, return_inverse=True, return_counts=True)
        several = [np.flatnonzero(member == number) for number in np.flatnonzero(size > 1)]
        missed = (self._left_out(joined, penalty, several) for penalty in penalties.tolist())
        return np.asarray(among_equals + np.array([(one**2).sum(axis=0) for one in missed]))

    def _left_out(self, joined: Floats, penalty: float, several: list[Ints]) -> Floats:
        """By how much each row is missed; `several` are the rows of groups of more than one."""
        hat = self.left * (self.scale**2 / (self.scale**2 + penalty))
        residuals = joined - hat @ (self.left.T @ joined)
        missed = residuals / (1.0 - np.einsum("ij,ij->i", hat, self.left))[:, None]
        for rows in several:
            rest = np.eye(rows.size) - hat[rows] @ self.left[rows].T
            missed[rows] = np.linalg.solve(rest, residuals[rows])
        return np.asarray(missed)

    def _joined(self, targets: Floats) -> Floats:
        """The targets of the rows: a row's mean target, times the root of its number of queries."""
        sums = np.zeros((self.n.size, targets.shape[1]))
        np.add.at(sums, self.row, targets)
        return np.asarray(sums / np.sqrt(self.n)[:, None])
