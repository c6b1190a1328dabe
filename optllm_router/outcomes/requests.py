"""Reads the queries of a run, a plan or a probe from a text, CSV or JSONL file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from optllm_router.errors import ConfigError
from optllm_router.outcomes.columns import (
    as_texts,
    listed,
    read_columns,
    read_json_lines,
    read_text,
    refuse_folder,
)

_OWN = ("task", "reference", "session_id", "tags")


def read_requests(path: str | Path) -> list[dict[str, Any]]:
    """Read queries as arguments of `Router.complete`, in the file's order.

    Each item has `messages` and, where the file gives them, `task` and `reference`.

    - `.txt`: one query per line; blank lines are skipped.
    - `.csv`: the column `query`, and `task`, `reference`, `session_id`; others are not read.
    - `.jsonl`: a text; a list of messages; `{"messages": [...], ...}`, whose other keys are
      arguments of the call; or `{"query": "...", "task": ..., "reference": ...}`, whose other keys
      are not read, so that a data set can be used as it is.

    Raises:
        ConfigError: the file is missing, not of a known form, malformed, or without queries; the
            first lines that break a rule are listed.
    """
    path = Path(path)
    refuse_folder(path, ".jsonl, .csv or .txt")
    suffix = path.suffix.lower()
    if suffix == ".txt":
        lines = (line.removesuffix("\r") for line in read_text(path).split("\n"))
        return [_asking(line) for line in lines if line.strip()]
    if suffix == ".csv":
        return _from_csv(path)
    if suffix in {".jsonl", ".ndjson"}:
        return _from_json_lines(path)
    raise ConfigError(
        f"'{path}': files ending in {suffix!r} are not read: write .jsonl, .csv or .txt"
    )


def _asking(text: str, **arguments: Any) -> dict[str, Any]:
    given = {name: value for name, value in arguments.items() if value is not None}
    return {"messages": [{"role": "user", "content": text}], **given}


def _from_csv(path: Path) -> list[dict[str, Any]]:
    names = ("query", "task", "reference", "session_id")
    columns = read_columns(path, names)
    if "query" not in columns.cells:
        hint = _nearest("query", columns.names)
        raise ConfigError(f"'{path}' line 1: column `query` is missing{hint}")
    texts = {name: as_texts(cells)[0] for name, cells in columns.cells.items()}
    asked = texts.pop("query")
    empty = [at for at, query in zip(columns.at.tolist(), asked, strict=True) if query is None]
    if empty:
        raise ConfigError(f"'{path}': `query` is empty: {listed(empty, 'line')}: fill or remove it")
    return [
        _asking(query, **{name: cells[row] for name, cells in texts.items()})
        for row, query in enumerate(asked)
    ]


def _from_json_lines(path: Path) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    wrong: list[int] = []
    hint = ""
    for number, value in read_json_lines(path):
        item = _item(value)
        if item is not None:
            items.append(item)
            continue
        wrong.append(number)
        hint = hint or (_nearest("query", list(value)) if isinstance(value, dict) else "")
    if wrong:
        raise ConfigError(
            f"'{path}': no query: {listed(wrong, 'line')}{hint}: a line is a text, a list of "
            'messages, {"messages": [...]}, or {"query": "...", "task": ..., "reference": ...}'
        )
    return items


def _item(value: object) -> dict[str, Any] | None:
    """Return the arguments that a JSON value stands for, None when it is no query."""
    if isinstance(value, str):
        return _asking(value)
    if _are_messages(value):
        return {"messages": value}
    if not isinstance(value, dict) or ("query" in value) == ("messages" in value):
        return None
    if "messages" in value:
        given = {name: entry for name, entry in value.items() if entry is not None}
        return given if _are_messages(value["messages"]) else None
    own = {name: value.get(name) for name in _OWN}
    return _asking(value["query"], **own) if isinstance(value["query"], str) else None


def _are_messages(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(entry, dict) and "role" in entry for entry in value)


def _nearest(name: str, names: list[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f": is it `{nearest[0]}`? Rename it" if nearest else ""
