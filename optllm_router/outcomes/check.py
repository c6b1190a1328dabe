"""Judges an outcome file and builds its table: everything wrong is found, or everything is read.

One row per (query, model). Needed columns: `query`, `model`, `score`; optional: `query_id`,
`task`, `cost_usd`, `prompt_tokens`, `completion_tokens`, `answer`, `reference`. Without `query_id`
a query is its task and text. An empty `score` is an answer that nobody graded.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from optllm_router.core.policy.wording import usd_text
from optllm_router.errors import ConfigError
from optllm_router.outcomes.columns import (
    N_LISTED,
    Columns,
    as_numbers,
    as_texts,
    listed,
    read_columns,
)
from optllm_router.outcomes.table import OutcomeTable
from optllm_router.records import Bools, Floats, Ints

_NEEDED = ("query", "model", "score")
_OPTIONAL = (
    "query_id",
    "task",
    "cost_usd",
    "prompt_tokens",
    "completion_tokens",
    "answer",
    "reference",
)
_KNOWN = (*_NEEDED, *_OPTIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What a file of outcomes holds, and what is wrong with it.

    `problems` refuse the file, `remarks` do not. `n_missing` counts (query, model) pairs without a
    row, `n_ungraded` rows without a score. `mean_score` and `cost_usd` are per model: the mean of
    its scores and the sum of its known costs, None where no cost is known. `n_imported` counts rows
    written to a store.
    """

    path: str
    n_rows: int
    n_queries: int = 0
    n_models: int = 0
    n_tasks: int = 0
    n_missing: int = 0
    n_ungraded: int = 0
    n_imported: int = 0
    mean_score: dict[str, float] = field(default_factory=dict)
    cost_usd: dict[str, float | None] = field(default_factory=dict)
    unknown_columns: tuple[str, ...] = ()
    unknown_models: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON; lists for tuples."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @override
    def __str__(self) -> str:
        head = (
            f"{self.path}: {self.n_rows} rows, {self.n_queries} queries, {self.n_models} models, "
            f"{self.n_tasks} tasks, {self.n_missing} pairs missing, {self.n_ungraded} ungraded"
        )
        models = [
            f"  {name}: mean score {score:.4f}, cost {_usd(self.cost_usd[name])}"
            for name, score in self.mean_score.items()
        ]
        remarks = [f"  remark: {remark}" for remark in self.remarks]
        return "\n".join([head, *models, *remarks, *(f"  error: {text}" for text in self.problems)])


def read_outcomes(path: str | Path, *, candidates: Collection[str] = ()) -> OutcomeTable:
    """Read an outcome table from a parquet, CSV or JSONL file.

    Args:
        path: the file; parquet needs the extra `evaluate`.
        candidates: names of the configured candidates; at least one must be in the file. Empty:
            any models will do.

    Raises:
        ConfigError: the file cannot be read, or anything in it breaks a rule; all problems are
            named with the first rows where they stand, and nothing is read.
    """
    table, report = check_outcomes(path, candidates=candidates)
    if table is None:
        raise ConfigError("\n".join(f"'{path}': {text}" for text in report.problems))
    return table


def check_outcomes(
    path: str | Path, *, candidates: Collection[str] = ()
) -> tuple[OutcomeTable | None, ImportReport]:
    """Read an outcome file; return its table, None when it has problems, and a report.

    Arguments are those of `read_outcomes`.

    Raises:
        ConfigError: the file is missing, not of a known form, malformed, or without rows.
    """
    columns = read_columns(Path(path), _KNOWN)
    missing = [name for name in _NEEDED if name not in columns.names]
    if missing:
        problems = tuple(_missing_column(name, columns.names) for name in missing)
        return None, ImportReport(path=str(path), n_rows=columns.n_rows, problems=problems)
    rows = _Rows(columns)
    rows.check_values()
    rows.check_pairs()
    rows.check_candidates(candidates)
    return rows.table(), rows.report(str(path), candidates)


