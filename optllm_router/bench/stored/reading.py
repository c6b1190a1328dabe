"""The log, page by page, into a few numbers per decision: never all its records at once.

A decision keeps about 70 bytes here, a text key once its characters; a page of records is dropped
before the next one is read.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from optllm_router.bench.stored.records import GroupKind
from optllm_router.records import Attempt, Bools, Decision, Floats, Ints, Outcome
from optllm_router.store.base import LoggedDecision, Store

PAGE = 1_000
NONE = -1
"""Stands for no candidate, and for an unknown amount of nano-USD."""
UNFINISHED, ANSWERED, FAILED = 0, 1, 2
_TICK = timedelta(microseconds=1)  # what stores resolve
_COLUMNS = {
    "text": "q",
    "served": "q",
    "chosen": "q",
    "score": "d",
    "cost_nusd": "q",
    "state": "q",
    "propensity": "d",
    "expected_score": "d",
    "expected_nusd": "q",
    "is_measured": "b",
}


@dataclass(slots=True, kw_only=True)
class Money:
    """Exact sums over attempts, in nano-USD, and how many attempts they are from."""

    n_attempts: int = 0
    cost_nusd: int = 0
    n_estimated: int = 0
    estimated_nusd: int = 0
    n_unpriced: int = 0

    def add(self, attempt: Attempt) -> None:
        """Count one attempt."""
        self.n_attempts += 1
        if attempt.cost_nusd is None:
            self.n_unpriced += 1
            return
        self.cost_nusd += attempt.cost_nusd
        if attempt.estimated:
            self.n_estimated += 1
            self.estimated_nusd += attempt.cost_nusd


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """One group's decisions, newest first, each array (n_decisions,).

    `text` numbers distinct texts from 0; a decision without a text key has a negative number of its
    own. `served` and `chosen` number candidates. `score` and what was expected are NaN, costs -1,
    where unknown; `cost_nusd` also where one attempt is unpriced. What was expected is there only
    where it was expected of who served. `is_measured`: every attempt's cost was reported by its
    provider, none came from a cache.
    """

    kind: GroupKind
    batch_id: str | None
    policies: Counter[str]
    first_at: datetime
    last_at: datetime
    money: Money
    text: Ints
    served: Ints
    chosen: Ints
    score: Floats
    cost_nusd: Ints
    state: Ints
    propensity: Floats
    expected_score: Floats
    expected_nusd: Ints
    is_measured: Bools

    @property
    def is_graded(self) -> Bools:
        """Which decisions have a score."""
        graded: Bools = ~np.isnan(self.score)
        return graded

    @property
    def n(self) -> int:
        """How many decisions."""
        return self.text.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A whole log; candidates are named in the order of their numbers."""

    groups: tuple[Rows, ...]
    candidates: tuple[str, ...]


def read_log(
    store: Store, *, page: int = PAGE, advance: Callable[[int], None] | None = None
) -> Log:
    """Read the whole log.

    Args:
        store: the log.
        page: how many decisions to ask for at once.
        advance: told after every page how many decisions were read since the last time.
    """
    reader = _Reader()
    for some in pages(store, page):
        for logged in some:
            reader.add(logged)
        if advance is not None:
            advance(len(some))
    return reader.log()


def pages(store: Store, page: int = PAGE) -> Iterator[list[LoggedDecision]]:
    """Yield the log in pages, newest first, every decision once.

    The store pages by time alone, so that decisions of the oldest moment on a full page may go on
    behind it: they are left to the next page. A full page of one moment (an import writes all of
    its rows with one) is asked for again, twice as long.
    """
    before: datetime | None = None
    limit = page
    while True:
        found = store.decisions(limit=limit, before=before)
        if len(found) < limit:
            yield found
            return
        oldest = found[-1].decision.created_at
        whole = [one for one in found if one.decision.created_at > oldest]
        if not whole:
            limit *= 2
            continue
        yield whole
        before, limit = oldest + _TICK, page


def counted_score(outcomes: tuple[Outcome, ...]) -> float | None:
    """Return the score that counts, as the store has it: feedback wins, then the newest."""
    ranked = sorted(outcomes, key=lambda one: one.source)
    ranked.sort(key=lambda one: (one.source == "feedback", one.created_at), reverse=True)
    return ranked[0].score if ranked else None


