"""The schema's revisions: a SQLite log is upgraded when it is opened, others by a command.

Alembic runs the revisions in the top-level `migrations/`, which the wheel carries as
`optllm_router/_migrations`. A log that is up to date never loads alembic (0.3 s): its revision is
compared with a constant, and a test compares the constant with the revisions themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from optllm_router.errors import SchemaVersionError, StoreError
from optllm_router.store.database import Database, parse_url, sqlite_file
from optllm_router.store.faults import shown
from optllm_router.store.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config

REVISIONS = ("0001", "0002", "0003")  # oldest first
HEAD = REVISIONS[-1]
BASE = "base"  # alembic's name for the empty schema

_VERSION_TABLE = "alembic_version"


def head() -> str:
    """Return the revision that this code reads and writes."""
    return HEAD


def current(url: str) -> str | None:
    """Return the revision of a database; None when it is empty or does not exist.

    Raises: StoreError when it cannot be read.
    """
    file = sqlite_file(parse_url(url))
    if file is not None and not file.exists():
        return None  # looking must not create it
    with closing(Database(url)) as database:
        return _revision(database)


def check(url: str) -> None:
    """Raise SchemaVersionError unless the database is at the revision of this code."""
    found = current(url)
    if found != HEAD:
        raise _mismatch(url, found)


def upgrade(url: str) -> None:
    """Bring a database to the revision of this code, creating the tables where there are none.

    Raises: SchemaVersionError when it is newer than this code; StoreError when it cannot be
    written, or holds tables of the same names that are not ours.
    """
    with closing(Database(url)) as database:
        _refuse_newer(database, _revision(database))
        _upgrade(database)


def downgrade(url: str, revision: str) -> None:
    """Take a database back to an older revision; what only newer ones can hold is lost.

    Args:
        url: the database.
        revision: one of `REVISIONS`, or "base" for an empty database.

    Raises: SchemaVersionError for an unknown revision, or a database newer than this code.
    """
    if revision not in {BASE, *REVISIONS}:
        raise SchemaVersionError(
            f"there is no revision {revision!r}: choose one of {', '.join((BASE, *REVISIONS))}.",
            found=revision,
            expected=HEAD,
        )
    with closing(Database(url)) as database:
        _refuse_newer(database, _revision(database))
        _run(database, lambda config: _alembic_downgrade(config, revision))


def prepare(database: Database) -> None:
    """Make sure that a database can be used: the right schema, and writable.

    Raises: SchemaVersionError when it is newer, or older and not SQLite; StoreError when it
    cannot be read or written.
    """
    found = _revision(database)
    _refuse_newer(database, found)
    if found != HEAD:
        if not database.is_sqlite:
            raise _mismatch(shown(database.url), found)
        _upgrade(database)
    with database.writing() as connection:
        # A row is written as it is: the only sure way to learn about a full or read-only disk.
        connection.execute(text(f"UPDATE {_VERSION_TABLE} SET version_num = version_num"))  # noqa: S608  # a constant


def _revision(database: Database) -> str | None:
    with database.reading() as connection:
        if not inspect(connection).has_table(_VERSION_TABLE):
            return None
        rows = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}"))  # noqa: S608  # a constant
        return ", ".join(sorted(rows.scalars())) or None


def _refuse_newer(database: Database, found: str | None) -> None:
    if found is not None and found not in REVISIONS:
        raise _mismatch(shown(database.url), found)


def _mismatch(url: str, found: str | None) -> SchemaVersionError:
    where = f"the log {shown(url)!r}"
    if found is None or found in REVISIONS:
        has = "has no schema yet" if found is None else f"has the older schema {found!r}"
        message = f"{where} {has}, this version needs {HEAD!r}: run `optllm db upgrade`."
    else:
        message = (
            f"{where} has the schema {found!r}, which is newer than this version's {HEAD!r}: "
            "run `pip install --upgrade optllm-router`."
        )
    return SchemaVersionError(message, found=found, expected=HEAD)


def _upgrade(database: Database) -> None:
    _run(database, _alembic_upgrade)


def _run(database: Database, command: Callable[[Config], None]) -> None:
    """Run an alembic command in one transaction that holds the database's write lock.

    Alembic reads the revision inside it, so of several processes that open a new file at once,
    one creates the tables and the others find them.
    """
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    # Alembic's settings are interpolated; a folder's name may hold a %.
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with database.migrating() as connection, _translated_commands(database, CommandError):
        _refuse_strangers(database, connection)
        config.attributes["connection"] = connection
        command(config)


def _alembic_upgrade(config: Config) -> None:
    from alembic import command

    command.upgrade(config, HEAD)


def _alembic_downgrade(config: Config, revision: str) -> None:
    from alembic import command

    command.downgrade(config, revision)


@contextmanager
def _translated_commands(database: Database, fault: type[Exception]) -> Iterator[None]:
    try:
        yield
    except fault as error:
        raise StoreError(
            f"the schema of {shown(database.url)!r} cannot be changed: {error}"
        ) from error


def _refuse_strangers(database: Database, connection: Connection) -> None:
    """Raise StoreError where tables of our names stand without a revision: they are not ours."""
    names = set(inspect(connection).get_table_names())
    ours = sorted(names & set(metadata.tables))
    if _VERSION_TABLE not in names and ours:
        raise StoreError(
            f"{shown(database.url)!r} already has tables named {', '.join(ours)} that this "
            "package did not create: set `store` to a database of its own."
        )


def migrations_folder() -> Path:
    """Return where the revisions are: inside an installed wheel, else beside the package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise StoreError(
        f"the schema's revisions are missing beside {str(package)!r}: install the package again."
    )
