"""What amounts are made of: per column a level, a slope in the prompt's length, an offset per task.

The three are one ridge (tasks as random effects: Robinson, Statistical Science 6(1), 1991). How
strongly slopes and offsets are pulled to 0 is told by how well the rows are forecast, each left out
in turn, with one pair of strengths for all columns: a column with few rows cannot tell by itself.

A long or hard query is often dear for every column. Then that is fitted first and to all of them at
once, so that it is known from a few rows; a column's own slope and offsets are what it leaves, and
few rows leave little. Only they change the columns' order, and an order by chance costs money:
whoever looks for the cheapest column finds the forecast that is too low.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from optllm_router.records import Bools, Floats, Ints

TASK_STRENGTHS = (100.0, 30.0, 10.0, 3.0)
SLOPE_STRENGTHS = (30.0, 10.0, 3.0)
TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Levels:
    """What was fitted, and what it says of its own rows.

    `level` and `slope` are (n_columns,), `task_offset` is (n_tasks, n_columns). `left_out`
    (n_rows, n_columns) forecasts every observed amount from the others of its column; NaN where
    nothing was observed, and where there is no other.
    """

    level: Floats
    slope: Floats
    task_offset: Floats
    left_out: Floats


def chosen_levels(amounts: Floats, tokens: Floats, task: Ints, n_tasks: int) -> Levels:
    """Fit with what columns share (`fit_shared_levels`), or without where that is clearly better.

    Better is a squared error of left-out rows, each relative to its column's mean, that is lower by
    more than 1 %. The arguments are those of `fit_levels`.
    """
    shared = fit_shared_levels(amounts, tokens, task, n_tasks)
    apart = fit_levels(amounts, tokens, task, n_tasks)
    scale = _column_means(amounts)
    errors = [np.nansum(((amounts - fit.left_out) / scale) ** 2) for fit in (shared, apart)]
    return apart if errors[1] * (1.0 + TOLERANCE) < errors[0] else shared


def fit_shared_levels(amounts: Floats, tokens: Floats, task: Ints, n_tasks: int) -> Levels:
    """Fit what all columns have in common, then every column to what that leaves of it.

    In common they have the slope and the offsets of a row's mean amount, each amount relative to
    its column's mean. A row's own part of that is left out before the columns are fitted; the level
    is taken for a mean there, so that `left_out` is not quite free of the row's own amounts (by
    less than a hundredth of a change in one row of 100).

    The arguments are those of `fit_levels`, which fits a column that stands alone. A column without
    a row gets zeros.
    """
    if amounts.shape[1] < 2:
        return fit_levels(amounts, tokens, task, n_tasks)
    scale = _column_means(amounts)
    relative = amounts / scale
    mean = _row_means(relative)
    shared = fit_levels(mean, tokens, task, n_tasks)
    n_rows = max(int((~np.isnan(mean)).sum()), 1)
    level_without = shared.level - (mean - shared.left_out) / n_rows
    dearer = np.nan_to_num(shared.left_out - level_without)
    own = fit_levels(relative - dearer, tokens, task, n_tasks)
    unit = np.where(np.isnan(amounts).all(axis=0), 0.0, scale)
    return Levels(
        level=own.level * unit,
        slope=(own.slope + shared.slope) * unit,
        task_offset=(own.task_offset + shared.task_offset) * unit,
        left_out=(own.left_out + dearer) * scale,
    )


def fit_levels(amounts: Floats, tokens: Floats, task: Ints, n_tasks: int) -> Levels:
    """Fit every column on its observed rows.

    Strengths count rows: a task's offset is pulled to 0 with the weight of so many rows, the slope
    with that of so many rows of average distance from the centre. Of those whose squared error is
    within 1 % of the least the strongest are taken, the slope's first (in the spirit of the one
    standard error rule: Breiman et al., Classification and Regression Trees, 1984). Whoever looks
    for cheap columns finds the forecasts that are too low, and a slope says most about lengths that
    were never seen. A column without a row gets zeros.

    Args:
        amounts: (n_rows, n_columns), NaN = not observed.
        tokens: (n_rows,), prompt lengths, centred.
        task: (n_rows,), every row's task from 0 on; `n_tasks` for none, which has no offset.
        n_tasks: how many tasks there are.
    """
    scale = _column_means(amounts)
    spread = float(np.sqrt(np.mean(tokens**2))) if tokens.any() else 1.0
    relative, length = amounts / scale, tokens / spread
    fits = [
        _fitted(relative, length, task, (n_tasks, task_strength, slope_strength))
        for slope_strength, task_strength in product(SLOPE_STRENGTHS, TASK_STRENGTHS)
    ]
    errors = np.array([np.nansum((relative - fit.left_out) ** 2) for fit in fits])
    best = fits[int(np.argmax(errors <= errors.min() * (1.0 + TOLERANCE)))]
    return Levels(
        level=best.level * scale,
        slope=best.slope * scale / spread,
        task_offset=best.task_offset * scale,
        left_out=best.left_out * scale,
    )


def _column_means(amounts: Floats) -> Floats:
    """Every column's mean, 1 where that is 0 or unknown."""
    observed = ~np.isnan(amounts)
    total = np.where(observed, amounts, 0.0).sum(axis=0)
    mean = total / np.maximum(observed.sum(axis=0), 1)
    return np.where(mean > 0.0, mean, 1.0)


