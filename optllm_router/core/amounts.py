"""A forecast of amounts: how many output tokens a column writes, or what it bills by a table.

The mean per column, from the prompt's length and the task (`levels`); and quantiles, by how far
observed amounts lay from what the other rows forecast for them.
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

from optllm_router.core.levels import chosen_levels
from optllm_router.records import Floats, Ints

DEFAULT_OUTPUT_TOKENS = 256.0
MAX_TASKS = 256
RATIO_STRENGTH = 20.0
RATIO_SHARES = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class AmountForecast:
    """A non-negative amount per column (output tokens, or USD) from prompt length and task.

    `level` and `slope` are (n_columns,), `task_offset` is (n_tasks, n_columns) for the most
    frequent tasks, `floor` the least that is ever forecast, `n_observed` the observations per
    column. `ratio` is (n_shares, n_columns): the quantiles of amount over forecast at evenly spaced
    shares from 0 to 1.
    """

    level: Floats
    slope: Floats
    task_offset: Floats
    floor: Floats
    mean_tokens: float
    tasks: tuple[str, ...]
    n_observed: Ints
    ratio: Floats

    @classmethod
    def fit(cls, amounts: Floats, prompt_tokens: Floats, tasks: Sequence[str]) -> Self:
        """Fit on amounts (n_rows, n_columns), NaN = not observed; any column may be empty.

        Level, slope in the centred prompt length and task offsets are those of `chosen_levels`.
        Ratios are those of amounts to forecasts made without them; a column's are joined by the
        other columns', which together weigh as much as `RATIO_STRENGTH` of its own at most.
        """
        counts = Counter(task for task in tasks if task)
        names = tuple(sorted(counts, key=lambda task: (-counts[task], task))[:MAX_TASKS])
        position = {name: i for i, name in enumerate(names)}
        number = np.array([position.get(task, len(names)) for task in tasks], dtype=np.int64)
        mean_tokens = float(np.mean(prompt_tokens)) if len(prompt_tokens) else 0.0
        centred = np.asarray(prompt_tokens, dtype=np.float64) - mean_tokens
        levels = chosen_levels(amounts, centred, number, len(names))
        floor = 0.1 * np.array([_mean(column) for column in amounts.T])
        return cls(
            level=levels.level,
            slope=levels.slope,
            task_offset=levels.task_offset,
            floor=floor,
            mean_tokens=mean_tokens,
            tasks=names,
            n_observed=(~np.isnan(amounts)).sum(axis=0),
            ratio=_ratios(amounts, np.maximum(levels.left_out, floor)),
        )

    def predict(self, prompt_tokens: Floats, tasks: Sequence[str]) -> Floats:
        """Forecast amounts, shape (n_queries, n_columns); a never observed column is NaN."""
        levels = self._levels.take(self.task_numbers(tasks), axis=0)
        centred = np.asarray(prompt_tokens, dtype=np.float64) - self.mean_tokens
        return np.maximum(levels + centred[:, None] * self.slope, self.floor)

    def quantile(self, prompt_tokens: Floats, tasks: Sequence[str], share: float) -> Floats:
        """Return what a `share` of amounts stays below, shape (n_queries, n_columns).

        The mean forecast times the column's ratio at that share: never negative, ascending in
        `share`, NaN for a never observed column. Of n ratios the k-th is taken for the share
        k / (n + 1), as split conformal prediction does, and no quantile lies beyond the extreme
        ratios. Where no ratio is known, it is the mean forecast: with a single observed amount, and
        for a forecast that was stored before ratios were.

        Raises: ValueError for a share outside of 0 to 1.
        """
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"`share={share!r}` is no share of amounts: give 0.0 to 1.0")
        return self.predict(prompt_tokens, tasks) * self._ratio_at(share)

    def _ratio_at(self, share: float) -> Floats:
        place = share * (len(self.ratio) - 1)
        lower = min(int(place), len(self.ratio) - 2)
        low, high = self.ratio[lower], self.ratio[lower + 1]
        between: Floats = np.minimum(low + (place - lower) * (high - low), high)
        return between

    def task_numbers(self, tasks: Sequence[str]) -> list[int]:
        """Return where every task stands in `tasks`; for another one, how many there are."""
        position, none = self._position, len(self.tasks)
        return [position.get(task, none) for task in tasks]

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
            f"{prefix}_ratio": self.ratio,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]], prefix: str) -> Self:
        """Rebuild a forecast from `to_arrays`; one without ratios gives its mean as any quantile.

        Raises: KeyError for other arrays that are missing, ValueError for ratios of other columns.
        """
        floats = {
            name: np.asarray(arrays[f"{prefix}_{name}"], dtype=np.float64)
            for name in ("level", "slope", "task_offset", "floor")
        }
        shape = (RATIO_SHARES.size, floats["level"].size)
        ratio = np.asarray(arrays.get(f"{prefix}_ratio", np.ones(shape)), dtype=np.float64)
        if ratio.ndim != 2 or len(ratio) < 2 or ratio.shape[1] != shape[1]:
            raise ValueError(
                f"the predictor's {prefix}_ratio does not fit its {shape[1]} columns: refit"
            )
        return cls(
            **floats,
            mean_tokens=float(arrays[f"{prefix}_mean_tokens"]),
            tasks=tuple(json.loads(arrays[f"{prefix}_tasks"].tobytes())),
            n_observed=np.asarray(arrays[f"{prefix}_n_observed"], dtype=np.int64),
            ratio=ratio,
        )


def _mean(column: Floats) -> float:
    observed = column[~np.isnan(column)]
    return float(observed.mean()) if observed.size else 0.0


def _ratios(amounts: Floats, left_out: Floats) -> Floats:
    """Every column's quantiles of amount over left-out forecast, 1 without any."""
    ratio = np.divide(amounts, left_out, out=np.full(amounts.shape, np.nan), where=left_out > 0.0)
    _, column = np.nonzero(~np.isnan(ratio))
    known = ratio[~np.isnan(ratio)]
    order = np.argsort(known, kind="stable")
    known, column = known[order], column[order]
    result = np.empty((RATIO_SHARES.size, ratio.shape[1]))
    for j in range(ratio.shape[1]):
        own = column == j
        others = min(RATIO_STRENGTH / max(int((~own).sum()), 1), 1.0)
        result[:, j] = ratio_quantiles(known, np.where(own, 1.0, others))
    return result


def ratio_quantiles(ratio: Floats, weight: Floats) -> Floats:
    """Return quantiles of ascending ratios at `RATIO_SHARES`, 1 without any.

    The ratio that is to come has a weight of 1 (weighted conformal prediction: Tibshirani et al.,
    NeurIPS 2019): the k-th of n ratios of that weight is at k / (n + 1).
    """
    if not ratio.size:
        return np.ones(RATIO_SHARES.size)
    return np.interp(RATIO_SHARES, np.cumsum(weight) / (weight.sum() + 1.0), ratio)


def filled_output(output_tokens: Floats) -> Floats:
    """Fill unknown forecasts (NaN), shape (n_queries, n_candidates).

    The mean of the query's other candidates stands in, 256 tokens where nothing is known.
    """
    known = ~np.isnan(output_tokens)
    if known.all():
        return output_tokens
    n_known = known.sum(axis=1)
    total = np.where(known, output_tokens, 0.0).sum(axis=1)
    stand_in = np.where(n_known > 0, total / np.maximum(n_known, 1), DEFAULT_OUTPUT_TOKENS)
    return np.where(known, output_tokens, stand_in[:, None])
