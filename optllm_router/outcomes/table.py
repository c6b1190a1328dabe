"""An outcome table in memory: one row per query, one column per model, dense arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optllm_router.errors import ConfigError
from optllm_router.records import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutcomeTable:
    """What each of m models answered to each of n queries, how well, and at what cost.

    `query_ids`, `tasks`, `queries` and `references` have length n, in the file's order of first
    appearance; `models` has length m, likewise. `score` in [0, 1] and `cost_usd` have shape
    (n, m), NaN where nothing was observed or the value is unknown; `prompt_tokens` and
    `completion_tokens` have shape (n, m), -1 where unknown; `answers` is an object array of shape
    (n, m) with None where unknown, or None when the file has no answers.
    """

    query_ids: list[str]
    tasks: list[str]
    queries: list[str]
    models: list[str]
    score: Floats
    cost_usd: Floats
    prompt_tokens: Ints
    completion_tokens: Ints
    answers: NDArray[np.object_] | None
    references: list[str | None]

    @property
    def n_queries(self) -> int:
        """How many queries the table has."""
        return len(self.query_ids)

    @property
    def n_models(self) -> int:
        """How many models the table has."""
        return len(self.models)


def select(table: OutcomeTable, rows: Ints) -> OutcomeTable:
    """Return the table of these queries, in this order.

    Args:
        table: the table, unchanged.
        rows: indices of queries, shape (k,); may be empty.
    """
    at = [int(row) for row in rows]
    parts: dict[str, Any] = {
        name: [getattr(table, name)[row] for row in at]
        for name in ("query_ids", "tasks", "queries", "references")
    }
    for name in ("score", "cost_usd", "prompt_tokens", "completion_tokens"):
        parts[name] = getattr(table, name)[at]
    answers = None if table.answers is None else table.answers[at]
    return replace(table, answers=answers, **parts)


def sample(table: OutcomeTable, n: int, rng: np.random.Generator) -> OutcomeTable:
    """Return n queries drawn without replacement, in the order of the draw.

    The draw is a prefix of one permutation: a larger n adds queries to the same ones. An n above
    the table's size gives all queries.

    Raises:
        ConfigError: n is below 1.
    """
    if n < 1:
        raise ConfigError(f"`n` = {n}: a sample needs at least one query; use 1 or more")
    return select(table, rng.permutation(table.n_queries)[:n])
