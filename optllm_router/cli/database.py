"""`optllm db`: the schema of the log, looked at and moved."""

from __future__ import annotations

from typing import Annotated

import typer

from optllm_router.cli import output
from optllm_router.cli.opening import log_url
from optllm_router.cli.options import AsJson, ConfigFile, DatabaseFile, StoreUrl, Yes

Revision = Annotated[
    str, typer.Argument(metavar="REVISION", help="An older revision, or base for none.")
]


def upgrade(
    *,
    config: ConfigFile = None,
    store: StoreUrl = None,
    db: DatabaseFile = None,
    as_json: AsJson = False,
) -> None:
    """Bring the schema to this version."""
    url = log_url(config, store, db)
    from optllm_router.store import schema

    before = schema.current(url)
    schema.upgrade(url)
    _show(url, before=before, as_json=as_json)


def downgrade(  # noqa: PLR0913  # one parameter per option
    revision: Revision,
    *,
    yes: Yes = False,
    config: ConfigFile = None,
    store: StoreUrl = None,
    db: DatabaseFile = None,
    as_json: AsJson = False,
) -> None:
    """Take the schema back; what only newer ones hold is lost."""
    url = log_url(config, store, db)
    from optllm_router.store import schema

    before = _existing(url)
    question = f"Take the schema from {before} back to {revision}, and lose what it cannot hold?"
    output.confirm(question, yes=yes, as_json=as_json)
    schema.downgrade(url, revision)
    _show(url, before=before, as_json=as_json)


def current(
    *,
    config: ConfigFile = None,
    store: StoreUrl = None,
    db: DatabaseFile = None,
    as_json: AsJson = False,
) -> None:
    """Name the schema's revision."""
    _show(log_url(config, store, db), as_json=as_json)


def check(
    *,
    config: ConfigFile = None,
    store: StoreUrl = None,
    db: DatabaseFile = None,
    as_json: AsJson = False,
) -> None:
    """End with 1 unless the schema is this version's."""
    url = log_url(config, store, db)
    from optllm_router.store import schema

    schema.check(url)
    _show(url, as_json=as_json)


def _existing(url: str) -> str:
    """Return the revision of a log that has one. Raises: SchemaVersionError."""
    from optllm_router.store import schema

    found = schema.current(url)
    if found is None:
        schema.check(url)
    return str(found)


def _show(url: str, *, as_json: bool, before: str | None = "") -> None:
    """Print where the schema stands; `before` is given when it may have moved."""
    from optllm_router.store import schema
    from optllm_router.store.faults import shown

    found = schema.current(url)
    values = {"store": shown(url), "revision": found, "head": schema.head()}
    if before != "":
        values["before"] = before
    if as_json:
        output.print_json(values)
        return
    moved = f", was {before or 'empty'}" if before not in {"", found} else ""
    newest = "" if found == schema.head() else f"; this version has {schema.head()}"
    output.show(f"{values['store']}: {found or 'no schema yet'}{moved}{newest}")