def _missing_column(name: str, names: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f": is it `{nearest[0]}`? Rename that column" if nearest else ""
    found = ", ".join(f"`{other}`" for other in names)
    return f"column `{name}` is missing{hint} (found {found}; needed are `query`, `model`, `score`)"


class _Rows:
    """The rows of one file while they are judged."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self.problems: list[str] = []
        self.n = columns.n_rows
        self.score, self.ungraded = self._numbers("score", high=1.0)
        self.cost, _ = self._numbers("cost_usd")
        self.prompt_tokens, _ = self._numbers("prompt_tokens", whole=True)
        self.completion_tokens, _ = self._numbers("completion_tokens", whole=True)
        self.query = self._texts("query", needed=True)
        self.model = self._texts("model", needed=True)
        self.task = self._texts("task", default="")
        self.answer = self._texts("answer")
        self.reference = self._texts("reference")
        self.codes, self.query_ids = self._queries()
        self.places, self.models = _number_by_appearance(self.model)

    def check_values(self) -> None:
        """Add a problem when no row is graded at all."""
        if self.ungraded.all():
            self.problems.append("no row has a `score`: there is nothing to learn from")

    def check_pairs(self) -> None:
        """Find pairs given twice, and queries whose rows contradict each other."""
        pairs = self.codes * len(self.models) + self.places
        _, first = np.unique(pairs, return_index=True)
        repeated = np.ones(self.n, bool)
        repeated[first] = False
        self._add("the same query and model stand in an earlier row; keep one of them", repeated)
        for name, cells in (("query", self.query), ("task", self.task)):
            differs = cells != _first_of(cells, self.codes)[self.codes]
            self._add(f"another `{name}` than in an earlier row of the same `query_id`", differs)
        references = _first_of(self.reference, self.codes)[self.codes]
        differs = _known(self.reference) & (self.reference != references)
        self._add("another `reference` than in an earlier row of the same query", differs)

    def check_candidates(self, candidates: Collection[str]) -> None:
        """Add a problem when no model of the file is a candidate."""
        if candidates and not set(self.models) & set(candidates):
            self.problems.append(
                f"none of its models ({', '.join(self.models)}) is a candidate "
                f"({', '.join(candidates)}): rename them in the file, or set each candidate's "
                "`name` to the model's name in the file"
            )

    def table(self) -> OutcomeTable | None:
        """Return the dense table, None when there are problems."""
        if self.problems:
            return None
        has_answers = "answer" in self._columns.cells
        return OutcomeTable(
            query_ids=self.query_ids,
            tasks=_first_of(self.task, self.codes).tolist(),
            queries=_first_of(self.query, self.codes).tolist(),
            models=self.models,
            score=self._spread(self.score, np.nan),
            cost_usd=self._spread(self.cost, np.nan),
            prompt_tokens=self._spread_tokens(self.prompt_tokens),
            completion_tokens=self._spread_tokens(self.completion_tokens),
            answers=self._spread(self.answer, None) if has_answers else None,
            references=_first_of(self.reference, self.codes).tolist(),
        )

    def report(self, path: str, candidates: Collection[str]) -> ImportReport:
        """Return what there is to say about the file."""
        unknown_models = tuple(m for m in self.models if candidates and m not in candidates)
        unknown_columns = tuple(name for name in self._columns.names if name not in _KNOWN)
        remarks = []
        if unknown_columns:
            remarks.append(f"columns that are not read: {', '.join(unknown_columns)}")
        if unknown_models:
            remarks.append(f"models that are no candidates: {', '.join(unknown_models)}")
        scores, costs = self._sum_per_model(self.score), self._sum_per_model(self.cost)
        graded = np.bincount(self.places[~self.ungraded], minlength=len(self.models))
        return ImportReport(
            path=path,
            n_rows=self.n,
            n_queries=len(self.query_ids),
            n_models=len(self.models),
            n_tasks=len(set(self.task)),
            n_missing=max(0, len(self.query_ids) * len(self.models) - self.n),
            n_ungraded=int(self.ungraded.sum()),
            mean_score={
                name: float(scores[at] / graded[at])
                for at, name in enumerate(self.models)
                if graded[at]
            },
            cost_usd={
                name: None if np.isnan(costs[at]) else float(costs[at])
                for at, name in enumerate(self.models)
            },
            unknown_columns=unknown_columns,
            unknown_models=unknown_models,
            remarks=tuple(remarks),
            problems=tuple(self.problems),
        )

    def _numbers(
        self, name: str, *, high: float = np.inf, whole: bool = False
    ) -> tuple[Floats, Bools]:
        """Read a column of numbers from 0 to `high`; add a problem for the rows that break it."""
        cells = self._columns.cells.get(name)
        if cells is None:
            return np.full(self.n, np.nan), np.ones(self.n, bool)
        values, empty, wrong = as_numbers(cells)
        wrong = ~empty & (wrong | (values < 0) | (values > high))
        if whole:
            wrong |= ~empty & (values % 1 != 0)
        rule = "a whole number" if whole else "a number"
        until = "of at least 0" if high == np.inf else f"from 0 to {high:g}"
        self._add(f"`{name}` must be {rule} {until}, or empty where unknown", wrong, cells)
        return values, empty

    def _texts(
        self, name: str, *, needed: bool = False, default: str | None = None
    ) -> NDArray[np.object_]:
        cells = self._columns.cells.get(name)
        if cells is None:
            return np.full(self.n, default, dtype=object)
        texts, wrong = as_texts(cells)
        absent = ~_known(texts)
        self._add(f"`{name}` must be a text", wrong | absent if needed else wrong, cells)
        texts[absent] = default
        return texts

    def _queries(self) -> tuple[Ints, list[str]]:
        """Return each row's query index and the queries' ids."""
        if "query_id" in self._columns.cells:
            return _number_by_appearance(self._texts("query_id", needed=True))
        keys = np.empty(self.n, dtype=object)
        keys[:] = list(zip(self.task, self.query, strict=True))
        codes, distinct = _number_by_appearance(keys)
        return codes, [str(number) for number in range(1, len(distinct) + 1)]

    def _add(self, rule: str, wrong: Bools, cells: NDArray[Any] | None = None) -> None:
        """Add a problem that names the first rows that break a rule, with what stands there."""
        rows = np.flatnonzero(wrong)
        if not rows.size:
            return
        places = listed(self._columns.at[rows].tolist(), self._columns.unit)
        values = "" if cells is None else f" ({_some(cells[rows])})"
        self.problems.append(f"{rule}: {len(rows)} of {self.n} rows break this, {places}{values}")

    def _spread(self, values: NDArray[Any], unknown: float | None) -> NDArray[Any]:
        """Lay a column out over (query, model)."""
        shape = (len(self.query_ids), len(self.models))
        dense = np.full(shape, unknown, dtype=values.dtype)
        dense[self.codes, self.places] = values
        return dense

    def _spread_tokens(self, values: Floats) -> Ints:
        dense = self._spread(values, np.nan)
        return np.where(np.isnan(dense), -1.0, dense).astype(np.int64)

    def _sum_per_model(self, values: Floats) -> Floats:
        known = np.isfinite(values)
        counts = np.bincount(self.places[known], minlength=len(self.models))
        sums = np.bincount(self.places[known], weights=values[known], minlength=len(self.models))
        return np.where(counts > 0, sums, np.nan)


def _number_by_appearance(cells: NDArray[np.object_]) -> tuple[Ints, list[Any]]:
    """Return the index of each cell's value and the distinct values, in order of appearance."""
    numbers: dict[Any, int] = {}
    codes = [numbers.setdefault(cell, len(numbers)) for cell in cells]
    return np.array(codes, dtype=np.int64), list(numbers)


def _known(cells: NDArray[np.object_]) -> Bools:
    return np.fromiter((cell is not None for cell in cells), bool, len(cells))


def _first_of(cells: NDArray[np.object_], codes: Ints) -> NDArray[np.object_]:
    """Return the first known cell of each query, None where there is none."""
    first = np.full(int(codes.max()) + 1, None, dtype=object)
    known = np.flatnonzero(_known(cells))[::-1]  # the earliest is written last
    first[codes[known]] = cells[known]
    return first


def _some(values: NDArray[Any]) -> str:
    shown = ", ".join(repr(value)[:40] for value in values[:N_LISTED].tolist())
    return f"{shown}, ..." if len(values) > N_LISTED else shown


def _usd(amount: float | None) -> str:
    """Write a sum of costs: cents from a dollar on, else three significant digits."""
    if amount is None:
        return "unknown"
    rounded = round(amount, 2) if amount >= 1 else float(f"{amount:.3g}")
    return f"{usd_text(rounded)} USD"
