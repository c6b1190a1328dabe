"""Reads a provider's bill: exact amounts per candidate (or model) and day.

A bill is a CSV file with the columns `candidate` (as the log says) or `model` (as the provider
says), `day` (UTC) and `cost_usd`, and `n_calls` and `tokens` where it has them; several lines of
one name and day add up.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path

from optllm_router.errors import ConfigError
from optllm_router.outcomes.columns import N_LISTED, Columns, read_columns

_NAMES = ("candidate", "model")
_COLUMNS = (*_NAMES, "day", "cost_usd", "n_calls", "tokens")
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_WHOLE = re.compile(r"\d{1,18}", re.ASCII)


@dataclass(slots=True)
class Billed:
    """What a bill says of one candidate and day, its lines added up."""

    usd: Decimal = Decimal(0)
    n_calls: int | None = None
    tokens: int | None = None

    def add(self, other: Billed) -> None:
        """Add another line."""
        self.usd += other.usd
        self.n_calls = _sum(self.n_calls, other.n_calls)
        self.tokens = _sum(self.tokens, other.tokens)


@dataclass(slots=True)
class Bill:
    """A bill as it was read; `lines` says where a name stands first."""

    by_model: bool
    rows: defaultdict[tuple[str, date], Billed] = field(default_factory=lambda: defaultdict(Billed))
    lines: dict[str, int] = field(default_factory=dict)


def read_bill(path: Path) -> Bill:
    """Read a bill. Raises: ConfigError that lists the first mistakes, a line each."""
    if path.suffix.lower() != ".csv" and not path.is_dir():
        raise ConfigError(f"'{path}': a bill is read from CSV, a file that ends in .csv")
    columns = read_columns(path, _COLUMNS)
    named = _named_by(columns, path)
    bill = Bill(by_model=named == "model")
    mistakes: list[str] = []
    for row, at in enumerate(columns.at.tolist()):
        texts = {name: (column[row] or "").strip() for name, column in columns.cells.items()}
        cells = {name: text for name, text in texts.items() if text}
        wrong = _mistakes(cells, named)
        mistakes += [f"'{path}' line {at}: {one}" for one in wrong]
        if not wrong:
            bill.lines.setdefault(cells[named], at)
            bill.rows[cells[named], date.fromisoformat(cells["day"])].add(_billed(cells))
    if mistakes:
        more = len(mistakes) - N_LISTED
        listed = [*mistakes[:N_LISTED], *([f"and {more} more mistakes"] if more > 0 else [])]
        raise ConfigError("\n".join(listed))
    return bill


def _named_by(columns: Columns, path: Path) -> str:
    """Return the column that says whose a line is. Raises: ConfigError for missing columns."""
    given = [name for name in _NAMES if name in columns.cells]
    if len(given) != 1:
        which = "one of the columns" if given else "the column"
        raise ConfigError(
            f"'{path}' line 1: a bill has {which} `candidate` (as the log says) or `model` (as the "
            f"provider says); the header has {', '.join(columns.names)}"
        )
    for name in ("day", "cost_usd"):
        if name not in columns.cells:
            raise ConfigError(
                f"'{path}' line 1: the column `{name}` is missing; the header has "
                f"{', '.join(columns.names)}"
            )
    return given[0]


def _mistakes(cells: Mapping[str, str], named: str) -> list[str]:
    rules: Sequence[tuple[str, Callable[[str], bool], str, bool]] = (
        (named, bool, "a name", True),
        ("day", _is_day, "a day such as 2026-01-31", True),
        ("cost_usd", is_decimal, "an amount in USD, a plain decimal such as 12.3456", True),
        ("n_calls", _is_whole, "a whole number of at least 0", False),
        ("tokens", _is_whole, "a whole number of at least 0", False),
    )
    return [
        f"`{name}={cells.get(name, '')!r}` is not {rule}"
        for name, is_fine, rule, needed in rules
        if not _fits(cells.get(name), is_fine, needed=needed)
    ]


def _fits(cell: str | None, is_fine: Callable[[str], bool], *, needed: bool) -> bool:
    return not needed if cell is None else is_fine(cell)


def _billed(cells: Mapping[str, str]) -> Billed:
    n_calls, tokens = cells.get("n_calls"), cells.get("tokens")
    return Billed(
        usd=Decimal(cells["cost_usd"]),
        n_calls=None if n_calls is None else int(n_calls),
        tokens=None if tokens is None else int(tokens),
    )


def _is_day(cell: str) -> bool:
    if _DAY.fullmatch(cell) is None:
        return False
    try:
        date.fromisoformat(cell)
    except ValueError:  # such as 2026-02-30
        return False
    return True


def is_decimal(cell: str) -> bool:
    """Return whether a text is a plain decimal number."""
    return _DECIMAL.fullmatch(cell) is not None


def _is_whole(cell: str) -> bool:
    return _WHOLE.fullmatch(cell) is not None


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else (one or 0) + other
