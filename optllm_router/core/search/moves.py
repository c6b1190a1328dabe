"""What leaving any column of any query brings, tabulated once per table of estimates.

The published code scores every alternative against the current column again after every move. But
a query's moves depend on its own column only, so all of them can be known beforehand, and a search
that makes a hundred thousand moves then looks each one up. Cells are numbered along the rows, so
that one number says which query stands on which column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optllm_router.core.front.cells import Cells
from optllm_router.core.front.hulls import cost_scale
from optllm_router.records import Bools, Floats, Ints

_NONE = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moves:
    """For a query on each cell, where its moves lead, (n_queries * n_columns,) each.

    `settled` is the cell where the free improvements end, the cell itself where there is none.
    `up` and `down` are the cells to which the best upgrade and the best downgrade lead, free
    improvements included, -1 where there is none. `up_key` is minus the upgrade's slope, `down_key`
    the downgrade's: the lowest key is the best move. Slopes are probability per scaled USD.
    """

    n_columns: int
    settled: Ints
    up: Ints
    up_key: Floats
    down: Ints
    down_key: Floats

    def standing(self, choice: Ints) -> Ints:
        """Return the cell of each query after its free improvements, (n_queries,)."""
        cells: Ints = self.settled.take(np.arange(choice.size) * self.n_columns + choice)
        return cells

    def columns(self, cells: Ints) -> Ints:
        """Return the column of each query's cell, (n_queries,)."""
        return cells - np.arange(cells.size) * self.n_columns


def readable(cells: Cells, prob: Floats | None = None) -> tuple[Floats, Floats]:
    """Return prob and cost where forbidden cells are worse than any other, whatever they held.

    Args:
        cells: the matrices.
        prob: another table of estimates in place of the cells' own.
    """
    estimates = cells.prob if prob is None else prob
    if cells.allowed is None:
        return estimates, cells.cost_usd
    return (
        np.where(cells.allowed, estimates, -np.inf),
        np.where(cells.allowed, cells.cost_usd, np.inf),
    )


def moves_of(cells: Cells, prob: Floats | None = None) -> Moves:
    """Score every alternative to every cell (the published score table), and keep the best.

    With dA the gain in probability and dC the extra cost of an alternative: dC <= 0 and dA >= 0,
    not both 0, is a free improvement; dC > 0 and dA > 0 an upgrade, the better the larger dA / dC;
    dC < 0 and dA < 0 a downgrade, the better the smaller dA / dC; anything else is dominated.
    Ties: of free improvements the first column is taken, again until none is left; of equal
    upgrades or downgrades all are, one after the other, so that the last column stays.
    """
    probs, cost = readable(cells, prob)
    scaled = cost * cost_scale(cells)
    free, up, down = (np.empty(probs.shape, np.int64) for _ in range(3))
    up_key, down_key = np.empty_like(probs), np.empty_like(probs)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # forbidden: inf - inf
        for j in range(probs.shape[1]):
            gain, extra = probs - probs[:, j, None], scaled - scaled[:, j, None]
            slope = gain / extra
            free[:, j] = _first_free(gain, extra, j)
            up[:, j], up_key[:, j] = _lowest(-slope, (gain > 0.0) & (extra > 0.0))
            down[:, j], down_key[:, j] = _lowest(slope, (gain < 0.0) & (extra < 0.0))
    settled = _settled(free)
    return Moves(
        n_columns=probs.shape[1],
        settled=settled.reshape(-1),
        up=_led_to(up, settled),
        up_key=up_key.reshape(-1),
        down=_led_to(down, settled),
        down_key=down_key.reshape(-1),
    )


def checked_estimates(name: str, values: object, cells: Cells) -> Floats:
    """Return a second table of estimates as float64: any finite numbers, as p + alpha * sigma is.

    Raises:
        ValueError: Its shape differs, or an allowed cell is not finite, with its row and column.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.shape != cells.prob.shape:
        raise ValueError(
            f"`{name}` has shape {table.shape} and `prob` has {cells.prob.shape}: both estimate "
            "the same cells, so their shapes must be equal."
        )
    wrong = ~np.isfinite(table) if cells.allowed is None else ~np.isfinite(table) & cells.allowed
    if wrong.any():
        row, column = (int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
        raise ValueError(
            f"`{name}[{row}, {column}]` is {float(table[row, column])!r}, but a finite number is "
            "needed: mend the estimate, or forbid the column there with `allowed`."
        )
    return table


def _first_free(gain: Floats, extra: Floats, j: int) -> Ints:
    free = (extra <= 0.0) & (gain >= 0.0) & ((gain > 0.0) | (extra < 0.0))
    return np.where(free.any(axis=1), free.argmax(axis=1), j)


def _lowest(key: Floats, usable: Bools) -> tuple[Ints, Floats]:
    """Return each row's last column of the lowest usable key, -1 without any, and the key."""
    lowest = np.where(usable, key, np.inf).min(axis=1)
    among = usable & (key == lowest[:, None])
    last = key.shape[1] - 1 - among[:, ::-1].argmax(axis=1)
    return np.where(usable.any(axis=1), last, _NONE), lowest


def _settled(free: Ints) -> Ints:
    """Follow the free improvements to their ends, and number the cells there, (n, m)."""
    end = free
    while True:
        beyond = np.take_along_axis(free, end, axis=1)
        if (beyond == end).all():
            first = np.arange(0, free.size, max(1, free.shape[1]))
            return end + first[:, None]
        end = beyond


def _led_to(columns: Ints, settled: Ints) -> Ints:
    """Return the settled cells of some columns, flat; -1 stays."""
    cells = np.take_along_axis(settled, np.maximum(columns, 0), axis=1)
    return np.where(columns == _NONE, _NONE, cells).reshape(-1)
