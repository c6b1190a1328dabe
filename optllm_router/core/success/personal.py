"""How far estimates may leave what is known of the columns as such.

An argmax over noisy columns picks the luckiest error, so that with few labels a query's own
estimates can cost more than they bring. What decides is how the columns *differ* on a query: that
difference is shrunk, from 1 (as estimated) to 0 (every query alike: the zero-router of RouterBench,
arXiv 2403.12031).

    estimate = column's score + what the query does to all columns
             + contrast * (what is left of the query's own estimate)

What a query does to all columns is a mean over those that were fitted together. A column that joins
them later (`newcomer`) is no part of that mean, so that nothing changes for the others. It
decides nothing between columns at a price or a budget, but it is part of every probability, and few
labels understate it: it is multiplied by a slope that left-out queries ask for (`Personal.prob`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.records import Bools, Floats, Ints

NOTHING = 1e-12
MET_STRENGTH = 5.0  # rows that a met text's contrast is drawn towards a new one's
COMMON_SPREAD = 0.25  # standard deviation of the common slope about 1, before any row
CERTAIN = 0.005  # as near to 0 or 1 as the common slope may bring a probability
CORRECTION_STRENGTH = 5.0  # queries without any error that a correction is drawn towards


@dataclass(frozen=True, slots=True, eq=False)
class Personal:
    """Shares of the columns' differences; `column_score` is (n_columns,), NaN without a label.

    `contrast` is for new texts, `contrast_met` for those that were met before, whose own labels
    are known. `common_slope`, at least 0, multiplies what a query does to all columns. `fitted`
    (n_columns,) tells the columns that were fitted together; None means all that have a label.
    """

    column_score: Floats
    contrast: float = 1.0
    contrast_met: float = 1.0
    common_slope: float = 1.0
    fitted: Bools | None = None
    _together: slice | Ints = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Index the columns that were fitted together: by a slice, which is fast, if it can be."""
        fitted = ~np.isnan(self.column_score) if self.fitted is None else self.fitted
        n = np.count_nonzero(fitted)
        together = slice(n) if fitted[:n].all() else np.flatnonzero(fitted)
        object.__setattr__(self, "_together", together)

    @classmethod
    def fit(cls, left_out: Floats, met_again: Floats, met: Bools, scores: Floats) -> Self:
        """Choose scores, shares and slope by the squared errors of rows that did not take part.

        Args:
            left_out: (n_queries, n_columns), of each query without its text's labels.
            met_again: the same without its own labels alone.
            met: (n_queries,), which queries others have the text of.
            scores: (n_queries, n_columns), NaN where not observed.
        """
        mean = column_scores(left_out, scores)
        new = contrast_slope(left_out, scores, mean)
        again = contrast_slope(
            met_again[met], scores[met], mean, expected=new, strength=MET_STRENGTH
        )
        return cls(mean, new, again, common_slope(left_out, scores, mean, new))

    def of(self, estimates: Floats, met: Bools) -> Floats:
        """Shrink the differences of `estimates`, (n_queries, n_columns).

        `met` tells the queries that were met before, (n_queries, 1) or (n_queries, n_columns).
        """
        return self._shrunk(estimates, met, self.common(estimates))

    def of_left_out(self, estimates: Floats, elsewhere: Floats) -> Floats:
        """Shrink estimates of training queries as if they were new.

        `elsewhere` (n_queries, n_columns) is what the columns score on other texts
        (`scores_elsewhere`): by their scores on all, a query would be judged by its own labels.
        """
        new = np.zeros((len(estimates), 1), dtype=np.bool_)
        moved = elsewhere - self.column_score
        moved -= self.common(elsewhere)
        return self.of(estimates, new) + (1.0 - self.contrast) * moved

    def prob(self, shrunk: Floats, estimates: Floats) -> Floats:
        """Return probabilities, (n_queries, n_columns), of what `of` or `of_left_out` returned.

        Cut to [0, 1], then moved by what the slope adds to what a query does to all columns: all
        columns of a query alike, as far as no fitted one comes nearer than `CERTAIN` to 0 or 1.
        `estimates` are what was shrunk.
        """
        return self._stretched(shrunk, self.common(estimates))

    def prob_of(self, estimates: Floats, met: Bools) -> Floats:
        """Return the `prob` of what `of` makes of estimates, (n_queries, n_columns)."""
        common = self.common(estimates)
        return self._stretched(self._shrunk(estimates, met, common), common)

    def common(self, estimates: Floats) -> Floats:
        """Return what a query does to all columns that were fitted together, (n_queries, 1)."""
        deviation = estimates[:, self._together] - self.column_score[self._together]
        return np.asarray(np.add.reduce(deviation, axis=1, keepdims=True) / deviation.shape[1])

    def _shrunk(self, estimates: Floats, met: Bools, common: Floats) -> Floats:
        kept = np.where(met, self.contrast_met, self.contrast)
        alike = self.column_score + common
        return np.asarray(alike + kept * (estimates - alike))

    def _stretched(self, shrunk: Floats, common: Floats) -> Floats:
        prob = _cut(shrunk, 0.0, 1.0)
        fitted = prob[:, self._together]
        lowest = np.minimum(CERTAIN - np.minimum.reduce(fitted, axis=1, keepdims=True), 0.0)
        most = np.maximum.reduce(fitted, axis=1, keepdims=True)
        highest = np.maximum(1.0 - CERTAIN - most, 0.0)
        added = _cut((self.common_slope - 1.0) * common, lowest, highest)
        return _cut(prob + added, 0.0, 1.0)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return plain arrays for an npz file; `fitted` is not among them."""
        kept = [self.contrast, self.contrast_met, self.common_slope]
        return {"column_score": self.column_score, "contrast": np.array(kept)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild from `to_arrays`; the slope is 1 in those of before there was one."""
        kept = np.asarray(arrays["contrast"], dtype=np.float64).tolist()
        return cls(np.asarray(arrays["column_score"], dtype=np.float64), *kept)


