"""The provider's own books: what each request cost, in fractions, by the rule on the price sheet.

Nothing here knows the router. One JSON line per request that was taken, in the order of their ends.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from price_sheet import SHEET

NANO = 10**9


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What one request used; cached and written ones are part of the prompt's."""

    prompt: int = 0
    cached: int = 0
    written: int = 0
    completion: int = 0
    reasoning: int = 0


@dataclass(frozen=True, kw_only=True)
class Billed:
    """One request on the bill.

    `number` counts the requests as they arrived, `key` is what its prompt begins with, `id` what
    the answer was called. `told` says whether the answer was sent to its end, usage included.
    """

    number: int
    key: str
    id: str
    model: str
    taken_at: str
    streamed: bool
    went: str
    told: bool
    tokens: Tokens
    nusd: int

    @property
    def day(self) -> str:
        """The UTC day on which it arrived."""
        return self.taken_at[:10]


def price_nusd(model: str, tokens: Tokens) -> int:
    """What a request costs by the rule on the price sheet."""
    sheet = SHEET[model]
    prices = sheet.prices
    if sheet.long is not None and sheet.above_tokens is not None:
        prices = sheet.long if tokens.prompt > sheet.above_tokens else prices
    plain = tokens.prompt - tokens.cached - tokens.written
    exact_usd = (
        plain * _each(prices.plain)
        + tokens.cached * _each(prices.cached or prices.plain)
        + tokens.written * _each(prices.written or prices.plain)
        + tokens.completion * _each(prices.output)
    )
    return math.ceil(exact_usd * NANO)


def _each(per_1m: str) -> Fraction:
    return Fraction(per_1m) / 10**6


class OwnBill:
    """Writes requests down as they end."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, billed: Billed) -> None:
        self._file.write(json.dumps(asdict(billed)) + "\n")

    def flush(self) -> None:
        self._file.flush()


def read_bill(path: Path) -> list[Billed]:
    """All requests of a bill, in the order of their arrival."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = [Billed(**{**row, "tokens": Tokens(**row["tokens"])}) for row in rows]
    return sorted(found, key=lambda billed: billed.number)


@dataclass
class OfDay:
    """What one LLM is billed for on one UTC day."""

    nusd: int = 0
    n_calls: int = 0
    n_tokens: int = 0

    def add(self, nusd: int, n_tokens: int) -> None:
        """Add one request."""
        self.nusd += nusd
        self.n_calls += 1
        self.n_tokens += n_tokens


def write_csv(days: Mapping[tuple[str, str], OfDay], path: Path) -> None:
    """Write the bill as customers get it: per LLM and UTC day, to the last decimal."""
    with path.open("w", encoding="utf-8", newline="") as file:
        sheet = csv.writer(file)
        sheet.writerow(["candidate", "day", "cost_usd", "n_calls", "tokens"])
        for (model, day), one in sorted(days.items()):
            usd = Decimal(one.nusd).scaleb(-9)
            sheet.writerow([model, day, f"{usd:f}", one.n_calls, one.n_tokens])
