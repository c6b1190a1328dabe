"""The arrays that people bring, checked once at the edge, so that the other rooms can trust them.

A cell that is not allowed is never read, so it may hold anything. The matrices are kept, not
copied: they must not change while a front that was computed from them is in use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optllm_router.errors import NoCandidateError
from optllm_router.records import Bools, Floats, Ints

LARGEST_TOTAL_USD = 1e300  # beyond it the sums overflow before anybody could pay them


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cells:
    """What every query may cost and achieve with every column, (n_queries, n_columns) each.

    `allowed` is None where nothing is forbidden; no allowed cell costs more than `largest_usd`.
    """

    prob: Floats
    cost_usd: Floats
    allowed: Bools | None
    largest_usd: float

    def of_rows(self, rows: Ints) -> tuple[Floats, Floats]:
        """Return copies of the prob and cost of some rows; forbidden cells: -1 and infinite."""
        prob, cost = self.prob[rows], self.cost_usd[rows]
        if self.allowed is not None:
            forbidden = ~self.allowed[rows]
            prob[forbidden], cost[forbidden] = -1.0, np.inf
        return prob, cost

    def picked(self, values: Floats, choice: Ints) -> Floats:
        """Return the cell of each query's chosen column, (n_queries,)."""
        return values[np.arange(choice.size), choice]


def checked(prob: ArrayLike, cost_usd: ArrayLike, allowed: ArrayLike | None) -> Cells:
    """Return the matrices as float64; a mask that forbids nothing is dropped.

    Raises:
        ValueError: Wrong shapes or types; a value that is not finite, a negative cost, or a
            probability outside [0, 1], with its row and column.
        NoCandidateError: A row without any allowed column.
    """
    probs = _matrix("prob", prob)
    costs = _matrix("cost_usd", cost_usd)
    _require_shape("cost_usd", costs.shape, probs.shape)
    mask = _mask(allowed, probs.shape)
    _require_candidates(probs.shape, mask)
    _require_range("prob", probs, mask, upper=1.0)
    _require_range("cost_usd", costs, mask, upper=LARGEST_TOTAL_USD / max(len(costs), 1))
    largest = costs.max(initial=0.0, where=True if mask is None else mask)
    return Cells(prob=probs, cost_usd=costs, allowed=mask, largest_usd=float(largest))


def _matrix(name: str, values: ArrayLike) -> Floats:
    matrix = np.asarray(values, dtype=np.float64, order="C")
    if matrix.ndim != 2:
        raise ValueError(
            f"`{name}` has shape {matrix.shape}, but a matrix (n_queries, n_columns) is needed: "
            "reshape one query to (1, n_columns), an empty batch to (0, n_columns)."
        )
    return matrix


def _require_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise ValueError(
            f"`{name}` has shape {found} and `prob` has {expected}: one row per query and one "
            "column per candidate in each, so their shapes must be equal."
        )


def _mask(allowed: ArrayLike | None, shape: tuple[int, ...]) -> Bools | None:
    if allowed is None:
        return None
    mask = np.asarray(allowed)
    _require_shape("allowed", mask.shape, shape)
    if mask.size and mask.dtype != np.bool_:
        raise ValueError(
            f"`allowed` holds {mask.dtype}, but true or false is needed: compare, or use "
            "`.astype(bool)`."
        )
    return None if mask.all() else mask.astype(np.bool_, copy=False)


def _require_candidates(shape: tuple[int, ...], mask: Bools | None) -> None:
    n_queries, n_columns = shape
    served = np.full(n_queries, n_columns > 0) if mask is None else mask.any(axis=1)
    if not served.all():
        row = int(served.argmin())
        raise NoCandidateError(
            f"row {row} has no allowed column ({int((~served).sum())} of {n_queries} rows): every "
            "query needs at least one. Allow one, or leave the query out."
        )


def _require_range(name: str, values: Floats, mask: Bools | None, *, upper: float) -> None:
    if not values.size or (values.min() >= 0.0 and values.max() <= upper):
        return  # two passes without a copy; NaN fails both comparisons
    wrong = ~((values >= 0.0) & (values <= upper))
    if mask is not None:
        wrong &= mask
    if wrong.any():
        row, column = (int(i) for i in np.unravel_index(wrong.argmax(), values.shape))
        raise ValueError(
            f"`{name}[{row}, {column}]` is {float(values[row, column])!r}, but it must lie in "
            f"[0, {upper:g}]: mend the estimate, or forbid the column there with `allowed`."
        )
