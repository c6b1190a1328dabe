"""Numbers as a reader meets them: a minus sign, digits that line up, an en dash for nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable

from optllm_router.core.evaluation import Interval

NOTHING = "–"


def number(value: float, decimals: int = 3) -> str:
    """Return the value with so many decimals; an en dash for NaN and infinities."""
    if not math.isfinite(value):
        return NOTHING
    written = f"{abs(value):,.{decimals}f}"
    is_negative = value < 0 and any(digit in written for digit in "123456789")
    return f"\N{MINUS SIGN}{written}" if is_negative else written


def signed(value: float, decimals: int = 3) -> str:
    """Return a difference, with a plus sign where it is above 0 as written."""
    written = number(value, decimals)
    is_positive = value > 0 and any(digit in written for digit in "123456789")
    return f"+{written}" if is_positive else written


def count(value: float | None) -> str:
    """Return a whole number with separators; an en dash for None and NaN."""
    return NOTHING if value is None else number(value, 0)


def usd(value: float) -> str:
    """Return an amount with three significant digits, whole dollars from 100 USD on."""
    if not math.isfinite(value):
        return NOTHING
    return f"${number(value, decimals_of([value]) if value else 0)}"


def tick_usd(value: float) -> str:
    """Return an amount at a round number: whole dollars, or cents and as much finer as needed."""
    whole, _, rest = number(value, 12).rstrip("0").partition(".")
    return f"${whole}.{rest:0<2}" if rest else f"${whole}"


def decimals_of(values: Iterable[float], significant: int = 3) -> int:
    """Return how many decimals give the largest magnitude so many significant digits, 0 to 12."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0:
        return significant
    return min(max(significant - 1 - math.floor(math.log10(largest)), 0), 12)


def interval_text(interval: Interval, decimals: int = 3) -> str:
    """Return "[low, high]"; empty where no interval is known."""
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return ""
    return f"[{number(interval.low, decimals)}, {number(interval.high, decimals)}]"


def plural(value: int, noun: str) -> str:
    """Return a count with its noun, as "1 seed" or "5 seeds"."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"
