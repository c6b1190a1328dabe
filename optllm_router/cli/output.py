"""What the commands print: results on standard output, remarks on standard error.

With `--json` standard output holds one JSON value and nothing else.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from optllm_router.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDTH_OF_A_PIPE = 140  # where nobody says how wide a line may be


def say(text: str) -> None:
    """Print a remark on standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # the command line speaks


def print_json(value: Any) -> None:
    """Print a value as JSON; numbers that JSON does not know are null."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=2)
    _write(text)


def print_json_lines(values: Iterable[Any]) -> None:
    """Print one line of JSON per value."""
    for value in values:
        _write(json_line(value))


def json_line(value: Any) -> str:
    """Return a value as one line of JSON, in characters that every file can hold."""
    return json.dumps(plain(value), allow_nan=False)


def show(*parts: RenderableType) -> None:
    """Print tables and texts on standard output."""
    console = stdout_console()
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str), markup=False, highlight=False)


def stdout_console() -> Console:
    """Return a console on standard output, wide enough for tables where it is no terminal."""
    from rich.console import Console

    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return Console(file=sys.stdout, width=None if known else WIDTH_OF_A_PIPE)


def stderr_console() -> Console:
    """Return a console on standard error."""
    from rich.console import Console

    return Console(file=sys.stderr)


def table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, title: str = ""
) -> RenderableType:
    """Return a table; the first `left` columns are texts, the others numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for j, header in enumerate(headers):
        made.add_column(header, justify="left" if j < left else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def facts(pairs: Mapping[str, str]) -> RenderableType:
    """Return names and values below each other, without a frame."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    for name, value in pairs.items():
        made.add_row(Text(name, style="bold"), Text(value))
    return made


def usd(amount: float | None) -> str:
    """Write an amount of money, or a dash where it is unknown."""
    from optllm_router.demo.draw import usd as written

    return "-" if amount is None or not math.isfinite(amount) else written(amount)


def share(value: float | None) -> str:
    """Write an accuracy or a score, or a dash where it is unknown."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def confirm(question: str, *, yes: bool, as_json: bool) -> None:
    """Go on only when the user agrees.

    Raises: ConfigError where nobody can be asked and `--yes` is missing; typer.Abort on a no.
    """
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody can be asked here: add `--yes` to do it.")
    typer.confirm(question, abort=True, err=True)


def plain(value: Any) -> Any:
    """Turn records' values into JSON values: times as ISO text, NaN and infinity as None."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write(text: str) -> None:
    print(text, file=sys.stdout)  # noqa: T201  # the command line speaks
