"""`optllm evaluate`: how good the routing is, on a table of outcomes or on the own log."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
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
    from rich.progress import Progress

    from optllm_router.bench.problem import Problem
    from optllm_router.bench.records import ExtraTable, Report
    from optllm_router.bench.routing import Terms
    from optllm_router.bench.study import Plan

LOG_OPTIONS = frozenset({"store", "as_json", "html"})


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
        "--labels",
        metavar="N...",
        help="Labelled queries, or a share below 1.  [default: 300, at most half]",
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
Alpha = Annotated[
    float, typer.Option("--alpha", metavar="A", help="OptLLM's: standard deviations it adds.")
]
AsReleased = Annotated[
    bool, typer.Option("--as-released", help="OptLLM with the defects of its released code.")
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
    ctx: typer.Context,
    data: Data = None,
    *,
    labels: Labels = None,
    seeds: Seeds = 3,
    routers: Routers = None,
    split: Split = SplitName.RANDOM,
    oracle_costs: OracleCosts = False,
    bootstraps: Bootstraps = 20,
    alpha: Alpha = 0.5,
    as_released: AsReleased = False,
    resamples: Resamples = 100,
    fronts: Fronts = False,
    regimes: Regimes = False,
    store: StoreUrl = None,
    as_json: JsonFile = None,
    html: HtmlFile = None,
) -> None:
    """Measure the routing against baselines, on your data.

    Routers are fitted on some labelled queries of DATA, a table as `optllm import` reads it, and
    judged on the others. With --store the batches that a log served are reported instead.
    """
    _check_source(ctx, data, store)
    _check_targets(data, as_json, html)
    if store is not None:
        return _evaluate_log(store, as_json, html)
    from optllm_router.bench.study import Plan

    problem = _problem(Path(str(data)))
    plan = Plan(
        n_labelled=_sizes(labels, problem),
        n_seeds=seeds,
        routers=_routers(routers or FAST_ROUTERS),
        kind=split.value,
        terms=_terms(bootstraps, alpha, oracle_costs=oracle_costs, as_released=as_released),
        n_resamples=resamples,
    )
    return _finish(_measured(problem, plan, fronts=fronts, regimes=regimes), as_json, html)


def _check_source(ctx: typer.Context, data: Path | None, store: str | None) -> None:
    """Refuse both sources or none, and beside a log what only DATA has. Raises: ConfigError."""
    if (data is None) == (store is None):
        raise ConfigError("evaluate takes either DATA or --store URL: name one of them")
    given = [
        f"`{option.opts[0]}`"
        for option in ctx.command.params
        if option.name not in {"data", *LOG_OPTIONS} and _is_given(ctx, str(option.name))
    ]
    if store is not None and given:
        raise ConfigError(
            f"{', '.join(given)}: only an evaluation of DATA has this, so leave it out with "
            "`--store`, or evaluate a table of outcomes"
        )


def _is_given(ctx: typer.Context, name: str) -> bool:
    """Tell whether an option was written on the command line, be it its default."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_targets(data: Path | None, as_json: Path | None, html: Path | None) -> None:
    """Refuse what could not be written, before minutes are spent on it. Raises: ConfigError."""
    files = [file for file in (as_json, html) if file is not None and str(file) != "-"]
    for file in files:
        if data is not None and file.resolve() == data.resolve():
            raise ConfigError(
                f"'{file}' is what is evaluated, and a report would overwrite it: name another file"
            )
        if file.is_dir() or not file.parent.is_dir():
            raise ConfigError(f"'{file}' cannot be written: name a file in a folder that exists")
    if len(files) > len({file.resolve() for file in files}):
        raise ConfigError(
            f"`--json {as_json}` and `--html {html}` are one file, which the second report would "
            "overwrite: name two"
        )


def _sizes(labels: Sequence[float] | None, problem: Problem) -> list[int]:
    from optllm_router.bench.problem import labelled_sizes

    return labelled_sizes(labels, problem.n_queries)


def _routers(asked: Sequence[str]) -> tuple[str, ...]:
    from optllm_router.bench.study import known_routers

    return known_routers(ROUTER_NAMES if "all" in asked else asked)


