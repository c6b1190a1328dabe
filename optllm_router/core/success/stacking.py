"""A second estimate of the same texts, stacked on the first by as much as it adds to it.

The second one is a ridge per principal component of the scores, on the text's components and its
task: what columns have in common and what sets them apart are each smoothed as much as their own
left-out error asks for. Two shares of it are taken, by least squares on rows that neither estimate
saw the text of (Wolpert, "Stacked generalization", Neural Networks 5, 1992; Breiman, "Stacked
regressions", Machine Learning 24, 1996): of what it says of all columns, and of how they differ.

    estimate = first + common share * (mean of second - first) + share apart * (what is left of it)

A share is shrunk by how little the labelled texts tell of it, so that few labels stack next to
nothing. Rows are left out by folds: leaving out single texts, the second estimate would see more
labels than the first one did, and get too large a share. Texts that neighbours tell were met before
keep the first estimate, which knows their own labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.records import Floats, Ints

N_FOLDS = 5
PENALTIES = np.concatenate([[np.inf], np.geomspace(1_000.0, 0.01, 16)])
"""For rows of about unit length: from nothing of a component to next to all of it."""

SPREAD = 0.3  # standard deviation of a share about 0, before any row
NOTHING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """The shares (common, apart), each in [0, 1], and the second estimate that they are of.

    `mean` (n_columns,), NaN for a column without a label, `of_text` (n_components, n_columns) and
    `of_tasks` (n_tasks, n_columns) are the second estimate.
    """

    shares: tuple[float, float]
    mean: Floats
    of_text: NDArray[np.float32]
    of_tasks: NDArray[np.float32]

    def mixing(self) -> Floats:
        """Return what takes a difference of two estimates to what is stacked of it.

        Its shape is (n_columns, n_columns); nothing is stacked on columns without a label.
        """
        labelled = ~np.isnan(self.mean)
        mixing = np.zeros((labelled.size, labelled.size))
        mixing[np.ix_(labelled, labelled)] = _mixing(self.shares, int(labelled.sum()))
        return mixing

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return plain arrays for an npz file."""
        return {
            "stack_weights": np.array(self.shares),
            "stack_mean": self.mean,
            "stack_text": self.of_text,
            "stack_tasks": self.of_tasks,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self | None:
        """Rebuild from `to_arrays`; None where there was nothing.

        Raises: ValueError for shares outside [0, 1].
        """
        if "stack_weights" not in arrays:
            return None
        common, apart = np.asarray(arrays["stack_weights"], dtype=np.float64).tolist()
        if not (0.0 <= common <= 1.0 and 0.0 <= apart <= 1.0):
            raise ValueError(f"the stack's shares {common}, {apart} are not in [0, 1]: refit")
        return cls(
            shares=(common, apart),
            mean=np.asarray(arrays["stack_mean"], dtype=np.float64),
            of_text=np.asarray(arrays["stack_text"], dtype=np.float32),
            of_tasks=np.asarray(arrays["stack_tasks"], dtype=np.float32),
        )


def fit_stack(  # noqa: PLR0913  # what it is fitted on, by keyword
    *, components: Floats, tasks: Floats, first: Floats, scores: Floats, texts: Ints, fold: Ints
) -> tuple[Stack | None, Floats]:
    """Fit the second estimate and its shares; return them and the stacked estimates of the rows.

    Args:
        components: (n_rows, n_components), of the texts.
        tasks: (n_rows, n_tasks), their indicators.
        first: (n_rows, n_columns), the first estimates, that did not see the row's text.
        scores: (n_rows, n_columns), NaN where not observed.
        texts: (n_rows,), from 0, equal for equal texts.
        fold: (n_rows,), from 0 without gaps, the same for equal texts.

    Returns: None and `first` where nothing is stacked: neither share is above 0, there are fewer
    than three folds or two columns with labels, or such a column is not observed throughout.
    """
    seen = ~np.isnan(scores)
    labelled = np.flatnonzero(seen.any(axis=0))
    if labelled.size < 2 or not seen[:, labelled].all() or fold.max() < 2:
        return None, first
    own, wanted = first[:, labelled], scores[:, labelled]
    second = fit_folds(np.hstack([components, tasks]), wanted, fold)
    shares = stack_shares(own, second.left_out, wanted, texts)
    if not any(shares):
        return None, first
    mean = np.full(scores.shape[1], np.nan)
    weights = np.zeros((second.weights.shape[0], mean.size), dtype=np.float32)
    mean[labelled], weights[:, labelled] = second.mean, second.weights
    stacked = first.copy()
    stacked[:, labelled] += (second.left_out - own) @ _mixing(shares, labelled.size)
    n = components.shape[1]
    return Stack(shares=shares, mean=mean, of_text=weights[:n], of_tasks=weights[n:]), stacked


def stack_shares(first: Floats, second: Floats, scores: Floats, texts: Ints) -> tuple[float, float]:
    """Return which share of `second` - `first` to add of its mean over the columns and of the rest.

    All (n_rows, n_columns), estimates that did not see the row's text; every score is observed.
    `texts` (n_rows,), from 0, is equal for equal texts.
    """
    gap, missing = second - first, scores - first
    common, missing_common = gap.mean(axis=1, keepdims=True), missing.mean(axis=1, keepdims=True)
    return (
        _share(common, missing_common, texts),
        _share(gap - common, missing - missing_common, texts),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Second:
    """A ridge: `mean` (n_columns,), `weights` (n_dimensions, n_columns), and `left_out`.

    That is (n_rows, n_columns), every row as the other folds' mean and weights estimate it.
    """

    mean: Floats
    weights: Floats
    left_out: Floats


def fit_folds(points: Floats, scores: Floats, fold: Ints) -> Second:
    """Fit a ridge per principal component of the centred scores.

    A component's penalty is the one of `PENALTIES` of the least error when each fold is predicted
    by the others; ties go to the strongest. An infinite one drops it: nothing of it can be told.
    The penalties with which a fold is left out are chosen likewise among the others alone.

    Args:
        points: (n_rows, n_dimensions).
        scores: (n_rows, n_columns), each observed.
        fold: (n_rows,), at least three, from 0 without gaps.
    """
    axes = np.linalg.svd(scores - scores.mean(axis=0), full_matrices=False)[2]
    parts = [np.flatnonzero(fold == number) for number in range(int(fold.max()) + 1)]
    products = np.stack(list(_products(points, scores, parts)))
    n, left_out = len(parts), np.empty_like(scores)
    without = {
        (one, other): _Ridges.of(np.delete(products, [one, other], axis=0).sum(axis=0), axes)
        for one, other in combinations_with_replacement(range(n), 2)
    }
    errors = np.empty((n, n, PENALTIES.size, len(axes)))  # of the first fold, without the second
    for (one, other), ridges in without.items():
        for judge, out in {(one, other), (other, one)}:
            errors[judge, out] = ridges.errors(products[judge])
    for out, rows in enumerate(parts):
        ridges = without[out, out]
        penalties = _least(np.delete(errors[:, out], out, axis=0))
        left_out[rows] = ridges.mean + points[rows] @ ridges.weights(penalties)
    every = _Ridges.of(products.sum(axis=0), axes)
    penalties = _least(errors[np.arange(n), np.arange(n)])
    return Second(mean=every.mean, weights=every.weights(penalties), left_out=left_out)


def _least(errors: Floats) -> Floats:
    """The penalties, (n_axes,), of the least sum of errors, (n_folds, n_penalties, n_axes)."""
    return np.asarray(PENALTIES[errors.sum(axis=0).argmin(axis=0)])


@dataclass(frozen=True, slots=True, eq=False)
class _Ridges:
    """What gives the coefficients at any penalty: the points' Gram matrix, decomposed.

    `axes` are the scores' components; `moment` (n_dimensions, n_axes) is along the `vectors`.
    """

    mean: Floats
    axes: Floats
    values: Floats
    vectors: Floats
    moment: Floats

    @classmethod
    def of(cls, products: Floats, axes: Floats) -> Self:
        """Take them from the products of rows of 1, point and scores."""
        mean = products[0, -axes.shape[1] :] / products[0, 0]
        gram, moment, _ = _about(products, mean, axes)
        values, vectors = np.linalg.eigh(gram)
        return cls(mean, axes, np.maximum(values, 0.0), vectors, vectors.T @ moment)

    def weights(self, penalties: Floats) -> Floats:
        """Return coefficients, (n_dimensions, n_columns), of each component at its penalty."""
        return np.asarray(self._coefficients(penalties) @ self.axes)

    def errors(self, products: Floats) -> Floats:
        """Return the sums of squared errors of other rows, (n_penalties, n_axes)."""
        gram, moment, squares = _about(products, self.mean, self.axes)
        tried = (self._coefficients(penalty) for penalty in PENALTIES.tolist())
        return np.stack(
            [squares + (one * (gram @ one - 2.0 * moment)).sum(axis=0) for one in tried]
        )

    def _coefficients(self, penalty: Floats | float) -> Floats:
        return np.asarray(self.vectors @ (self.moment / (self.values[:, None] + penalty)))


def _about(products: Floats, mean: Floats, axes: Floats) -> tuple[Floats, Floats, Floats]:
    """The points' Gram matrix, and what they and the scores' components make about a mean.

    The latter are (n_dimensions, n_axes) and, the components' sums of squares, (n_axes,).
    """
    n = products.shape[0] - mean.size
    turn = np.concatenate([np.zeros((n, len(axes))), axes.T])
    turn[0] = -mean @ axes.T
    crossed = products @ turn
    return products[1:n, 1:n], crossed[1:n], (turn * crossed).sum(axis=0)


def _products(points: Floats, scores: Floats, parts: list[Ints]) -> Iterator[Floats]:
    """Yield for each part of the rows the products of their columns: 1, point and scores."""
    for rows in parts:
        row = np.hstack([np.ones((rows.size, 1)), points[rows], scores[rows]])
        yield row.T @ row


def _share(gap: Floats, missing: Floats, texts: Ints) -> float:
    """The least-squares share of `gap` in `missing`, shrunk as by a normal prior about 0.

    Its variance allows for errors that a text's cells and rows share (the sandwich of Huber, 1967).
    """
    weight = float((gap**2).sum())
    if weight <= NOTHING:
        return 0.0
    share = float((gap * missing).sum()) / weight
    by_text = np.bincount(texts, (gap * (missing - share * gap)).sum(axis=1))
    variance = float(by_text @ by_text) / weight**2
    return float(np.clip(share * SPREAD**2 / (SPREAD**2 + variance), 0.0, 1.0))


def _mixing(shares: tuple[float, float], n: int) -> Floats:
    """What takes n columns to a share of their mean plus a share of what is left."""
    common, apart = shares
    return np.asarray(apart * np.eye(n) + (common - apart) / n)
