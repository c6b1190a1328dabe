"""`optllm run`, `plan` and `explain`: answers for money, and what would be done without any."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optllm_router.cli import output
from optllm_router.cli.answers import Line, answer_lines, summarise
from optllm_router.cli.failures import FAILED
from optllm_router.cli.opening import open_router
from optllm_router.cli.options import (
    AsJson,
    BudgetUsd,
    Concurrency,
    ConfigFile,
    NamedPolicy,
    StoreUrl,
    Target,
    WorthOfSuccess,
    asked_policy,
)
from optllm_router.cli.resuming import Run, writable

if TYPE_CHECKING:
    from optllm_router.core.planning import Plan
    from optllm_router.router.reports import Explanation

MAX_POINTS = 60

Queries = Annotated[Path, typer.Argument(metavar="FILE", help="Queries, as .jsonl, .csv or .txt.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="FILE", help="Where the answers go, as JSONL; else to the output."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace answers that are there already.")]
BatchId = Annotated[
    str | None,
    typer.Option("--batch-id", metavar="NAME", help="Go on under this name when run again."),
]
SkipInterrupted = Annotated[
    bool,
    typer.Option(
        "--skip-interrupted", help="Leave out what was being asked when the run before ended."
    ),
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Tag every call; repeatable.")
]
QuestionBudgetUsd = Annotated[
    float | None,
    typer.Option("--budget", metavar="USD", help="Spend no more than this on the question."),
]
Task = Annotated[str | None, typer.Option("--task", help="The kind of question it is.")]
Text = Annotated[str, typer.Argument(metavar="TEXT", help="The question; - reads it from input.")]


def run(  # noqa: PLR0913  # one parameter per option
    file: Queries,
    *,
    out: Out = None,
    budget: BudgetUsd = None,
    target: Target = None,
    wtp: WorthOfSuccess = None,
    policy: NamedPolicy = None,
    tag: Tags = None,
    concurrency: Concurrency = 16,
    force: Force = False,
    batch_id: BatchId = None,
    skip_interrupted: SkipInterrupted = False,
    config: ConfigFile = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Answer a file of queries, under a policy or budget.

    Every query gets a line in its place: index, candidate, text, cost_usd and decision_id, or
    index, error and error_class. Some failures are remarked on; only when every query failed
    does the command end with 1. Without --out the answers are the output, and the summary is
    part of it with --json, a remark otherwise.

    Run again, the same command goes on: with --out, where a run to that file ended before all was
    answered; with --batch-id, in any case. What was answered is not asked again, what failed is.
    The log keeps the answers meanwhile: with --out until the file holds them all, with --batch-id
    until `optllm forget`.
    """
    from optllm_router.outcomes import read_requests

    requests = read_requests(file)
    asked = asked_policy(budget=budget, target=target, wtp=wtp, name=policy)
    this = Run(out=out, batch_id=batch_id, force=force)
    with (
        writable(out),
        open_router(config, store) as router,
        this.begun(router, skips=skip_interrupted),
    ):
        responses = router.complete_batch(
            requests,
            policy=asked,
            concurrency=concurrency,
            progress=sys.stderr.isatty(),
            batch_id=this.name,
            interrupted="skip" if skip_interrupted else "ask",
            tags=tag or None,
        )
        router.flush()  # so that grades are there to be read
        lines = answer_lines(router.history, responses)
        this.write(lines)
        remarks = this.end(router, lines)
    _show_run(lines, remarks, out=out, as_json=as_json)
    raise typer.Exit(FAILED if all("error" in line for line in lines) else 0)


