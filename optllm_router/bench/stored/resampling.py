"""Intervals of means and ratios over distinct texts, in little memory however many there are."""

from __future__ import annotations

import math

import numpy as np

from optllm_router.core.evaluation import Interval, interval
from optllm_router.records import Floats, Ints

N_RESAMPLES = 2_000
FEWEST_RESAMPLES = 400
_MANY = 200_000_000  # draws per interval: from 100,000 texts on, fewer resamples do
_AT_ONCE = 500_000  # draws
_SEED = 20_260_517


def mean_interval(text: Ints, values: Floats) -> Interval | None:
    """Return the mean of values with its 95 % interval over distinct texts; None for no value.

    Args:
        text: the number of each value's text, (n,).
        values: finite, (n,).
    """
    return ratio_interval(text, values, np.ones(values.size)) if values.size else None


def ratio_interval(text: Ints, top: Floats, bottom: Floats) -> Interval:
    """Return sum(top) / sum(bottom) with its 95 % percentile interval over distinct texts.

    As many texts as there are, drawn with replacement, each with all its rows (cluster bootstrap:
    Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8; what
    `core.evaluation.bootstrap_weights` counts, here summed at once: a log has many groups). The
    same number of texts has the same draws. The ends are NaN for fewer than two texts, which show
    no spread.

    Args:
        text: the number of each row's text, (n,), at least one row.
        top: finite, (n,).
        bottom: finite, (n,), not negative, its sum above 0.
    """
    numbers, group = np.unique(text, return_inverse=True)
    tops = np.bincount(group, top).astype(np.float64)
    bottoms = np.bincount(group, bottom).astype(np.float64)
    mean = math.fsum(top) / math.fsum(bottom)
    if numbers.size < 2:
        return Interval(mean=mean, low=math.nan, high=math.nan)
    drawn = _resampled(np.column_stack([tops, bottoms]))
    drawn = drawn[drawn[:, 1] > 0]
    if not drawn.size:
        return Interval(mean=mean, low=math.nan, high=math.nan)
    found = interval(drawn[:, 0] / drawn[:, 1])
    return Interval(mean=mean, low=found.low, high=found.high)


def _resampled(sums: Floats) -> Floats:
    """Return both sums over resamples of the texts, (n_resamples, 2), drawn in portions."""
    n_texts = len(sums)
    rng = np.random.default_rng([_SEED, n_texts])
    n = min(max(_MANY // n_texts, FEWEST_RESAMPLES), N_RESAMPLES)
    portion = max(_AT_ONCE // n_texts, 1)
    found = np.empty((n, 2))
    for start in range(0, n, portion):
        some = found[start : start + portion]
        drawn = rng.integers(n_texts, size=(len(some), n_texts))
        for column in range(2):
            some[:, column] = sums[:, column][drawn].sum(axis=1)
    return found
