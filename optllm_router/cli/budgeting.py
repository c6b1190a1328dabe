"""`optllm budget`: what is left, other limits for a while, and what providers say was spent."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optllm_router.cli import output
from optllm_router.cli.failures import FAILED
from optllm_router.cli.opening import CONFIG, open_config, open_log
from optllm_router.cli.options import AsJson, ConfigFile, DatabaseFile, StoreUrl, read_moment

if TYPE_CHECKING:
    from optllm_router.ledger import BudgetReport
    from optllm_router.reconciling import ReconciledRow, Reconciliation

MOST_USD = 1_000_000_000  # as for budgets in the settings

BillFile = Annotated[
    Path,
    typer.Argument(
        metavar="BILL", help="CSV: candidate or model, day, cost_usd; n_calls and tokens."
    ),
]
Tolerance = Annotated[
    str,
    typer.Option(
        "--tolerance", metavar="USD|%", help="What a row may differ by, such as 0.05 or 2%."
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="Compare this candidate or model; repeatable."),
]


Name = Annotated[str, typer.Argument(metavar="NAME", help="A budget, as `optllm budget` lists it.")]
Limit = Annotated[
    str, typer.Argument(metavar="USD", help="The limit that holds meanwhile, such as 25.")
]
Until = Annotated[
    datetime,
    typer.Option("--until", parser=read_moment, metavar="TIME", help="A later date, or with time."),
]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the log.")]
Who = Annotated[
    str | None, typer.Option("--who", metavar="NAME", help="Who says so.  [default: you]")
]
Session = Annotated[
    str | None, typer.Option("--session", metavar="ID", help="Of budgets per session, this one.")
]


def status(  # noqa: PLR0913  # one parameter per option
    ctx: typer.Context,
    *,
    session: Session = None,
    config: ConfigFile = None,
    store: StoreUrl = None,
    db: DatabaseFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what every shared budget has spent, reserved and left, and where it is heading."""
    if ctx.invoked_subcommand is not None:
        return
    with open_log(config, store, db) as log:
        from optllm_router.history import History

        reports = History(log).budgets(session_id=session)
    if as_json:
        output.print_json([report.to_dict() for report in reports])
    elif reports:
        _show_status(reports)
    else:
        output.say(
            "there are no shared budgets: [[budgets]] in the settings, or a policy with "
            'kind = "budget" and a `per` across calls, such as "day", make them'
        )


def override(  # noqa: PLR0913  # one parameter per option
    name: Name,
    usd: Limit,
    *,
    until: Until,
    why: Why,
    who: Who = None,
    config: ConfigFile = None,
    store: StoreUrl = None,
    db: DatabaseFile = None,
    as_json: AsJson = False,
) -> None:
    """Have another limit hold until a date, for all processes; logged with who and why."""
    limit_nusd = _limit_nusd(usd)
    with open_log(config, store, db) as log:
        from optllm_router.history import History
        from optllm_router.store.shares import Override

        given = Override(
            budget=name,
            limit_nusd=limit_nusd,
            until=until,
            who=who or _user(),
            why=why,
            created_at=datetime.now(tz=UTC),
        )
        log.set_override(given)
        (report,) = (one for one in History(log).budgets() if one.name == name)
    if as_json:
        output.print_json(report.to_dict())
    else:
        _show_status([report])


def _limit_nusd(usd: str) -> int:
    """Read a limit exactly. Raises: typer.BadParameter."""
    from optllm_router.records import NANO_PER_USD

    try:
        limit = Decimal(usd)
    except InvalidOperation:
        limit = Decimal("nan")
    if not limit.is_finite() or not 0 <= limit <= MOST_USD:
        raise typer.BadParameter(
            f"{usd!r} is no limit: write an amount in USD from 0 to {MOST_USD:,}."
        )
    return int(limit * NANO_PER_USD)


def _user() -> str:
    """Return who runs the command, as far as the system knows."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user; Python 3.13 translates it
        return "unknown"


def _show_status(reports: Sequence[BudgetReport]) -> None:
    headers = ("budget", "for", "per", "limit", "spent", "reserved", "left", "forecast", "calls")
    output.show(output.table(headers, map(_status_cells, reports), left=3))
    for report in reports:
        if report.overridden_until is not None:
            output.show(
                f"{report.name}: {report.overridden_by} set {output.usd(report.limit_usd)} until "
                f"{report.overridden_until.astimezone():%Y-%m-%d %H:%M}: {report.overridden_why}"
            )


def _status_cells(one: BudgetReport) -> list[str]:
    forecast = "-" if one.forecast_usd is None else output.usd(one.forecast_usd)
    return [
        one.name,
        "everything" if one.scope == "all" else f"{one.scope} {one.value}",
        f"rolling {one.per}" if one.rolling else one.per,
        output.usd(one.limit_usd),
        output.usd(one.spent_usd),
        output.usd(one.reserved_usd),
        output.usd(one.left_usd),
        f"{forecast} !" if (one.forecast_usd or 0.0) > one.limit_usd else forecast,
        f"{one.n_calls:,}",
    ]


def reconcile(  # noqa: PLR0913  # one parameter per option
    bill: BillFile,
    *,
    tolerance: Tolerance = "0",
    only: Only = None,
    config: ConfigFile = None,
    store: StoreUrl = None,
    db: DatabaseFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare a provider's bill with the log.

    Per candidate (or model) and UTC day, from the bill's first day to its last. The log's calls
    count on the day on which they began. Ends with 1 when a row differs by more than --tolerance.
    """
    with open_log(config, store, db) as log:
        from optllm_router.history import History

        report = History(log, _models(config)).reconcile(bill, only=only or (), tolerance=tolerance)
    if as_json:
        output.print_json(report.to_dict())
    else:
        _show(report)
    raise typer.Exit(FAILED if report.beyond else 0)


def _models(config: Path | None) -> dict[str, str]:
    """Return what each configured candidate's model is called; nothing without settings."""
    if config is None and not CONFIG.exists():
        return {}
    return {one.name: one.model for one in open_config(config).candidates}


def _show(report: Reconciliation) -> None:
    headers = ("candidate", "day", "", "ours", "bill", "difference", "estimated", "calls", "billed")
    output.show(
        output.table(headers, map(_cells, report.rows), left=3),
        f"{report.first} to {report.last}: ours {_usd(report.ours_usd)}, bill "
        f"{_usd(report.bill_usd)}, difference {_usd(report.difference_usd)}; "
        f"{len(report.beyond):,} of {len(report.rows):,} rows differ by more than allowed",
    )


def _cells(row: ReconciledRow) -> list[str]:
    estimated = row.estimated_share
    return [
        row.name,
        row.day.isoformat(),
        _remark(row),
        _usd(row.ours_usd) + (" + unknown" if row.n_unpriced else ""),
        _usd(row.bill_usd),
        _usd(row.difference_usd),
        "-" if estimated is None else f"{estimated:.1%}",
        f"{row.n_calls:,}",
        "-" if row.n_calls_billed is None else f"{row.n_calls_billed:,}",
    ]


def _remark(row: ReconciledRow) -> str:
    if row.ours_usd is None:
        return "only on the bill"
    if row.bill_usd is None:
        return "only in the log"
    return "differs" if row.is_beyond else ""


def _usd(amount: Decimal | None) -> str:
    """Write an amount to the last decimal, at least to the cent."""
    if amount is None:
        return "-"
    exact = amount.normalize() if amount else Decimal(0)
    n_decimals = -int(exact.as_tuple().exponent)
    return f"{'-' if exact < 0 else ''}${abs(exact):,.{max(n_decimals, 2)}f}"