def plan(  # noqa: PLR0913  # one parameter per option
    file: Queries,
    *,
    budget: BudgetUsd = None,
    target: Target = None,
    wtp: WorthOfSuccess = None,
    policy: NamedPolicy = None,
    config: ConfigFile = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Decide a file of queries and spend nothing."""
    from optllm_router.outcomes import read_requests

    requests = read_requests(file)
    asked = asked_policy(budget=budget, target=target, wtp=wtp, name=policy)
    with open_router(config, store) as router:
        made = router.plan(requests, policy=asked)
    values = _plan_values(made)
    if as_json:
        output.print_json(values)
    else:
        _show_plan(made, values)


def explain(  # noqa: PLR0913  # one parameter per option
    text: Text,
    *,
    task: Task = None,
    budget: QuestionBudgetUsd = None,
    target: Target = None,
    wtp: WorthOfSuccess = None,
    policy: NamedPolicy = None,
    config: ConfigFile = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say what would be done with a question, and why."""
    question = sys.stdin.read() if text == "-" else text
    asked = asked_policy(budget=budget, target=target, wtp=wtp, name=policy)
    with open_router(config, store) as router:
        explanation = router.explain(question, task=task, policy=asked)
    if as_json:
        output.print_json(explanation.to_dict())
    else:
        _show_explanation(explanation)


def _show_run(
    lines: Sequence[Line], remarks: Sequence[str], *, out: Path | None, as_json: bool
) -> None:
    summary = summarise(lines)
    summary["remarks"] += remarks
    for remark in summary["remarks"]:
        output.say(remark)
    if as_json:
        where = {"out": str(out)} if out is not None else {"answers": lines}
        output.print_json({**summary, **where})
        return
    headers = ("candidate", "answers", "cost", "graded", "mean score")
    rows = [
        [
            one["name"],
            f"{one['n_answers']:,}",
            output.usd(one["cost_usd"]),
            f"{one['n_graded']:,}",
            output.share(one["mean_score"]),
        ]
        for one in summary["candidates"]
    ]
    told = (
        f"{summary['n_answered']:,} of {summary['n_queries']:,} queries answered for "
        f"{output.usd(summary['cost_usd'])}"
    )
    if out is None:
        output.print_json_lines(lines)
        output.say(told)
    else:
        output.show(output.table(headers, rows), f"{told}; the answers are in {out}")


def _plan_values(plan: Plan) -> dict[str, Any]:
    import numpy as np

    front = plan.front
    points = np.unique(np.linspace(0, front.n_points - 1, MAX_POINTS).round().astype(np.int64))
    return {
        "policy": _described(plan),
        "reason": plan.reason,
        "n_queries": int(plan.choice.size),
        "expected_cost_usd": plan.expected_cost_usd,
        "cost_range_usd": plan.cost_range_usd,
        "worst_cost_usd": plan.worst_cost_usd,
        "expected_accuracy": plan.expected_accuracy,
        "candidates": [_planned(plan, j) for j in range(len(plan.columns))],
        "choice": [plan.columns[j] for j in plan.choice],
        "front": [
            {"cost_usd": float(front.cost_usd[k]), "accuracy": float(plan.honest_accuracy[k])}
            for k in points
        ],
    }


def _planned(plan: Plan, j: int) -> dict[str, Any]:
    rows = plan.choice == j
    prob = plan.estimates.prob[rows, j]
    return {
        "name": plan.columns[j],
        "n_queries": int(rows.sum()),
        "expected_cost_usd": float(plan.estimates.cost_usd[rows, j].sum()),
        "mean_prob": float(prob.mean()) if prob.size else None,
    }


def _show_plan(plan: Plan, values: Mapping[str, Any]) -> None:
    import numpy as np

    from optllm_router.demo.draw import Mark, draw_front

    accuracy = min(max(plan.expected_accuracy, 0.0), 1.0)
    current = Mark(name="this plan", cost_usd=plan.expected_cost_usd, accuracy=accuracy)
    headers = ("candidate", "queries", "expected cost", "estimated success")
    rows = [
        [
            one["name"],
            f"{one['n_queries']:,}",
            output.usd(one["expected_cost_usd"]),
            output.share(one["mean_prob"]),
        ]
        for one in values["candidates"]
    ]
    output.show(
        draw_front(plan.front.cost_usd, np.clip(plan.honest_accuracy, 0, 1), current=current),
        output.table(headers, rows),
        f"{values['policy']}: {values['n_queries']:,} queries for about "
        f"{output.usd(plan.expected_cost_usd)} at an expected accuracy of "
        f"{plan.expected_accuracy:.3f}; nothing was spent",
        _spread_of(plan),
    )


def _spread_of(plan: Plan) -> str:
    worst = f"{output.usd(plan.worst_cost_usd)} at worst"
    if plan.cost_range_usd is None:
        return worst
    low, high = map(output.usd, plan.cost_range_usd)
    return f"{low} if all answers are short together, {high} if all are long (10 and 90 %), {worst}"


def _described(plan: Plan) -> str:
    from optllm_router.core.policy import describe

    return describe(plan.policy)


def _show_explanation(explanation: Explanation) -> None:
    quality = [
        [one.name, one.status, output.share(one.prob), output.share(one.std), f"{one.n_labels:,}"]
        for one in explanation.columns
    ]
    costs = [
        [
            one.name,
            output.usd(one.expected_cost_usd),
            output.usd(one.low_cost_usd),
            output.usd(one.high_cost_usd),
            output.usd(one.worst_cost_usd),
        ]
        for one in explanation.columns
    ]
    known = {
        "chosen": explanation.chosen,
        "policy": explanation.policy,
        "reason": explanation.reason,
        "task": explanation.task or "-",
        "prompt": f"{explanation.n_prompt_tokens:,} tokens",
    }
    output.show(
        output.table(("candidate", "status", "success", "±", "labels"), quality, left=2),
        output.table(("candidate", "expected cost", "10 %", "90 %", "worst case"), costs),
        output.facts(known),
    )