def _terms(bootstraps: int, alpha: float, *, oracle_costs: bool, as_released: bool) -> Terms:
    from optllm_router.bench.routing import Terms

    if not math.isfinite(alpha):
        raise ConfigError(f"`--alpha {alpha:g}` is no number of standard deviations: give a finite")
    return Terms(
        oracle_costs=oracle_costs, n_bootstraps=bootstraps, alpha=alpha, as_released=as_released
    )


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

    n_extra = len(plan.n_labelled) * (fronts + regimes)
    with _progress(plan.n_runs + n_extra) as advance:
        report = evaluated(problem, plan, advance)
        extra = _extra_tables(problem, plan, fronts=fronts, regimes=regimes, advance=advance)
        tables = tuple(extra)
    notes = (*report.notes, command_line(sys.argv[1:]))
    return replace(report, tables=tables, notes=notes)


def _extra_tables(
    problem: Problem,
    plan: Plan,
    *,
    fronts: bool,
    regimes: bool,
    advance: Callable[[str], None],
) -> Iterator[ExtraTable]:
    from optllm_router.bench.fronts import fronts_table
    from optllm_router.bench.papers import regimes_table
    from optllm_router.bench.problem import split

    for n in plan.n_labelled:
        part = split(problem, plan.kind, n, 0)
        if fronts:
            advance(f"searches compared, {n} labelled")
            yield from fronts_table(part, plan.terms)
        if regimes:
            advance(f"MetaLLM's regimes, {n} labelled")
            yield regimes_table(part)


def command_line(words: Sequence[str], *, url: str = "", shown: str = "") -> str:
    """Return the command to rerun, a log's URL in it as it may be shown: without its password."""
    safe = [word.replace(url, shown) if url else word for word in words]
    return "optllm " + " ".join(map(shlex.quote, safe))


@contextmanager
def _progress(n_steps: int) -> Iterator[Callable[[str], None]]:
    """Show which step runs, and how many of them are done, where someone watches."""
    if not sys.stderr.isatty():
        yield lambda _label: None
        return
    with _bar() as progress:
        bar = progress.add_task("starting", total=n_steps, completed=-1)
        yield lambda label: progress.update(bar, advance=1, description=label, refresh=True)
        progress.update(bar, completed=n_steps, description="done")


@contextmanager
def _decisions_read() -> Iterator[Callable[[int], None] | None]:
    """Show how many decisions of a log were read, where someone watches."""
    if not sys.stderr.isatty():
        yield None
        return
    with _bar() as progress:
        bar = progress.add_task("decisions read", total=None)
        yield lambda n_more: progress.update(bar, advance=n_more, refresh=True)


def _bar() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    text = TextColumn("{task.description}")
    return Progress(*columns, text, console=output.stderr_console())


def _finish(report: Report, as_json: Path | None, html: Path | None) -> None:
    """Write the report where it was asked for, and as tables where nothing else goes there."""
    from optllm_router.bench.reporting import as_dict, report_tables

    if html is not None:
        from optllm_router.bench.html import render_html

        _write_html(render_html(report), html)
    _write_json(as_dict(report), as_json)
    if as_json is None or str(as_json) != "-":
        _show_tables(report_tables(report))


def _evaluate_log(url: str, as_json: Path | None, html: Path | None) -> None:
    from optllm_router.bench.stored import stored_report, stored_tables
    from optllm_router.store.database import parse_url, sqlite_file

    _check_targets(sqlite_file(parse_url(url)), as_json, html)
    with open_log(None, url, None) as log, _decisions_read() as advance:
        report = stored_report(log, advance=advance)
    tables = stored_tables(report)
    if html is not None:
        from optllm_router.bench.html import render_tables_html

        notes = (command_line(sys.argv[1:], url=url, shown=report.source),)
        _write_html(render_tables_html(f"What {report.source} tells", tables, notes=notes), html)
    _write_json(report.to_dict(), as_json)
    if as_json is None or str(as_json) != "-":
        _show_tables(tables)


def _write_html(page: str, file: Path) -> None:
    file.write_text(page, encoding="utf-8")
    output.say(f"wrote {file}")


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
