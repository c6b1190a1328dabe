"""The numbers that people bring, checked once at the edge, so that the formulas can trust them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from optllm_router.records import Bools, Floats


def require_positive(name: str, value: float) -> None:
    """Refuse what cannot be divided by.

    Raises:
        ValueError: `value` is not finite or not above 0.
    """
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(
            f"`{name}` is {value!r}, but the figure is relative to it, so it must be finite and "
            "above 0: where nothing is paid, report the score alone."
        )


def require_share(name: str, value: float) -> None:
    """Refuse what is no share.

    Raises:
        ValueError: `value` is outside [0, 1] or NaN.
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"`{name}` is {value!r}, but it must lie in [0, 1]: check its scale.")


def same_shape(expected: tuple[str, Floats], **others: Floats) -> None:
    """Refuse arrays that do not belong together.

    Raises:
        ValueError: One of `others` differs in shape from `expected`.
    """
    name, values = expected
    for other, found in others.items():
        if found.shape != values.shape:
            raise ValueError(
                f"`{other}` has shape {found.shape} and `{name}` has {values.shape}, but they "
                "describe the same cells: make their shapes equal."
            )


def require_range(name: str, values: Floats, *, upper: float = math.inf) -> None:
    """Refuse values outside [0, upper], NaN among them, and infinite ones.

    Raises:
        ValueError: The first such value, with its position.
    """
    wrong = ~((values >= 0.0) & (values <= upper) & np.isfinite(values))
    if wrong.any():
        where = [int(i) for i in np.argwhere(wrong)[0]]
        bound = "finite and not negative" if upper == math.inf else f"in [0, {upper:g}]"
        raise ValueError(
            f"`{name}{where}` is {float(values[wrong][0])!r}, but it must be {bound}: mend it, or "
            "leave it out."
        )


def floats(values: ArrayLike) -> Floats:
    """Return values as float64; a float64 array itself, not a copy."""
    return np.asarray(values, dtype=np.float64)


def outcomes(scores: ArrayLike, cost_usd: ArrayLike) -> tuple[Floats, Floats]:
    """Return two matrices of what happened, (n_queries, n_columns), every cell observed.

    Raises:
        ValueError: Other shapes, no cell, a score outside [0, 1], a cost that is negative or not
            finite.
    """
    score, cost = floats(scores), floats(cost_usd)
    if score.ndim != 2 or not score.size:
        raise ValueError(
            f"`scores` has shape {score.shape}, but a matrix (n_queries, n_columns) with at least "
            "one cell is needed: one row per query, one column per candidate."
        )
    same_shape(("scores", score), cost_usd=cost)
    require_range("scores", score, upper=1.0)
    require_range("cost_usd", cost)
    return score, cost


def observed(name: str, values: Floats) -> Bools:
    """Return which values are not NaN.

    Raises:
        ValueError: None is.
    """
    seen: Bools = ~np.isnan(values)
    if not seen.any():
        raise ValueError(
            f"`{name}` holds no observed value among {values.size}, so there is nothing to "
            "measure: leave the figure out, or grade some answers first."
        )
    return seen
