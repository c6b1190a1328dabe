"""`optllm budget`: what was spent, beside what providers say it was."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optllm_router.cli import output
from optllm_router.cli.failures import FAILED
from optllm_router.cli.opening import CONFIG, open_config, open_log
from optllm_router.cli.options import AsJson, ConfigFile, DatabaseFile, StoreUrl

if TYPE_CHECKING:
    from optllm_router.reconciling import ReconciledRow, Reconciliation

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
