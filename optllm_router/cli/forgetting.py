"""`optllm forget`: erase from the log."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from optllm_router.cli import output
from optllm_router.cli.opening import open_log
from optllm_router.cli.options import AsJson, Before, ConfigFile, DatabaseFile, StoreUrl, Yes
from optllm_router.errors import ConfigError

Session = Annotated[
    str | None, typer.Option("--session", metavar="ID", help="Decisions of this session.")
]
Tag = Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Decisions with this tag.")]

Batch = Annotated[
    str | None, typer.Option("--batch", metavar="NAME", help="Decisions of this batch.")
]


def forget(  # noqa: PLR0913  # one parameter per option
    *,
    session: Session = None,
    tag: Tag = None,
    before: Before = None,
    batch: Batch = None,
    yes: Yes = False,
    config: ConfigFile = None,
    store: StoreUrl = None,
    db: DatabaseFile = None,
    as_json: AsJson = False,
) -> None:
    """Erase decisions by session, tag, age or batch.

    What is given must all hold. With the decisions go their calls, scores, texts, and the answers
    that are kept for batches that survive. A predictor that is fitted already keeps what it learned
    until the next `optllm retrain`.
    """
    conditions = [
        *([f"of session {session!r}"] if session is not None else []),
        *([f"with tag {tag!r}"] if tag is not None else []),
        *([f"of batch {batch!r}"] if batch is not None else []),
        *([f"from before {before.isoformat(timespec='seconds')}"] if before is not None else []),
    ]
    if not conditions:
        raise ConfigError(
            "nothing says what to forget: give --session, --tag, --before or --batch."
        )
    with open_log(config, store, db) as log:
        question = f"Erase every decision {' and '.join(conditions)} for good?"
        output.confirm(question, yes=yes, as_json=as_json)
        report = log.forget(session_id=session, tag=tag, before=before, batch_id=batch)
    if as_json:
        output.print_json(asdict(report))
    else:
        output.show(
            f"erased {report.n_decisions:,} decisions, {report.n_attempts:,} calls, "
            f"{report.n_outcomes:,} scores, {report.n_texts:,} texts, "
            f"{report.n_answers:,} kept answers"
        )
