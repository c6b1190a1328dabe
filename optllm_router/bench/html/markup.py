"""HTML and SVG elements as strings that escape by construction: only `Safe` text is put in raw.

Source names, candidate names and notes come from the data, so no caller may have to remember to
escape them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from html import escape

_UNCLOSED = frozenset({"meta", "link", "wbr"})
_SELF_CLOSED = frozenset({"circle", "line", "path", "rect"})
_DIRECTION_MARKS = re.compile("[\u202a-\u202e\u2066-\u2069]")


class Safe(str):
    """Markup that is put into a page as it stands."""

    __slots__ = ()


def clean(text: str) -> str:
    """Return the text on one line, with what a page cannot hold replaced by U+FFFD.

    Replaced are control characters, lone surrogates (they have no UTF-8) and marks that turn the
    direction of the text behind them.
    """
    spaced = re.sub(r"[ \t\r\n\f\v]+", " ", _DIRECTION_MARKS.sub("\ufffd", text))
    return "".join("\ufffd" if _unprintable(char) else char for char in spaced)


def safe(value: object) -> Safe:
    """Return `Safe` markup as it is and anything else as escaped text."""
    return value if isinstance(value, Safe) else Safe(escape(clean(str(value)), quote=True))


def together(parts: Iterable[object]) -> Safe:
    """Return the parts one behind the other, each `Safe` or escaped."""
    return Safe("".join(safe(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: object) -> Safe:
    """Return one element; children and attribute values are escaped unless they are `Safe`.

    A trailing underscore of an attribute's name is dropped (`class_`), any other becomes a hyphen;
    a value of None leaves the attribute out; floats are pixels, written with two decimals.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _UNCLOSED:
        return Safe(f"<{name}{written}>")
    if name in _SELF_CLOSED and not children:
        return Safe(f"<{name}{written}/>")
    return Safe(f"<{name}{written}>{together(children)}</{name}>")


def pixels(value: float) -> str:
    """Return a length with at most two decimals and no trailing zeros."""
    written = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if written == "-0" else written


def _value(value: object) -> str:
    return pixels(value) if isinstance(value, float) else safe(value)


def _unprintable(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cs"}
