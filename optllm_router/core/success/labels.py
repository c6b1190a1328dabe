"""Labels as they come in, checked; and estimates as they go out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optllm_router.records import Floats, Ints


@dataclass(frozen=True, slots=True)
class SuccessEstimate:
    """Success probabilities and their standard errors, (n_queries, n_columns) each.

    `prob` is in [0, 1], and NaN for a column that has no label at all; `std` likewise.
    """

    prob: Floats
    std: Floats


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """Training rows' estimates without their own texts, before the columns' differences are shrunk.

    All (n_queries, n_columns). `prob` is not cut to [0, 1]; `std` is the standard error that the
    estimate would have if the text came again; `column_score` is what the columns score on other
    texts.
    """

    prob: Floats
    std: Floats
    column_score: Floats


def checked_scores(scores: Floats, n_queries: int) -> Floats:
    """Return the scores as floats. Raises: ValueError, naming the first cell that breaks a rule."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[0] != n_queries:
        raise ValueError(
            f"scores of shape {scores.shape} do not fit {n_queries} queries: "
            "pass (n_queries, n_columns)"
        )
    bad = np.argwhere((scores < 0) | (scores > 1))  # NaN compares false: not observed
    if bad.size:
        row, column = bad[0]
        raise ValueError(
            f"score {float(scores[row, column])!r} of query {row}, column {column} is outside "
            "[0, 1]: scale scores first; NaN means not observed"
        )
    if np.isnan(scores).all():
        raise ValueError("no score is observed: at least one label is needed to fit")
    return scores


def checked_tasks(tasks: Sequence[str] | None, n_queries: int) -> list[str]:
    """Return one task per query, "" for none. Raises: ValueError when the numbers differ."""
    if tasks is None:
        return [""] * n_queries
    if len(tasks) != n_queries:
        raise ValueError(f"{len(tasks)} tasks for {n_queries} queries: pass one task per query")
    return list(tasks)


def numbered(names: Sequence[str] | None, n: int) -> Ints:
    """Return numbers, (n,), that are equal for equal names; all different without names."""
    if names is None:
        return np.arange(n)
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)
