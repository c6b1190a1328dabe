"""`optllm import`, `probe`, `feedback` and `retrain`: labels into the log, and what they teach."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optllm_router.cli import output
from optllm_router.cli.failures import FAILED
from optllm_router.cli.opening import open_config, open_log, open_router
from optllm_router.cli.options import (
    AsJson,
    Concurrency,
    ConfigFile,
    DatabaseFile,
    StoreUrl,
    Yes,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from optllm_router.dispatch.probing import ProbeReport
    from optllm_router.outcomes import ImportReport

Outcomes = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="One row per query and model, as .csv, .jsonl or .parquet."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only judge the file.")]
Queries = Annotated[
    Path, typer.Argument(metavar="FILE", help="Queries with references, as .jsonl or .csv.")
]
Sample = Annotated[
    int | None,
    typer.Option("--sample", min=1, metavar="N", help="Ask only so many of them, at random."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of the sample.")]
Reference = Annotated[
    str | None, typer.Argument(metavar="REF", help="A decision id, or a response's own id.")
]
Score = Annotated[
    float | None, typer.Argument(metavar="SCORE", help="From 0 (useless) to 1 (right).")
]
Scores = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="FILE", help="Many of them: .csv or .jsonl with decision_id and score."
    ),
]


def import_outcomes(
    file: Outcomes,
    *,
    dry_run: DryRun = False,
    config: ConfigFile = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Take your own graded answers into the log.

    Needed columns: query, model, score; optional: query_id, task, cost_usd, prompt_tokens,
    completion_tokens, answer, reference. A file with mistakes is refused whole (1).
    """
    from optllm_router.outcomes import check_outcomes

    settings = open_config(config, store)
    names = {name for one in settings.candidates for name in (one.name, one.model)}
    table, report = check_outcomes(file, candidates=names)
    if table is not None and not dry_run:
        with open_router(config, store) as router:
            report = router.import_outcomes(file)
    _show_import(report, as_json=as_json)
    if report.problems:
        raise typer.Exit(FAILED)


def probe(  # noqa: PLR0913  # one parameter per option
    file: Queries,
    *,
    sample: Sample = None,
    seed: Seed = 0,
    concurrency: Concurrency = 16,
    yes: Yes = False,
    config: ConfigFile = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Ask every candidate about a sample, grade and log.

    Says first what it can cost at most, and asks. With --json, or where nobody can be asked,
    --yes is needed. Failed calls are remarked on; only when every call failed does the command
    end with 1.
    """
    from optllm_router.cli.worst_case import probe_worst_case
    from optllm_router.outcomes import read_requests

    requests = _sampled(read_requests(file), sample, seed)
    with open_router(config, store) as router:
        n_calls, worst_usd = probe_worst_case(router.candidates, requests)
        question = (
            f"Ask {len(router.candidates)} candidates about {len(requests):,} queries: "
            f"{n_calls:,} calls for at most {output.usd(worst_usd)}?"
        )
        output.confirm(question, yes=yes, as_json=as_json)
        report = router.probe(requests, concurrency=concurrency, progress=sys.stderr.isatty())
    _show_probe(report, as_json=as_json)
    if report.n_errors == report.n_calls:
        raise typer.Exit(FAILED)


def feedback(  # noqa: PLR0913  # one parameter per option
    reference: Reference = None,
    score: Score = None,
    *,
    file: Scores = None,
    config: ConfigFile = None,
    store: StoreUrl = None,
    db: DatabaseFile = None,
    as_json: AsJson = False,
) -> None:
    """Say how good an answer was, also days later.

    A file is taken whole or not at all; the answers of `optllm run`, with scores, are one.
    """
    from optllm_router.cli.scores import given_scores, write_feedback

    given = given_scores(reference, score, file)
    with open_log(config, store, db) as log:
        n_changed = write_feedback(log, given)
    if as_json:
        output.print_json({"n_given": len(given), "n_changed": n_changed})
    else:
        output.show(f"{len(given):,} scores, {n_changed:,} new or changed")


def retrain(*, config: ConfigFile = None, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Refit on the log; publish unless it is worse."""
    with open_router(config, store) as router:
        report = router.retrain()
    if as_json:
        output.print_json(report.to_dict())
        return
    metrics = {
        name: output.share(report.metrics[name])
        for name in ("brier", "brier_of_means")
        if name in report.metrics
    }
    known = {
        "published": "yes" if report.published else "no",
        "version": report.version or "-",
        "labels": f"{report.n_labels:,}",
        "reason": report.reason,
    }
    output.show(output.facts(known | metrics))


def _sampled(requests: Sequence[Any], n: int | None, seed: int) -> list[Any]:
    if n is None or n >= len(requests):
        return list(requests)
    import numpy as np

    rows = np.random.default_rng(seed).permutation(len(requests))[:n]
    return [requests[row] for row in sorted(rows.tolist())]


def _show_import(report: ImportReport, *, as_json: bool) -> None:
    if as_json:
        output.print_json(report.to_dict())
        return
    if report.mean_score:
        headers = ("model", "mean score", "cost")
        output.show(_score_table(headers, report.mean_score, report.cost_usd))
    for remark in report.remarks:
        output.say(f"remark: {remark}")
    for problem in report.problems:
        output.say(f"problem: '{report.path}': {problem}")
    output.show(
        f"{report.n_rows:,} rows, {report.n_queries:,} queries, {report.n_models:,} models, "
        f"{report.n_tasks:,} tasks; {report.n_missing:,} pairs missing, {report.n_ungraded:,} "
        f"ungraded; {report.n_imported:,} imported"
    )


def _show_probe(report: ProbeReport, *, as_json: bool) -> None:
    if report.n_errors:
        output.say(f"{report.n_errors:,} of {report.n_calls:,} calls failed at the provider")
    if not report.n_graded:
        output.say("no answer was graded: give `reference`s, and [graders] in the settings")
    if as_json:
        output.print_json(report.to_dict())
        return
    headers = ("candidate", "mean score", "mean cost")
    output.show(
        _score_table(headers, report.mean_score, report.mean_cost_usd),
        f"{report.n_queries:,} queries, {report.n_calls:,} calls for {output.usd(report.cost_usd)},"
        f" {report.n_graded:,} graded; next: `optllm retrain`",
    )


def _score_table(
    headers: Sequence[str],
    mean_score: Mapping[str, float],
    cost_usd: Mapping[str, float | None],
) -> RenderableType:
    """One row per name that has a cost, or a None for one."""
    rows = [
        [name, output.share(mean_score.get(name)), output.usd(cost)]
        for name, cost in cost_usd.items()
    ]
    return output.table(headers, rows)
