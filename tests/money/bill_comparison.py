"""The log and the budgets' accounts beside the provider's bill, request by request.

Rows are laid beside requests by what answers are called; the others, within one prompt and one LLM,
in the order of time. What is not flagged has to agree to the nano-USD.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from own_bill import Billed
from sqlalchemy import create_engine, make_url, text
from what_was_done import BUDGETS, Made

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
_LOG = """
SELECT a.id, a.candidate, a.status, a.error_class, a.cost_nusd, a.estimated, a.cache_hit,
       a.response_id, a.started_at, a.decision_id, t.prompt, d.kind
FROM attempts a JOIN decisions d ON d.id = a.decision_id JOIN texts t ON t.text_key = d.text_key
ORDER BY a.started_at, a.id
"""
_SPENT = """
SELECT b.name, SUM(c.spent_nusd), SUM(c.reserved_nusd), SUM(c.overshoot_nusd),
       SUM(c.n_calls)
FROM budgets b JOIN accounts c ON c.budget_id = b.id GROUP BY b.name
"""
_LEFT_OVER = "SELECT (SELECT COUNT(*) FROM reservations), (SELECT COUNT(*) FROM workers)"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One attempt of the log."""

    id: str
    key: str
    kind: str
    candidate: str
    status: str
    error_class: str | None
    nusd: int
    estimated: bool
    cache_hit: bool
    response_id: str | None
    day: str
    tags: frozenset[str]


@dataclass(frozen=True)
class Account:
    """What all windows of one budget hold."""

    spent_nusd: int
    reserved_nusd: int
    overshoot_nusd: int
    n_calls: int


Pair: TypeAlias = tuple[Row | None, Billed | None]  # an attempt and its request


@dataclass
class Line:
    """One kind of call in the table: what we say and what the bill says, known and flagged."""

    n_calls: int = 0
    n_known: int = 0
    known: list[int] = field(default_factory=lambda: [0, 0])
    n_flagged: int = 0
    flagged: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, row: Row | None, billed: Billed | None) -> None:
        """Add an attempt and its request, one of which may be missing."""
        is_flagged = row is not None and row.estimated
        sums = self.flagged if is_flagged else self.known
        sums[0] += 0 if row is None else row.nusd
        sums[1] += 0 if billed is None else billed.nusd
        self.n_flagged += is_flagged
        self.n_known += not is_flagged

    def join(self, other: Line) -> None:
        """Add another line."""
        self.n_calls += other.n_calls
        self.n_known += other.n_known
        self.n_flagged += other.n_flagged
        for mine, theirs in ((self.known, other.known), (self.flagged, other.flagged)):
            mine[0] += theirs[0]
            mine[1] += theirs[1]


@dataclass
class Comparison:
    """What came of it: pairs of attempts and requests, the table's lines, and what is wrong."""

    pairs: list[Pair]
    lines: dict[str, Line]
    accounts: dict[str, Account]
    wrong: list[str]

    @property
    def total(self) -> Line:
        """All lines together."""
        total = Line()
        for line in self.lines.values():
            total.join(line)
        return total

    @property
    def n_never_arrived(self) -> int:
        """Flagged attempts that the provider never saw."""
        return sum(row is not None and row.estimated and bill is None for row, bill in self.pairs)


def compare(
    store: str, bill: Sequence[Billed], made: Sequence[Made], *, within: float
) -> Comparison:
    """Lay a log and its accounts beside a bill; see the module's docstring.

    All flagged estimates together may differ by a share `within` the bill's.
    """
    url = make_url(store)
    engine = create_engine(url.set(drivername=_DRIVERS[url.get_backend_name()]))
    with engine.connect() as log:
        rows = _rows(log)
        accounts = {name: Account(*map(int, sums)) for name, *sums in log.execute(text(_SPENT))}
        n_reserved, n_workers = log.execute(text(_LEFT_OVER)).one()
    engine.dispose()
    pairs = _paired(rows, bill)
    kinds = {one.key: one.kind for one in made}
    found = Comparison(pairs, _lines(pairs, made), accounts, [])
    left = {one.key for one in made if one.is_left}
    for row, billed in pairs:
        found.wrong += _wrong(row, billed, left)
    found.wrong += [f"{row.key}: {row.id} is still open" for row in rows if row.status == "open"]
    found.wrong += _unbalanced(rows, accounts)
    found.wrong += [f"{n_reserved} reservations, {n_workers} workers are left"] * bool(
        n_reserved or n_workers
    )
    found.wrong += [f"{key}: unknown to the caller" for key in {r.key for r in rows} - set(kinds)]
    ours, theirs = found.total.flagged
    if abs(ours - theirs) > within * theirs:
        found.wrong.append(f"flagged: {ours} nano-USD is not within {within:.0%} of {theirs}")
    return found


