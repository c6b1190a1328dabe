"""A forecast of amounts: how many output tokens a column writes, or what it bills by a table.

Per column: level and slope in the prompt's length, and a level per task, each shrunk while its
observations are few.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.records import Floats, Ints

DEFAULT_OUTPUT_TOKENS = 256.0
MAX_TASKS = 256
TASK_STRENGTH = 10.0
SLOPE_STRENGTH = 10.0


@dataclass(frozen=True)
class AmountForecast:
    """A non-negative amount per column (output tokens, or USD) from prompt length and task.

    `level` and `slope` are (n_columns,), `task_offset` is (n_tasks, n_columns) for the most
    frequent tasks, `floor` the least that is ever forecast, `n_observed` the observations per
    column.
    """

    level: Floats
    slope: Floats
    task_offset: Floats
    floor: Floats
    mean_tokens: float
    tasks: tuple[str, ...]
    n_observed: Ints

    @classmethod
    def fit(cls, amounts: Floats, prompt_tokens: Floats, tasks: Sequence[str]) -> Self:
        """Fit on amounts (n_rows, n_columns), NaN = not observed; any column may be empty.

        Level and slope are a ridge on the centred prompt length, the slope pulled to 0 with the
        weight of `SLOPE_STRENGTH` average rows; task offsets are shrunk means of what is left.
        """
        counts = Counter(task for task in tasks if task)
        names = tuple(sorted(counts, key=lambda task: (-counts[task], task))[:MAX_TASKS])
        mean_tokens = float(np.mean(prompt_tokens)) if len(prompt_tokens) else 0.0
        centred = np.asarray(prompt_tokens, dtype=np.float64) - mean_tokens
        observed = ~np.isnan(amounts)
        level, slope = _levels_and_slopes(amounts, centred)
        offsets = _task_offsets(amounts - level - centred[:, None] * slope, tasks, names)
        floor = 0.1 * np.array([_mean(column) for column in amounts.T])
        return cls(level, slope, offsets, floor, mean_tokens, names, observed.sum(axis=0))

    def predict(self, prompt_tokens: Floats, tasks: Sequence[str]) -> Floats:
        """Forecast amounts, shape (n_queries, n_columns); a never observed column is NaN."""
        position, none = self._position, len(self.tasks)
        levels = self._levels[[position.get(task, none) for task in tasks]]
        centred = np.asarray(prompt_tokens, dtype=np.float64) - self.mean_tokens
        return np.maximum(levels + centred[:, None] * self.slope, self.floor)

    @cached_property
    def _position(self) -> Mapping[str, int]:
        return {task: i for i, task in enumerate(self.tasks)}

    @cached_property
    def _levels(self) -> Floats:
        """Every task's level per column, the last one without a task; NaN where never observed."""
        levels = self.level + np.vstack([self.task_offset, np.zeros(self.level.size)])
        return np.where(self.n_observed > 0, levels, np.nan)

    def to_arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """Return plain arrays for an npz file."""
        return {
            f"{prefix}_level": self.level,
            f"{prefix}_slope": self.slope,
            f"{prefix}_task_offset": self.task_offset,
            f"{prefix}_floor": self.floor,
            f"{prefix}_mean_tokens": np.array(self.mean_tokens),
            f"{prefix}_tasks": np.frombuffer(json.dumps(self.tasks).encode(), dtype=np.uint8),
            f"{prefix}_n_observed": self.n_observed,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]], prefix: str) -> Self:
        """Rebuild a forecast from `to_arrays`."""
        floats = {
            name: np.asarray(arrays[f"{prefix}_{name}"], dtype=np.float64)
            for name in ("level", "slope", "task_offset", "floor")
        }
        return cls(
            **floats,
            mean_tokens=float(arrays[f"{prefix}_mean_tokens"]),
            tasks=tuple(json.loads(arrays[f"{prefix}_tasks"].tobytes())),
            n_observed=np.asarray(arrays[f"{prefix}_n_observed"], dtype=np.int64),
        )


def _mean(column: Floats) -> float:
    observed = column[~np.isnan(column)]
    return float(observed.mean()) if observed.size else 0.0


def _levels_and_slopes(amounts: Floats, centred: Floats) -> tuple[Floats, Floats]:
    """Per column: least squares on (1, centred tokens), the slope ridged towards 0."""
    n_columns = amounts.shape[1]
    level, slope = np.zeros(n_columns), np.zeros(n_columns)
    spread = float(np.mean(centred**2)) if centred.size else 0.0
    for j in range(n_columns):
        rows = ~np.isnan(amounts[:, j])
        if not rows.any():
            continue
        x, y = centred[rows], amounts[rows, j]
        x_mean, y_mean = x.mean(), y.mean()
        variance = ((x - x_mean) ** 2).sum() + SLOPE_STRENGTH * spread
        slope[j] = ((x - x_mean) * (y - y_mean)).sum() / variance if variance > 0 else 0.0
        level[j] = y_mean - slope[j] * x_mean
    return level, slope


def _task_offsets(residual: Floats, tasks: Sequence[str], names: tuple[str, ...]) -> Floats:
    """Mean residual per task and column, shrunk to 0 with the weight of `TASK_STRENGTH` rows."""
    position = {name: i for i, name in enumerate(names)}
    number = np.array([position.get(task, len(names)) for task in tasks], dtype=np.int64)
    offsets = np.zeros((len(names), residual.shape[1]))
    for j, column in enumerate(residual.T):
        seen = ~np.isnan(column) & (number < len(names))
        n = np.bincount(number[seen], minlength=len(names))
        total = np.bincount(number[seen], weights=column[seen], minlength=len(names))
        offsets[:, j] = total / (n + TASK_STRENGTH)
    return offsets


def filled_output(output_tokens: Floats) -> Floats:
    """Fill unknown forecasts (NaN), shape (n_queries, n_candidates).

    The mean of the query's other candidates stands in, 256 tokens where nothing is known.
    """
    known = ~np.isnan(output_tokens)
    n_known = known.sum(axis=1)
    total = np.where(known, output_tokens, 0.0).sum(axis=1)
    stand_in = np.where(n_known > 0, total / np.maximum(n_known, 1), DEFAULT_OUTPUT_TOKENS)
    return np.where(known, output_tokens, stand_in[:, None])
