"""The `optllm` command: its options, its commands in the order of the loop, and its help."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from optllm_router.cli import (
    answering,
    budgeting,
    database,
    evaluating,
    forgetting,
    learning,
    looking,
    setting_up,
    showing,
)
from optllm_router.cli.failures import Commands
from optllm_router.cli.many_values import ManyValues

HELP_WIDTH = 80  # whatever the terminal, so that the README can show it

app = typer.Typer(
    name="optllm",
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"terminal_width": HELP_WIDTH, "help_option_names": ["-h", "--help"]},
)
_budget = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
_database = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

app.command()(showing.demo)
app.command()(setting_up.init)
app.command()(setting_up.check)
app.command("import")(learning.import_outcomes)
app.command()(learning.probe)
app.command()(answering.run)
app.command()(answering.plan)
app.command()(looking.front)
app.command()(looking.history)
app.command()(answering.explain)
app.command()(learning.feedback)
app.command()(learning.retrain)
app.command()(forgetting.forget)
app.command(cls=ManyValues)(evaluating.evaluate)
app.add_typer(_budget, name="budget", help="Show and set budgets; check a provider's bill.")
_budget.callback()(budgeting.status)
_budget.command("set")(budgeting.override)
_budget.command()(budgeting.reconcile)
app.add_typer(_database, name="db", help="Look at the log's schema, or move it.")
_database.command()(database.upgrade)
_database.command()(database.downgrade)
_database.command()(database.current)
_database.command()(database.check)


def main() -> None:
    """Run the command line."""
    app(prog_name="optllm")


def _print_version(asked: bool) -> None:
    if asked:
        from optllm_router import __version__

        typer.echo(f"optllm-router {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more than warnings.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback(
    epilog="Results go to standard output, as JSON with --json; progress and remarks to standard "
    "error. Exit codes: 0 done, 1 failed, 2 a mistake in arguments or settings, 130 interrupted."
)
def _optllm(
    ctx: typer.Context, *, version: Version = False, verbose: Verbose = False, debug: Debug = False
) -> None:
    """Send every query to the LLM that is worth its price."""
    del version, debug  # read by its callback, and by `failures`
    _log_to_stderr(ctx, logging.INFO if verbose else logging.WARNING)


def _log_to_stderr(ctx: typer.Context, level: int) -> None:
    """Show the package's log on standard error for as long as the command lasts."""
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=False)
    logger = logging.getLogger("optllm_router")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    ctx.call_on_close(lambda: logger.removeHandler(handler))
    ctx.call_on_close(lambda: logger.setLevel(before))