@dataclass(slots=True)
class _Gathering:
    """One group while it is read."""

    last_at: datetime
    first_at: datetime
    policies: Counter[str] = field(default_factory=Counter)
    money: Money = field(default_factory=Money)
    columns: dict[str, array[float]] = field(
        default_factory=lambda: {name: array(code) for name, code in _COLUMNS.items()}
    )


class _Reader:
    def __init__(self) -> None:
        self._groups: dict[tuple[GroupKind, str], _Gathering] = {}
        self._texts: dict[str, int] = {}
        self._candidates: dict[str, int] = {}
        self._n_textless = 0

    def add(self, logged: LoggedDecision) -> None:
        decision, at = logged.decision, logged.decision.created_at
        group = self._groups.setdefault(_group_of(decision), _Gathering(at, at))
        group.first_at = min(group.first_at, at)
        group.last_at = max(group.last_at, at)
        group.policies[decision.policy] += 1
        for attempt in logged.attempts:
            group.money.add(attempt)
            self._number(attempt.candidate)
        for name in decision.allowed:
            self._number(name)
        for name, value in self._values(logged).items():
            group.columns[name].append(value)

    def log(self) -> Log:
        groups = [_rows(key, group) for key, group in self._groups.items()]
        groups.sort(key=lambda rows: (rows.kind == "batch", rows.last_at), reverse=True)
        return Log(groups=tuple(groups), candidates=tuple(self._candidates))

    def _values(self, logged: LoggedDecision) -> dict[str, float]:
        decision, score = logged.decision, counted_score(logged.outcomes)
        served = NONE if decision.served is None else self._number(decision.served)
        chosen = self._number(decision.chosen)
        # A shadow's expectation is of who would have been asked, not of who was.
        is_expected = decision.kind != "shadow" or served == chosen
        expected = decision.expected_cost_nusd if is_expected else None
        return {
            "text": self._text(decision.text_key),
            "served": served,
            "chosen": chosen,
            "score": _or_nan(score),
            "cost_nusd": _cost(logged.attempts),
            "state": _state(logged.attempts),
            "propensity": _or_nan(decision.propensity),
            "expected_score": _or_nan(decision.expected_accuracy if is_expected else None),
            "expected_nusd": NONE if expected is None else expected,
            "is_measured": not any(one.estimated or one.cache_hit for one in logged.attempts),
        }

    def _number(self, candidate: str) -> int:
        return self._candidates.setdefault(candidate, len(self._candidates))

    def _text(self, text_key: str | None) -> int:
        if text_key is None:
            self._n_textless += 1
            return -self._n_textless
        return self._texts.setdefault(text_key, len(self._texts))


def _group_of(decision: Decision) -> tuple[GroupKind, str]:
    if decision.kind in {"probe", "import"}:
        return decision.kind, ""
    if decision.batch_id is not None:
        return "batch", decision.batch_id
    return ("live", decision.policy) if decision.kind == "route" else (decision.kind, "")


def _cost(attempts: tuple[Attempt, ...]) -> int:
    costs = [one.cost_nusd for one in attempts]
    return NONE if None in costs else sum(cost for cost in costs if cost is not None)


def _state(attempts: tuple[Attempt, ...]) -> int:
    if any(_has_answered(one) for one in attempts):
        return ANSWERED
    return UNFINISHED if not attempts or attempts[-1].status == "open" else FAILED


def _has_answered(attempt: Attempt) -> bool:
    is_partial = attempt.status == "abandoned" and attempt.completion_tokens is not None
    return attempt.status == "ok" or is_partial


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _rows(key: tuple[GroupKind, str], group: _Gathering) -> Rows:
    kind, name = key
    columns: dict[str, NDArray[np.generic]] = {
        name: np.array(values) for name, values in group.columns.items()
    }
    columns["is_measured"] = columns["is_measured"].astype(np.bool_)
    return Rows(
        kind=kind,
        batch_id=name if kind == "batch" else None,
        policies=group.policies,
        first_at=group.first_at,
        last_at=group.last_at,
        money=group.money,
        **columns,  # type: ignore[arg-type]  # by the codes of `_COLUMNS`
    )
