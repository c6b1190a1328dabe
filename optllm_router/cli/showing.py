"""`optllm demo`: the whole loop on this machine, with simulated or recorded LLMs."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from optllm_router.cli import output
from optllm_router.cli.options import AsJson

Outcomes = Annotated[
    Path | None,
    typer.Option(
        "--outcomes", metavar="FILE", help="Replay recorded answers of real LLMs instead."
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, metavar="N", help="Take only N queries, at random.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of all draws.")]
LeftBehind = Annotated[
    Path, typer.Option("--db", metavar="FILE", help="The SQLite file to leave behind.")
]


def demo(
    *,
    outcomes: Outcomes = None,
    limit: Limit = None,
    seed: Seed = 0,
    db: LeftBehind = Path("optllm-demo.db"),
    as_json: AsJson = False,
) -> None:
    """Watch the whole loop: probe, fit, front, batches.

    Runs on this machine only, through the real Router: simulated LLMs behind a real HTTP
    server, or with --outcomes a recorded table. The log that it leaves is read with
    `optllm history --db FILE` and `optllm front --db FILE`.
    """
    console = output.stderr_console() if as_json else output.stdout_console()
    with redirect_stdout(sys.stderr):  # of LiteLLM, should it have hints
        from optllm_router.demo.run import run_demo

        if outcomes is None:
            from optllm_router.completion.litellm_client import keep_stdout_clean

            keep_stdout_clean()
        report = run_demo(outcomes=outcomes, limit=limit, seed=seed, db=db, console=console)
    if as_json:
        output.print_json(report.as_json())
