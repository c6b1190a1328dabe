"""Pictures for the terminal: the front as text, and the table of policies.

`draw_front` is a pure function from numbers to a string, so that it can be tested to the letter
and used wherever a front is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.table import Table
from rich.text import Text

from optllm_router.records import Floats

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LOG_ABOVE = 20.0  # costs that differ by more than this factor get a logarithmic axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One place in the picture: a name, a cost in USD and an accuracy in [0, 1]."""

    name: str
    cost_usd: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """One row of the table of policies; savings are shares of the baseline's cost, or None."""

    policy: str
    cost_usd: float
    accuracy: float
    asked: str = ""
    saving: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class _Axes:
    width: int
    height: int
    cost_low: float
    cost_high: float
    accuracy_low: float
    accuracy_high: float
    logarithmic: bool

    def columns(self, cost_usd: ArrayLike) -> NDArray[np.int64]:
        share = (self._scaled(cost_usd) - self._scaled(self.cost_low)) / (
            self._scaled(self.cost_high) - self._scaled(self.cost_low)
        )
        return np.rint(np.clip(share, 0, 1) * (self.width - 1)).astype(np.int64)

    def rows(self, accuracy: ArrayLike) -> NDArray[np.int64]:
        span = self.accuracy_high - self.accuracy_low
        share = (np.asarray(accuracy, dtype=float) - self.accuracy_low) / span
        return np.rint((1 - np.clip(share, 0, 1)) * (self.height - 1)).astype(np.int64)

    def cost_at(self, share: float) -> float:
        low, high = float(self._scaled(self.cost_low)), float(self._scaled(self.cost_high))
        value = low + share * (high - low)
        return math.exp(value) if self.logarithmic else value

    def _scaled(self, cost_usd: ArrayLike) -> Floats:
        cost = np.asarray(cost_usd, dtype=float)
        return np.log(np.maximum(cost, self.cost_low)) if self.logarithmic else cost


def draw_front(
    cost_usd: ArrayLike,
    accuracy: ArrayLike,
    *,
    marks: Sequence[Mark] = (),
    current: Mark | None = None,
    size: tuple[int, int] = (64, 16),
) -> str:
    """Draw a front with cost to the right and accuracy upwards; return lines without colour.

    Args:
        cost_usd: Cost of each point in USD, shape (n_points,), increasing.
        accuracy: Accuracy of each point in [0, 1], shape (n_points,), increasing.
        marks: Candidates to compare with, drawn as letters and named in a legend.
        current: Where the policy stands, drawn as ◆.
        size: Width and height of the plotting area, in characters, at least 24 by 4.

    The cost axis is logarithmic when costs differ by more than a factor of 20. Where two things
    fall on one character, ◆ wins over letters, letters move to the next free character, and both
    win over the front's line. An empty front draws the marks only; nothing at all gives a sentence.
    """
    cost, acc = np.asarray(cost_usd, dtype=float), np.asarray(accuracy, dtype=float)
    shown = [*marks, *([current] if current else [])]
    if not cost.size and not shown:
        return "There is no front to draw yet."
    axes = _axes(
        np.append(cost, [mark.cost_usd for mark in shown]),
        np.append(acc, [mark.accuracy for mark in shown]),
        size,
    )
    canvas = np.full((axes.height, axes.width), " ", dtype="<U1")
    _draw_line(canvas, axes, cost, acc)
    _draw_marks(canvas, axes, marks, current)
    return "\n".join([*_frame(canvas, axes), "", *_legend(marks, current)]).rstrip()


def usd(amount: float) -> str:
    """Write an amount of money with three significant digits, and cents from 100 USD on."""
    if amount == 0:
        return "$0"
    digits = max(2, 2 - math.floor(math.log10(abs(amount))))
    return f"${amount:,.{digits}f}"


