"""Options that take several values in a row, `--labels 100 300 1500`, or none, `--json`.

Click repeats the option for every value; here the values may simply follow, as long as each looks
like one, so that a positional argument behind them is not swallowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from typer.core import TyperCommand
from typing_extensions import override


def is_number(word: str) -> bool:
    """Return whether a word is a number of labels, whole or a fraction."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def is_router(word: str) -> bool:
    """Return whether a word is meant to name a router, known or not; DATA has a suffix."""
    return not {".", "/", "\\"} & set(word)


ROW_OPTIONS: Mapping[str, Callable[[str], bool]] = {"--labels": is_number, "--routers": is_router}


class ManyValues(TyperCommand):
    """A command whose `ROW_OPTIONS` take several values in a row."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat an option before each of its values, as Click wants it."""
        return super().parse_args(ctx, list(repeated(args)))


def repeated(words: Iterable[str]) -> Iterator[str]:
    """Yield the words, an option once more before every further value of it."""
    option, n_values = None, 0
    for word in _with_standard_output(list(words)):
        if word.startswith("-") and not is_number(word):
            name, equals, _ = word.partition("=")  # `--labels=100 300` has its first value
            option, n_values = (name if name in ROW_OPTIONS else None), len(equals)
        elif option is not None:
            n_values += 1
            if n_values > 1 and ROW_OPTIONS[option](word):
                yield option
            elif n_values > 1:
                option = None
        yield word


def _with_standard_output(words: list[str]) -> Iterator[str]:
    """Yield the words, `-` behind a `--json` that names no file."""
    for word, following in pairwise([*words, "--"]):
        yield word
        if word == "--json" and following.startswith("-") and following != "-":
            yield "-"
