"""`optllm front` and `optllm history`: what is learned, and what became of the money."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optllm_router.cli import output
from optllm_router.cli.opening import open_log
from optllm_router.cli.options import AsJson, ConfigFile, DatabaseFile, Group, Since, StoreUrl
from optllm_router.errors import NotTrainedError

if TYPE_CHECKING:
    from optllm_router.history import History, HistoryAttempt, HistoryDecision, HistoryRow
    from optllm_router.router.reports import PublishedFront

By = Annotated[Group, typer.Option("--by", help="What the money is grouped by.")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", "-n", min=1, metavar="N", help="Show the N newest decisions."),
]
OneDecision = Annotated[
    str | None,
    typer.Option("--decision", metavar="ID", help="Show one, by its id or a response's id."),
]
Imports = Annotated[
    bool, typer.Option("--imports", help="Count imported rows, which cost us nothing.")
]


def front(
    *,
    config: ConfigFile = None,
    store: StoreUrl = None,
    db: DatabaseFile = None,
    as_json: AsJson = False,
) -> None:
    """Draw the front that is published now."""
    with open_log(config, store, db) as log:
        from optllm_router.learning import load_current
        from optllm_router.router.reports import published_front

        snapshot = load_current(log)
        if snapshot is None:
            n_labels = log.n_graded()
            raise NotTrainedError(
                f"nothing is learned yet from {n_labels} labels, so there is no front: `optllm "
                "probe` or `optllm import` give labels, `optllm retrain` learns from them.",
                n_labels=n_labels,
            )
        published = published_front(snapshot)
    if as_json:
        output.print_json(published.to_dict())
    else:
        _show_front(published)


def history(  # noqa: PLR0913  # one parameter per option
    *,
    by: By = Group.CANDIDATE,
    limit: Limit = None,
    decision: OneDecision = None,
    since: Since = None,
    imports: Imports = False,
    config: ConfigFile = None,
    store: StoreUrl = None,
    db: DatabaseFile = None,
    as_json: AsJson = False,
) -> None:
    """Show where the money went, and recent decisions."""
    with open_log(config, store, db) as log:
        from optllm_router.history import History

        asked = History(log)
        if decision is not None:
            _show_decision(asked.decision(decision), as_json=as_json)
            return
        rows = asked.summary(by.value, since=since, include_imports=imports)
        newest = None if limit is None else asked.decisions(limit=limit)
        if not rows:
            output.say(_why_empty(asked, since))
    _show_history(by.value, rows, newest, as_json=as_json)


def _show_front(front: PublishedFront) -> None:
    from optllm_router.demo.draw import Mark, draw_front

    marks = [
        Mark(name=one.name, cost_usd=one.expected_cost_usd, accuracy=one.prob)
        for one in front.candidates
        if one.expected_cost_usd is not None and one.prob is not None
    ]
    drawn = draw_front(
        [point.cost_usd for point in front.points],
        [min(max(point.honest_accuracy, 0.0), 1.0) for point in front.points],
        marks=marks,
    )
    rows = [
        [one.name, output.share(one.prob), output.usd(one.expected_cost_usd), f"{one.n_labels:,}"]
        for one in front.candidates
    ]
    headers = ("candidate", "mean score", "mean cost", "labels")
    output.show(
        drawn,
        output.table(headers, rows),
        f"per query, over the newest {front.n_queries:,}; predictor {front.version}, fitted on "
        f"{front.n_labels:,} labels",
    )


def _show_history(
    by: str,
    rows: Sequence[HistoryRow],
    newest: Sequence[HistoryDecision] | None,
    *,
    as_json: bool,
) -> None:
    if as_json:
        values: dict[str, Any] = {"by": by, "rows": [row.to_dict() for row in rows]}
        if newest is not None:
            values["decisions"] = [one.to_dict() for one in newest]
        output.print_json(values)
        return
    headers = (by, "decisions", "calls", "errors", "cost", "graded", "mean score", "latency")
    nameless = "(no answer)" if by == Group.CANDIDATE else "(none)"
    if rows:
        output.show(output.table(headers, (_summary_row(row, nameless) for row in rows)))
    if newest is not None:
        recent = ("decision", "time", "kind", "served", "task", "cost", "score")
        output.show(output.table(recent, map(_decision_row, newest), left=5))


def _why_empty(asked: History, since: datetime | None) -> str:
    """Say why there is nothing to sum up: imported rows are counted only when asked for."""
    when = "yet" if since is None else f"since {_time(since)}"
    imported = asked.summary("kind", since=since, include_imports=True)
    n_rows = sum(row.n_decisions for row in imported)
    if not n_rows:
        return f"nothing is logged {when}"
    return (
        f"no calls {when}, only {n_rows:,} imported rows, which cost us nothing: `--imports` "
        "counts them"
    )


def _summary_row(row: HistoryRow, nameless: str) -> list[str]:
    latency = row.mean_latency_s
    return [
        row.key or nameless,
        f"{row.n_decisions:,}",
        f"{row.n_attempts:,}",
        f"{row.n_errors:,}",
        output.usd(row.cost_usd) + (" + unknown" if row.n_unpriced else ""),
        f"{row.n_graded:,}",
        output.share(row.mean_score),
        "-" if latency is None else f"{latency:.2f} s",
    ]


def _decision_row(one: HistoryDecision) -> list[str]:
    return [
        one.decision_id,
        _time(one.created_at),
        one.kind,
        one.served or "-",
        one.task or "-",
        output.usd(one.cost_usd),
        output.share(one.score),
    ]


def _show_decision(one: HistoryDecision, *, as_json: bool) -> None:
    if as_json:
        output.print_json(one.to_dict())
        return
    headers = ("call", "status", "error", "tokens in", "out", "cost", "latency")
    calls = output.table(headers, map(_call_row, one.attempts), left=3)
    output.show(output.facts(_known(one)), calls)
    if one.outcomes:
        rows = [
            [grade.source, _time(grade.created_at), f"{grade.score:.3f}"] for grade in one.outcomes
        ]
        output.show(output.table(("graded by", "time", "score"), rows, left=2))


def _known(one: HistoryDecision) -> dict[str, str]:
    expected = output.share(one.expected_accuracy), output.usd(one.expected_cost_usd)
    known = {
        "decision": one.decision_id,
        "time": _time(one.created_at),
        "kind": one.kind,
        "asked for": one.requested,
        "chosen": one.chosen,
        "served": one.served or "-",
        "policy": one.policy,
        "reason": one.reason,
        "task": one.task or "-",
        "tags": ", ".join(one.tags) or "-",
        "session": one.session_id or "-",
        "batch": one.batch_id or "-",
        "predictor": one.predictor_version or "-",
        "expected": " for ".join(expected),
        "cost": output.usd(one.cost_usd),
        "score": output.share(one.score),
    }
    return known if one.prompt is None else known | {"prompt": one.prompt}


def _call_row(attempt: HistoryAttempt) -> list[str]:
    return [
        attempt.candidate,
        attempt.status,
        attempt.error_class or "",
        _count(attempt.prompt_tokens),
        _count(attempt.completion_tokens),
        output.usd(attempt.cost_usd) + (" (forecast)" if attempt.estimated else ""),
        f"{attempt.latency_s:.2f} s",
    ]


def _count(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


def _time(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
