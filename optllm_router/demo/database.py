"""The demo's database file: replaced when a demo made it, never when it may be somebody's log.

A demo leaves two events in its log, one when it starts and one when it ends; the latter holds how
many decisions it wrote. A file with the first, and without more decisions than the second says, is
the demo's own. Everything else stays untouched.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from optllm_router.errors import ConfigError
from optllm_router.store.sql import open_store

STARTED, ENDED = "demo.started", "demo.ended"


@contextmanager
def claimed(path: Path) -> Iterator[str]:
    """Make a new demo database at `path` and yield its address; mark it as a demo's own.

    What an earlier demo left there is removed first. The end is marked when the block ends, also
    by an exception: what is in the log then is what the demo wrote.

    Raises: ConfigError when the folder does not exist, or when a file stands there that no demo
        made or that holds more than a demo's own rows; nothing is removed then.
    """
    _make_way(path)
    url = f"sqlite:///{path.absolute()}"
    with closing(open_store(url)) as store:
        store.log_event(STARTED, "a demo started to write this log", {})
    try:
        yield url
    finally:
        with closing(open_store(url)) as store:
            n_decisions = sum(row.n_decisions for row in store.summary("kind"))
            store.log_event(ENDED, "the demo ended", {"n_decisions": n_decisions})


def _make_way(path: Path) -> None:
    if not path.parent.is_dir():
        raise ConfigError(
            f"the database `{path}` cannot be made: the folder `{path.parent}` does not exist. "
            "Make it, or choose another file with `--db`."
        )
    if not path.exists():
        return
    if not made_by_demo(path):
        raise ConfigError(
            f"`{path}` exists and is not what a demo left behind: the demo replaces its own "
            "files only. Choose another file with `--db`, or move this one away."
        )
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def made_by_demo(path: Path) -> bool:
    """Return whether a file is a demo's database that nobody has used since."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            events = dict(database.execute(_EVENTS, (STARTED, ENDED)).fetchall())
            (n_decisions,) = database.execute("SELECT count(*) FROM decisions").fetchone()
    except sqlite3.Error:
        return False
    if STARTED not in events:
        return False
    return ENDED not in events or n_decisions == json.loads(events[ENDED])["n_decisions"]


_EVENTS = "SELECT kind, facts FROM events WHERE kind IN (?, ?)"