def _row_means(amounts: Floats) -> Floats:
    """Every row's mean of what is observed, (n_rows, 1), NaN where nothing is."""
    n = (~np.isnan(amounts)).sum(axis=1, keepdims=True)
    total = np.nansum(amounts, axis=1, keepdims=True)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _fitted(
    amounts: Floats, tokens: Floats, task: Ints, settings: tuple[int, float, float]
) -> Levels:
    """Fit every column with the same number of tasks and strengths of task and slope."""
    n_tasks, n_columns = settings[0], amounts.shape[1]
    coefficients, offsets = np.zeros((2, n_columns)), np.zeros((n_tasks, n_columns))
    left_out = np.full(amounts.shape, np.nan)
    for j, rows in enumerate(~np.isnan(amounts.T)):
        if rows.any():
            coefficients[:, j], offsets[:, j], left_out[rows, j] = _fitted_column(
                amounts[rows, j], tokens[rows], task[rows], settings
            )
    return Levels(coefficients[0], coefficients[1], offsets, left_out)


def _fitted_column(
    amount: Floats, tokens: Floats, task: Ints, settings: tuple[int, float, float]
) -> tuple[Floats, Floats, Floats]:
    """Level and slope, (2,); offsets, (n_tasks,); and every row's left-out forecast, (n_rows,).

    The offsets are eliminated from the normal equations, which leaves two. A row's residual without
    it is its residual over 1 - leverage (Allen, Technometrics 16(1), 1974).
    """
    n_tasks, task_strength, slope_strength = settings
    design = np.column_stack([np.ones(amount.size), tokens])
    n, length, total = (
        np.bincount(task, weights=each, minlength=n_tasks + 1) for each in (*design.T, amount)
    )
    weight = 1.0 / (n + task_strength)
    weight[n_tasks] = 0.0
    sums = np.column_stack([n, length])
    shrunk = sums * weight[:, None]
    gram = design.T @ design - sums.T @ shrunk + np.diag([0.0, slope_strength])
    inverse = np.linalg.inv(gram)
    coefficients = inverse @ (design.T @ amount - shrunk.T @ total)
    offsets = (total - sums @ coefficients) * weight
    residual = amount - design @ coefficients - offsets[task]
    apart = design - shrunk[task]
    leverage = weight[task] + ((apart @ inverse) * apart).sum(axis=1)
    return coefficients, offsets[:n_tasks], _left_out(amount, residual, leverage)


def _left_out(amount: Floats, residual: Floats, leverage: Floats) -> Floats:
    own: Bools = leverage > 1.0 - 1e-9  # the only row of its column: there is nothing without it
    return np.where(own, np.nan, amount - residual / np.where(own, 1.0, 1.0 - leverage))
