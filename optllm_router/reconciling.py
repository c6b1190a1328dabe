"""A provider's bill against the log: per candidate and day, to the last decimal.

Only the days from the bill's first to its last are compared (see `outcomes.bills` for its form). A
call belongs to the UTC day on which it began; providers may count one near midnight otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

from optllm_router.errors import ConfigError
from optllm_router.outcomes.bills import Bill, Billed, is_decimal, read_bill
from optllm_router.records import NANO_PER_USD
from optllm_router.store.base import SpentDay, Store

Place: TypeAlias = tuple[str, date]  # whose, and when


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciledRow:
    """One candidate (or model) on one UTC day, in exact USD; None where a side has nothing.

    `difference_usd` is ours minus the bill's. `estimated_share` is the part of ours that was
    forecast or counted here, None where ours is 0; `n_unpriced` counts our calls of unknown cost.
    `is_beyond` says whether the difference exceeds the tolerance.
    """

    name: str
    day: date
    ours_usd: Decimal | None
    bill_usd: Decimal | None
    difference_usd: Decimal
    estimated_share: float | None
    n_unpriced: int
    n_calls: int
    n_calls_billed: int | None
    tokens: int
    tokens_billed: int | None
    is_beyond: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """A bill beside the log: rows by name, then day, and their totals in exact USD."""

    first: date
    last: date
    rows: tuple[ReconciledRow, ...]
    ours_usd: Decimal
    bill_usd: Decimal
    difference_usd: Decimal

    @property
    def beyond(self) -> tuple[ReconciledRow, ...]:
        """The rows whose difference exceeds the tolerance."""
        return tuple(row for row in self.rows if row.is_beyond)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values: days as ISO text, amounts as decimal text."""
        values = asdict(self) | {"n_beyond": len(self.beyond)}
        values["rows"] = [_plain(row) for row in values["rows"]]
        return _plain(values)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a row may differ by: an amount in USD, and a share of the larger of both sides."""

    usd: Decimal = Decimal(0)
    share: Decimal = Decimal(0)

    @classmethod
    def read(cls, text: str) -> Tolerance:
        """Read "0.05" (USD) or "2%" (of the larger side). Raises: ConfigError."""
        wanted = text.strip()
        number = wanted.removesuffix("%").strip()
        if not is_decimal(number) or Decimal(number) < 0:
            raise ConfigError(
                f"the tolerance {text!r} is neither an amount in USD, such as 0.05, nor a share, "
                "such as 2%, of at least 0"
            )
        if wanted.endswith("%"):
            return cls(share=Decimal(number) / 100)
        return cls(usd=Decimal(number))

    def is_exceeded(self, ours: Decimal, bill: Decimal) -> bool:
        """Return whether two amounts differ by more."""
        allowed = max(self.usd, self.share * max(abs(ours), abs(bill)))
        return abs(ours - bill) > allowed


@dataclass(slots=True)
class _Spent:
    """What the log says, its candidates of one model added up."""

    nusd: int = 0
    estimated_nusd: int = 0
    n_unpriced: int = 0
    n_calls: int = 0
    tokens: int = 0

    def add(self, day: SpentDay) -> None:
        self.nusd += day.cost_nusd
        self.estimated_nusd += day.estimated_nusd
        self.n_unpriced += day.n_unpriced
        self.n_calls += day.n_calls
        self.tokens += day.n_tokens


def reconcile(
    store: Store,
    path: str | Path,
    *,
    models: Mapping[str, str],
    only: Collection[str] = (),
    tolerance: str = "0",
) -> Reconciliation:
    """Compare a bill with the log.

    Args:
        store: the log.
        path: the bill, a CSV file (see `outcomes.bills`).
        models: what each candidate's model is called; read only for a bill by `model`.
        only: the candidates or models to compare, where the bill is that of one provider among
            several; all where it is empty.
        tolerance: what a row may differ by, "0.05" USD or "2%" of the larger side.

    Raises: ConfigError for a file with mistakes, with its lines; for a model that is several
        candidates' models; for a name in `only` that neither side knows.
    """
    allowed = Tolerance.read(tolerance)
    bill = read_bill(Path(path))
    days = [day for _, day in bill.rows]
    first, last = min(days), max(days)
    ours: defaultdict[Place, _Spent] = defaultdict(_Spent)
    for spent in store.spent_by_day(first, last):
        name = spent.candidate
        ours[models.get(name, name) if bill.by_model else name, spent.day].add(spent)
    known = {name for name, _ in ours} | set(models.values() if bill.by_model else models)
    theirs = _renamed(bill, known, Path(path))
    places = _wanted({*ours, *theirs}, only)
    rows = tuple(_row(place, ours.get(place), theirs.get(place), allowed) for place in places)
    return _summed(rows, first, last)


def _summed(rows: tuple[ReconciledRow, ...], first: date, last: date) -> Reconciliation:
    ours = sum((row.ours_usd or Decimal(0) for row in rows), Decimal(0))
    bill = sum((row.bill_usd or Decimal(0) for row in rows), Decimal(0))
    return Reconciliation(
        first=first,
        last=last,
        rows=rows,
        ours_usd=ours,
        bill_usd=bill,
        difference_usd=ours - bill,
    )


def _row(
    place: Place, ours: _Spent | None, bill: Billed | None, tolerance: Tolerance
) -> ReconciledRow:
    spent, billed = ours or _Spent(), bill or Billed()
    ours_usd = Decimal(spent.nusd) / NANO_PER_USD
    return ReconciledRow(
        name=place[0],
        day=place[1],
        ours_usd=None if ours is None else ours_usd,
        bill_usd=None if bill is None else billed.usd,
        difference_usd=ours_usd - billed.usd,
        estimated_share=spent.estimated_nusd / spent.nusd if spent.nusd else None,
        n_unpriced=spent.n_unpriced,
        n_calls=spent.n_calls,
        n_calls_billed=billed.n_calls,
        tokens=spent.tokens,
        tokens_billed=billed.tokens,
        is_beyond=tolerance.is_exceeded(ours_usd, billed.usd),
    )


def _wanted(places: set[Place], only: Collection[str]) -> list[Place]:
    names = {name for name, _ in places}
    for name in only:
        if name not in names:
            raise ConfigError(
                f"{name!r} is neither on the bill nor in the log of its days: they have "
                f"{', '.join(repr(known) for known in sorted(names))}"
            )
    return sorted(place for place in places if not only or place[0] in only)


def _renamed(bill: Bill, known: set[str], path: Path) -> dict[Place, Billed]:
    """Return the bill under the log's names: a model may stand there without its provider."""
    if not bill.by_model:
        return dict(bill.rows)
    names = {
        name: _name_here(name, known, f"'{path}' line {at}") for name, at in bill.lines.items()
    }
    found: defaultdict[Place, Billed] = defaultdict(Billed)
    for (name, day), billed in bill.rows.items():
        found[names[name], day].add(billed)
    return dict(found)


def _name_here(name: str, known: set[str], where: str) -> str:
    if name in known:
        return name
    same = sorted(one for one in known if one.partition("/")[2] == name)
    if len(same) > 1:
        raise ConfigError(
            f"{where}: the model {name!r} is {' or '.join(map(repr, same))} here: write which, or "
            "bill by `candidate`"
        )
    return same[0] if same else name


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain_value(value) for name, value in values.items()}


def _plain_value(value: object) -> object:
    if isinstance(value, Decimal):
        return format(value.normalize(), "f") if value else "0"
    return value.isoformat() if isinstance(value, date) else value
