"""`optllm evaluate`: how good the routing is, on a table of outcomes or on the own log."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optllm_router.bench.names import FAST_ROUTERS, ROUTER_NAMES
from optllm_router.cli import output
from optllm_router.cli.opening import open_log
from optllm_router.errors import ConfigError

if TYPE_CHECKING:
    from optllm_router.bench.problem import Problem
    from optllm_router.bench.records import ExtraTable, Report
    from optllm_router.bench.study import Plan


class SplitName(StrEnum):
    """How labelled and test queries are told apart."""

    RANDOM = "random"
    TEXT = "text"
    TASK = "task"
    TIME = "time"


Data = Annotated[
    Path | None,
    typer.Argument(metavar="DATA", help="Outcomes of every model: .parquet, .csv or .jsonl."),
]
Labels = Annotated[
    list[float] | None,
    typer.Option(
        "--labels", metavar="N...", help="Labelled queries, or a share below 1.  [default: 300]"
    ),
]
Seeds = Annotated[int, typer.Option("--seeds", min=1, metavar="K", help="Splits to average over.")]
Routers = Annotated[
    list[str] | None,
    typer.Option("--routers", metavar="NAME...", help=f"Of {', '.join(ROUTER_NAMES)}, or all."),
]
Split = Annotated[SplitName, typer.Option("--split", help="What the test part shares not.")]
OracleCosts = Annotated[
    bool, typer.Option("--oracle-costs", help="Tell routers the test costs, as the papers do.")
]
Bootstraps = Annotated[
    int, typer.Option("--bootstraps", min=2, metavar="N", help="OptLLM's; its paper has 100.")
]
Resamples = Annotated[
    int, typer.Option("--resamples", min=0, metavar="N", help="Of test texts, for intervals.")
]
Fronts = Annotated[
    bool, typer.Option("--fronts", help="Also compare searches on identical estimates.")
]
Regimes = Annotated[bool, typer.Option("--regimes", help="Also run MetaLLM's three regimes.")]
StoreUrl = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="Evaluate this log instead of DATA.")
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="[FILE]", help="Write JSON, to standard output without FILE."),
]
HtmlFile = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write a report to open.")
]


def evaluate(  # noqa: PLR0913  # one option each
    data: Data = None,
    *,
    labels: Labels = None,
    seeds: Seeds = 3,
    routers: Routers = None,
    split: Split = SplitName.RANDOM,
    oracle_costs: OracleCosts = False,
    bootstraps: Bootstraps = 20,
    resamples: Resamples = 100,
    fronts: Fronts = False,
    regimes: Regimes = False,
    store: StoreUrl = None,
    as_json: JsonFile = None,
    html: HtmlFile = None,
) -> None:
    """Measure the routing against baselines, on your data.

    DATA has one row per query and model, as `optllm import` reads it. Everything is fitted on the
    labelled queries and judged on the others; costs are forecast. With --store the served batches
    of a log are reported instead, and what such a log cannot tell.
    """
    if (data is None) == (store is None):
        raise ConfigError("evaluate takes either DATA or --store URL: name one of them")
    _check_targets(data, as_json, html)
    if store is not None:
        _evaluate_log(store, as_json, html)
        return
    from optllm_router.bench.problem import n_labelled
    from optllm_router.bench.routing import Terms
    from optllm_router.bench.study import Plan, known_routers

    problem = _problem(Path(str(data)))
    asked = routers or list(FAST_ROUTERS)
    plan = Plan(
        n_labelled=sorted({n_labelled(n, problem.n_queries) for n in labels or [300]}),
        n_seeds=seeds,
        routers=known_routers(ROUTER_NAMES if "all" in asked else asked),
        kind=split.value,
        terms=Terms(oracle_costs=oracle_costs, n_bootstraps=bootstraps),
        n_resamples=resamples,
    )
    _finish(_measured(problem, plan, fronts=fronts, regimes=regimes), as_json, html)


def _check_targets(data: Path | None, *files: Path | None) -> None:
    """Refuse what could not be written, before minutes are spent on it. Raises: ConfigError."""
    for file in files:
        if file is None or str(file) == "-":
            continue
        if data is not None and file.resolve() == data.resolve():
            raise ConfigError(f"'{file}' is DATA, which a report would overwrite: name another one")
        if file.is_dir() or not file.parent.is_dir():
            raise ConfigError(f"'{file}' cannot be written: name a file in a folder that exists")


def _problem(path: Path) -> Problem:
    from optllm_router.bench.problem import problem_of
    from optllm_router.outcomes import read_outcomes

    problem, n_incomplete = problem_of(read_outcomes(path), str(path))
    if n_incomplete:
        output.say(
            f"{n_incomplete:,} queries are left out: they lack a score or a cost of some model"
        )
    return problem


def _measured(problem: Problem, plan: Plan, *, fronts: bool, regimes: bool) -> Report:
    from dataclasses import replace

    from optllm_router.bench.study import evaluate as evaluated

    with _progress(plan.n_runs) as advance:
        report = evaluated(problem, plan, advance)
        tables = tuple(_extra_tables(problem, plan, fronts=fronts, regimes=regimes))
    command = "optllm " + " ".join(shlex.quote(word) for word in sys.argv[1:])
    return replace(report, tables=tables, notes=(command,))


def _extra_tables(
    problem: Problem, plan: Plan, *, fronts: bool, regimes: bool
) -> Iterator[ExtraTable]:
    from optllm_router.bench.fronts import fronts_table
    from optllm_router.bench.papers import regimes_table
    from optllm_router.bench.problem import split

    for n in plan.n_labelled:
        part = split(problem, plan.kind, n, 0)
        if fronts:
            yield from fronts_table(part, plan.terms)
        if regimes:
            yield regimes_table(part)


@contextmanager
def _progress(n_runs: int) -> Iterator[Any]:
    """Show what runs, and how many of the runs are done, where someone watches."""
    if not sys.stderr.isatty():
        yield lambda _label: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    text = TextColumn("{task.description}")
    with Progress(*columns, text, console=output.stderr_console()) as progress:
        bar = progress.add_task("starting", total=n_runs, completed=-1)
        yield lambda label: progress.update(bar, advance=1, description=label)


def _finish(report: Report, as_json: Path | None, html: Path | None) -> None:
    """Write the report where it was asked for, and as tables where nothing else goes there."""
    from optllm_router.bench.reporting import as_dict, report_tables

    if html is not None:
        from optllm_router.bench.html import render_html

        html.write_text(render_html(report), encoding="utf-8")
        output.say(f"wrote {html}")
    _write_json(as_dict(report), as_json)
    if as_json is None or str(as_json) != "-":
        _show_tables(report_tables(report))


def _evaluate_log(url: str, as_json: Path | None, html: Path | None) -> None:
    from optllm_router.bench.stored import stored_report, stored_tables

    if html is not None:
        raise ConfigError("`--html` reports on DATA: with `--store`, leave it out")
    with open_log(None, url, None) as log:
        report = stored_report(log)
    _write_json(report.to_dict(), as_json)
    if as_json is None or str(as_json) != "-":
        _show_tables(stored_tables(report))


def _write_json(value: Any, as_json: Path | None) -> None:
    if as_json is None:
        return
    if str(as_json) == "-":
        output.print_json(value)
        return
    import json

    as_json.write_text(json.dumps(output.plain(value), indent=1) + "\n", encoding="utf-8")
    output.say(f"wrote {as_json}")


def _show_tables(tables: Sequence[ExtraTable]) -> None:
    for one in tables:
        output.show(output.table(one.header, one.rows, title=one.title))
        if one.note:
            output.show(one.note)
