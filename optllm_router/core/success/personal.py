"""How far estimates may leave what is known of the columns as such.

An argmax over noisy columns picks the luckiest error, so that with few labels a query's own
estimates can cost more than they bring. What decides is how the columns *differ* on a query: that
difference is shrunk, from 1 (as estimated) to 0 (every query alike: the zero-router of RouterBench,
arXiv 2403.12031). How hard a query is for all columns moves no decision and stays as estimated.

    estimate = column's score + what the query does to all columns
             + contrast * (what is left of the query's own estimate)

What a query does to all columns is a mean over those that were fitted together. A column that joins
them later (`newcomer`) is no part of that mean, so that nothing changes for the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optllm_router.records import Bools, Floats, Ints

NOTHING = 1e-12
CORRECTION_STRENGTH = 5.0  # queries without any error that a correction is drawn towards


@dataclass(frozen=True, slots=True, eq=False)
class Personal:
    """Shares of the columns' differences; `column_score` is (n_columns,), NaN without a label.

    `contrast` is for new texts, `contrast_met` for those that were met before, whose own labels
    are known. `fitted` (n_columns,) tells the columns that were fitted together; None means all
    that have a label.
    """

    column_score: Floats
    contrast: float = 1.0
    contrast_met: float = 1.0
    fitted: Bools | None = None

    def of(self, estimates: Floats, met: Bools) -> Floats:
        """Shrink the differences of `estimates`, (n_queries, n_columns).

        `met` tells the queries that were met before, (n_queries, 1) or (n_queries, n_columns).
        """
        kept = np.where(met, self.contrast_met, self.contrast)
        alike = self.column_score + self.common(estimates)
        return np.asarray(alike + kept * (estimates - alike))

    def of_left_out(self, estimates: Floats, elsewhere: Floats) -> Floats:
        """Shrink estimates of training queries as if they were new.

        `elsewhere` (n_queries, n_columns) is what the columns score on other texts
        (`scores_elsewhere`): by their scores on all, a query would be judged by its own labels.
        """
        new = np.zeros((len(estimates), 1), dtype=np.bool_)
        moved = elsewhere - self.column_score
        moved -= self.common(elsewhere)
        return self.of(estimates, new) + (1.0 - self.contrast) * moved

    def common(self, estimates: Floats) -> Floats:
        """Return what a query does to all columns that were fitted together, (n_queries, 1)."""
        known = ~np.isnan(self.column_score) if self.fitted is None else self.fitted
        deviation = estimates[:, known] - self.column_score[known]
        return np.asarray(deviation.mean(axis=1, keepdims=True))


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
