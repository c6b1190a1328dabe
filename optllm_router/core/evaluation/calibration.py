"""Whether probabilities mean what they say: ECE, Brier score, log loss, reliability diagrams.

All take probabilities and scores of one shape: a column, or a whole matrix, whose cells are pooled.
Scores may be soft, in [0, 1]; NaN marks cells that were not observed, which are ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optllm_router.core.evaluation.checks import floats, observed, require_range, same_shape
from optllm_router.records import Floats, Ints

EPSILON = 1e-6
"""How near to 0 and 1 the log loss takes a probability: one sure miss then costs 13.8 nats, not
infinitely many, which would drown every other query."""

N_BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reliability:
    """Bins of a reliability diagram by ascending probability, (n_bins,) each; none is empty.

    `prob` and `score` are the means in a bin, `n` how many observed cells it holds.
    """

    prob: Floats
    score: Floats
    n: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How well the probabilities of `n` observed cells are calibrated; NaN where `n` is 0."""

    n: int
    ece: float
    brier: float
    log_loss: float


def reliability(prob: ArrayLike, scores: ArrayLike, n_bins: int = N_BINS) -> Reliability:
    """Group the observed cells into bins of equal mass by probability.

    A cell that has k smaller probabilities among n goes to bin floor(k * n_bins / n) (equal-mass
    bins: Nguyen & O'Connor, EMNLP 2015). Equal probabilities share a bin, so the order of rows
    does not matter, bins before a tie are fuller, and bins after it may be missing.

    Args:
        prob: probabilities in [0, 1], any shape.
        scores: in [0, 1] or NaN, of the same shape.
        n_bins: how many bins at most, at least 1.

    Raises:
        ValueError: Shapes that differ, a value out of range, no observed score, no bin.
    """
    p, s = _observed(prob, scores)
    if n_bins < 1:
        raise ValueError(f"`n_bins` is {n_bins}, but at least one bin is needed: 15 is usual.")
    n_smaller = np.searchsorted(np.sort(p), p, side="left")
    of_cell = n_smaller * n_bins // p.size
    n = np.bincount(of_cell)
    filled = n > 0
    total_prob, total_score = np.bincount(of_cell, weights=p), np.bincount(of_cell, weights=s)
    return Reliability(
        prob=total_prob[filled] / n[filled], score=total_score[filled] / n[filled], n=n[filled]
    )


def ece(prob: ArrayLike, scores: ArrayLike, n_bins: int = N_BINS) -> float:
    """Return the expected calibration error: sum over bins of n_b / n * |mean score - mean prob|.

    Naeini, Cooper & Hauskrecht, AAAI 2015, with the bins of `reliability`. 0 is calibrated, 1 the
    worst. It is biased upwards on few cells: compare figures of equal n only.

    Args:
        prob: probabilities in [0, 1], any shape.
        scores: in [0, 1] or NaN, of the same shape.
        n_bins: how many bins at most.

    Raises:
        ValueError: As in `reliability`.
    """
    bins = reliability(prob, scores, n_bins)
    return float(bins.n @ np.abs(bins.score - bins.prob) / bins.n.sum())


def brier(prob: ArrayLike, scores: ArrayLike) -> float:
    """Return the Brier score, the mean of (prob - score)**2 (Brier, Monthly Weather Review 1950).

    0 is perfect. Of soft scores it also counts as an error how far they are from the mean.

    Args:
        prob: probabilities in [0, 1], any shape.
        scores: in [0, 1] or NaN, of the same shape.

    Raises:
        ValueError: Shapes that differ, a value out of range, no observed score.
    """
    p, s = _observed(prob, scores)
    return float(np.mean((p - s) ** 2))


def log_loss(prob: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean of -(score * ln(prob) + (1 - score) * ln(1 - prob)), in nats.

    The logarithmic score (Good, Journal of the Royal Statistical Society B 14(1), 1952), with
    probabilities kept within [`EPSILON`, 1 - `EPSILON`].

    Args:
        prob: probabilities in [0, 1], any shape.
        scores: in [0, 1] or NaN, of the same shape.

    Raises:
        ValueError: Shapes that differ, a value out of range, no observed score.
    """
    p, s = _observed(prob, scores)
    p = np.clip(p, EPSILON, 1.0 - EPSILON)
    return float(-np.mean(s * np.log(p) + (1.0 - s) * np.log1p(-p)))


def calibration(prob: ArrayLike, scores: ArrayLike, n_bins: int = N_BINS) -> Calibration:
    """Return all three figures over the observed cells, pooled.

    Args:
        prob: probabilities in [0, 1], any shape.
        scores: in [0, 1] or NaN, of the same shape.
        n_bins: how many bins at most.

    Raises:
        ValueError: As in `reliability`.
    """
    p, s = _observed(prob, scores)
    return Calibration(n=p.size, ece=ece(p, s, n_bins), brier=brier(p, s), log_loss=log_loss(p, s))


def calibration_by_column(
    prob: ArrayLike, scores: ArrayLike, n_bins: int = N_BINS
) -> tuple[Calibration, ...]:
    """Return the figures of each column; of one without an observed score: n 0 and NaN.

    Args:
        prob: probabilities in [0, 1], (n_queries, n_columns).
        scores: in [0, 1] or NaN, (n_queries, n_columns).
        n_bins: how many bins at most.

    Raises:
        ValueError: Shapes that differ or are no matrix, a value out of range, no bin.
    """
    p, s = floats(prob), floats(scores)
    same_shape(("prob", p), scores=s)
    if p.ndim != 2:
        raise ValueError(
            f"`prob` has shape {p.shape}, but columns need a matrix (n_queries, n_columns): use "
            "`calibration` for a single column."
        )
    return tuple(_of_column(p[:, j], s[:, j], n_bins) for j in range(p.shape[1]))


def _of_column(prob: Floats, scores: Floats, n_bins: int) -> Calibration:
    if np.isnan(scores).all():
        return Calibration(n=0, ece=math.nan, brier=math.nan, log_loss=math.nan)
    return calibration(prob, scores, n_bins)


def _observed(prob: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    p, s = floats(prob), floats(scores)
    same_shape(("prob", p), scores=s)
    seen = observed("scores", s)
    p, s = p[seen], s[seen]
    require_range("prob", p, upper=1.0)
    require_range("scores", s, upper=1.0)
    return p, s