def column_scores(estimates: Floats, scores: Floats) -> Floats:
    """Return every column's mean score over all queries, (n_columns,), NaN without a label.

    Queries that a column did not answer count by their estimate, corrected by the mean error on
    those it did: a column that was asked for hard queries only is not a bad one (the augmented
    estimate of Robins, Rotnitzky & Zhao, JASA 89, 1994). The correction is shrunk, lest one lucky
    answer make a column the best of all. With all observed it is the plain mean.

    Args:
        estimates: (n_queries, n_columns), of each query without its own labels.
        scores: (n_queries, n_columns), NaN where not observed.
    """
    seen = ~np.isnan(scores)
    n = seen.sum(axis=0)
    error = np.where(seen, scores - estimates, 0.0).sum(axis=0)
    unseen = (len(scores) - n) * error / (n + CORRECTION_STRENGTH)
    return np.where(n > 0, estimates.mean(axis=0) + (error + unseen) / len(scores), np.nan)


def scores_elsewhere(estimates: Floats, scores: Floats, fold: Ints) -> Floats:
    """Return `column_scores` of the other folds for every query, (n_queries, n_columns).

    `fold` is (n_queries,). One fold alone, and a column without a label elsewhere, have that of
    all queries.
    """
    overall = column_scores(estimates, scores)
    found = np.tile(overall, (len(scores), 1))
    for number in np.unique(fold):
        other = fold != number
        if other.any():
            others = column_scores(estimates[other], scores[other])
            found[~other] = np.where(np.isnan(others), overall, others)
    return found


def contrast_slope(
    estimates: Floats,
    scores: Floats,
    column_score: Floats,
    *,
    expected: float = 1.0,
    strength: float = 0.0,
) -> float:
    """Return the contrast, in [0, 1], that predicts the scores best.

    Least squares through the origin, of what is left of the scores on what is left of the
    estimates. `expected` counts as `strength` rows, and alone where nothing tells; the other
    arguments are as for `column_scores`.
    """
    if not len(scores):
        return expected
    alike = column_score + Personal(column_score).common(estimates)
    own, left = estimates - alike, scores - alike
    seen = ~np.isnan(left)
    weight, product = float(own[seen] @ own[seen]), float(own[seen] @ left[seen])
    if weight <= NOTHING:
        return expected
    prior = strength * weight / len(scores)
    return float(np.clip((product + prior * expected) / (weight + prior), 0.0, 1.0))


def common_slope(estimates: Floats, scores: Floats, column_score: Floats, contrast: float) -> float:
    """Return the slope, at least 0, of what a query does to all columns on what is estimated.

    Least squares through the origin over the queries with a label, of the mean over a query's
    labels of what they leave once the columns' scores and the `contrast` of the differences are
    taken off. It is drawn to 1 as by a normal prior of standard deviation `COMMON_SPREAD`, and 1
    where nothing tells. The other arguments are as for `column_scores`.
    """
    personal = Personal(column_score, contrast)
    common = personal.common(estimates)
    own = personal.of(estimates, np.zeros((len(estimates), 1), dtype=np.bool_)) - common
    n = (~np.isnan(scores)).sum(axis=1)
    common, left = common[n > 0, 0], np.nansum(scores - own, axis=1)[n > 0] / n[n > 0]
    if not left.size:
        return 1.0
    prior = float(np.mean((left - common) ** 2)) / COMMON_SPREAD**2
    weight = float(common @ common) + prior
    if weight <= NOTHING:
        return 1.0
    return max((float(common @ left) + prior) / weight, 0.0)


def _cut(values: Floats, lowest: Floats | float, highest: Floats | float) -> Floats:
    """What np.clip does, which takes longer than that for one query."""
    return np.asarray(np.minimum(np.maximum(values, lowest), highest))