def _rows(log: Any) -> list[Row]:
    tags: defaultdict[str, set[str]] = defaultdict(set)
    for decision, tag in log.execute(text("SELECT decision_id, tag FROM decision_tags")):
        tags[decision].add(tag)
    return [
        Row(
            id=one.id,
            key=one.prompt[1:].partition("]")[0],
            kind=one.kind,
            candidate=one.candidate,
            status=one.status,
            error_class=one.error_class,
            nusd=one.cost_nusd,
            estimated=bool(one.estimated),
            cache_hit=bool(one.cache_hit),
            response_id=one.response_id,
            day=_day(one.started_at),
            tags=frozenset(tags[one.decision_id]),
        )
        for one in log.execute(text(_LOG))
    ]


def _day(moment: datetime | str) -> str:
    """The UTC day of a moment, which SQLite holds as text."""
    return moment[:10] if isinstance(moment, str) else moment.astimezone(UTC).date().isoformat()


def _paired(rows: Iterable[Row], bill: Iterable[Billed]) -> list[Pair]:
    """Lay attempts beside requests; what has nothing beside it stands alone."""
    waiting: defaultdict[tuple[str, str], dict[str, Billed]] = defaultdict(dict)
    for billed in bill:
        waiting[billed.key, billed.model][billed.id] = billed
    pairs: list[Pair] = []
    nameless = []
    for row in rows:
        requests = waiting[row.key, row.candidate]
        if row.cache_hit or row.status == "refused":
            pairs.append((row, None))
        elif row.response_id in requests:
            pairs.append((row, requests.pop(row.response_id)))
        else:
            nameless.append(row)
    for row in nameless:
        requests = waiting[row.key, row.candidate]
        first = next(iter(requests), None)
        pairs.append((row, None if first is None else requests.pop(first)))
    alone = (billed for requests in waiting.values() for billed in requests.values())
    return [*pairs, *((None, billed) for billed in alone)]


def _wrong(row: Row | None, billed: Billed | None, left: set[str]) -> list[str]:
    """What is wrong with one attempt and its request."""
    if row is None:
        return [f"{billed.key}: request {billed} is not in the log"] if billed else []
    if billed is None:
        is_fine = row.estimated or row.nusd == 0
        return [] if is_fine else [f"{row.key}: {row} is on no bill"]
    if not row.estimated and row.nusd != billed.nusd:
        return [f"{row.key}: ours {row.nusd} nano-USD, bill {billed.nusd}: {row} {billed}"]
    is_excused = row.key in left or row.error_class in {"Timeout", "CancelledError"}
    if row.estimated and billed.told and not is_excused:
        return [f"{row.key}: flagged, but its usage was told: {row} {billed}"]
    return []


def _lines(
    pairs: Iterable[tuple[Row | None, Billed | None]], made: Sequence[Made]
) -> dict[str, Line]:
    kinds = {one.key: one.kind for one in made}
    lines: dict[str, Line] = {kind: Line() for kind in sorted(set(kinds.values()))}
    for one in made:
        lines[one.kind].n_calls += 1
    for row, billed in pairs:
        key = row.key if row is not None else billed.key if billed is not None else ""
        lines.setdefault(kinds.get(key, "?"), Line()).add(row, billed)
    return lines


def _unbalanced(rows: Sequence[Row], accounts: dict[str, Account]) -> list[str]:
    """Budgets whose accounts do not hold what the attempts that they bind cost."""
    wrong = []
    for budget in BUDGETS:
        name, match = str(budget["name"]), budget.get("match", {})
        if budget["per"] == "call":
            continue
        bound = [row for row in rows if _binds(match, row)]
        spent = sum(row.nusd for row in bound)
        n_calls = sum(row.nusd > 0 or row.status in {"ok", "abandoned"} for row in bound)
        account = accounts.get(name, Account(0, 0, 0, 0))
        if (account.spent_nusd, account.n_calls) != (spent, n_calls):
            wrong.append(f"budget {name!r}: {account}, its {n_calls} attempts cost {spent}")
        if account.reserved_nusd:
            wrong.append(f"budget {name!r}: {account.reserved_nusd} nano-USD are still reserved")
    return wrong


def _binds(match: Any, row: Row) -> bool:
    if "tag" in match:
        return match["tag"] in row.tags
    return "candidate" not in match or match["candidate"] == row.candidate


def table(found: Comparison) -> str:
    """The comparison as text: a line per kind of call, amounts in nano-USD."""
    widths = "{:<25}{:>7}{:>8}{:>15}{:>15}{:>6}{:>7}{:>13}{:>13}{:>8}"
    shown = [
        widths.format(
            *("kind of call", "calls", "known", "ours", "bill", "diff"),
            *("flagged", "ours", "bill", "diff"),
        )
    ]
    for kind, line in [*found.lines.items(), ("total", found.total)]:
        ours, theirs = line.flagged
        share = f"{(ours - theirs) / theirs:+.1%}" if theirs else "-"
        known = (line.n_known, *line.known, line.known[0] - line.known[1])
        shown.append(widths.format(kind, line.n_calls, *known, line.n_flagged, ours, theirs, share))
    return "\n".join(shown)