def policy_table(title: str, rows: Sequence[PolicyRow]) -> Table:
    """Return the table of policies: what was asked, cost, accuracy, saving with its interval."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("policy")
    for name in ("asked", "cost", "accuracy", "saving", "95 % interval"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            Text(row.policy),
            row.asked,
            usd(row.cost_usd),
            f"{row.accuracy:.3f}",
            "" if row.saving is None else f"{row.saving:.1%}",
            "" if row.interval is None else "{:.1%} to {:.1%}".format(*row.interval),
        )
    return table


def _axes(cost: Floats, accuracy: Floats, size: tuple[int, int]) -> _Axes:
    low, high = float(cost.min()), float(cost.max())
    logarithmic = low > 0 and high > LOG_ABOVE * low
    if not logarithmic and high > 2 * low:
        low = 0.0
    if high <= low:
        high = low + 1.0
    bottom = max(0.0, math.floor(float(accuracy.min()) * 20 + 1e-9) / 20)
    top = math.ceil(float(accuracy.max()) * 20 - 1e-9) / 20
    return _Axes(
        width=max(24, size[0]),
        height=max(4, size[1]),
        cost_low=low,
        cost_high=high,
        accuracy_low=bottom,
        accuracy_high=max(top, bottom + 0.05),
        logarithmic=logarithmic,
    )


def _draw_line(canvas: NDArray[np.str_], axes: _Axes, cost: Floats, accuracy: Floats) -> None:
    if not cost.size:
        return
    first, last = int(axes.columns(cost[0])), int(axes.columns(cost[-1]))
    before = int(axes.rows(accuracy[0])) + 1
    for column in range(first, last + 1):
        at = axes.cost_at(column / (axes.width - 1))
        row = int(axes.rows(np.interp(at, cost, accuracy)))
        canvas[row : max(row + 1, before), column] = "·"  # a steep front stays connected
        before = row


def _draw_marks(
    canvas: NDArray[np.str_], axes: _Axes, marks: Sequence[Mark], current: Mark | None
) -> None:
    taken: set[tuple[int, int]] = set()
    if current:
        place = int(axes.rows(current.accuracy)), int(axes.columns(current.cost_usd))
        taken.add(place)
        canvas[place] = "◆"
    for letter, mark in zip(LETTERS, marks, strict=False):
        row, column = int(axes.rows(mark.accuracy)), int(axes.columns(mark.cost_usd))
        step = 1 if column < axes.width // 2 else -1
        while (row, column) in taken and 0 <= column + step < axes.width:
            column += step
        taken.add((row, column))
        canvas[row, column] = letter


def _frame(canvas: NDArray[np.str_], axes: _Axes) -> list[str]:
    labelled = set(np.linspace(0, axes.height - 1, 4).round().astype(int).tolist())
    span = axes.accuracy_high - axes.accuracy_low
    lines = ["accuracy"]
    for row, cells in enumerate(canvas):
        value = axes.accuracy_high - span * row / (axes.height - 1)
        label = f"{value:8.3f} ┤" if row in labelled else f"{'':8} │"
        lines.append((label + "".join(cells)).rstrip())
    lines.append(f"{'':8} └" + "─" * axes.width)
    return [*lines, *_cost_labels(axes)]


def _cost_labels(axes: _Axes) -> list[str]:
    labels = [usd(axes.cost_at(share)) for share in (0.0, 0.5, 1.0)]
    room = axes.width - len(labels[0]) - len(labels[2])
    middle = f"{labels[0]}{labels[1]:^{room}}{labels[2]}"
    scale = "cost, logarithmic" if axes.logarithmic else "cost"
    return [f"{'':10}{middle}", f"{'':10}{scale:>{axes.width}}"]


def _legend(marks: Sequence[Mark], current: Mark | None) -> list[str]:
    lines = ["  ·  the front"]
    if current:
        lines.append(f"  ◆  {_described(current, len(current.name))}")
    wide = max((len(mark.name) for mark in marks), default=0)
    lines += [
        f"  {letter}  {_described(mark, wide)}"
        for letter, mark in zip(LETTERS, marks, strict=False)
    ]
    return lines


def _described(mark: Mark, wide: int) -> str:
    return f"{mark.name:<{wide}}  {usd(mark.cost_usd)}, accuracy {mark.accuracy:.3f}"
