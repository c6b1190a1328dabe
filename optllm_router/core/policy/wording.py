"""How policies put names and amounts into messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return a hint at the nearest known name, or nothing where none is near."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def quoted(names: Iterable[str]) -> str:
    """List names in quotes."""
    return ", ".join(repr(name) for name in names)


def usd_text(amount: float) -> str:
    """Write cents where that is exact, otherwise as many places as it takes, without exponent."""
    cents = f"{amount:.2f}"
    return cents if float(cents) == amount else plain(amount)


def plain(number: float) -> str:
    """Write the shortest digits that give the number back, without exponent."""
    return np.format_float_positional(number, trim="-")
