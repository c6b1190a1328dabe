"""A report as JSON values, and as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from optllm_router.bench.records import FIGURES, ExtraTable, Report, Row, Run
from optllm_router.core.evaluation import Interval

SHOWN = (
    "saving_crossfit",
    "shortfall_crossfit",
    "saving_at_best",
    "max_accuracy",
    "budget_area",
    "overspend",
)
POLICY_FIGURES = (
    "target_shortfall",
    "target_missed",
    "target_saving",
    "budget_score",
    "budget_overspend",
)
QUALITY_FIGURES = ("ece", "brier", "log_loss", "cost_error", "cost_error_per_query")
FRONT_FIGURES = ("aiq", "qnc", "igd", "igd_plus", "hypervolume", "spread")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Realised curves": SHOWN,
    "Policies": POLICY_FIGURES,
    "Estimates": QUALITY_FIGURES,
    "Areas and fronts": FRONT_FIGURES,
}


def as_dict(report: Report) -> dict[str, Any]:
    """Return a report as JSON values."""
    return {
        "source": report.source,
        "n_queries": report.n_queries,
        "n_texts": report.n_texts,
        "split": report.split,
        "costs": report.costs,
        "n_seeds": report.n_seeds,
        "n_resamples": report.n_resamples,
        "n_test": {str(n): size for n, size in report.n_test.items()},
        "singles": [
            {"candidate": one.candidate, "score": one.score, "cost_usd": one.cost_usd}
            for one in report.singles
        ],
        "rows": [_row(row) for row in report.rows],
        "runs": [_run(run) for run in report.runs],
        "tables": [
            {"title": t.title, "header": t.header, "rows": t.rows, "note": t.note}
            for t in report.tables
        ],
        "notes": report.notes,
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "router": row.router,
        "n_labelled": row.n_labelled,
        "n_seeds": row.n_seeds,
        "figures": {name: _ends(found) for name, found in row.figures.items()},
        "against_zero": {name: _ends(found) for name, found in row.against_zero.items()},
        "note": row.note,
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "router": run.router,
        "n_labelled": run.n_labelled,
        "seed": run.seed,
        "seconds": run.seconds,
        "figures": dict(run.figures),
        "note": run.note,
    }


def _ends(found: Interval) -> dict[str, float]:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def report_tables(report: Report) -> list[ExtraTable]:
    """Return the tables of a report: candidates, figures by group, and what was asked beside."""
    return [_singles(report), *_figures(report), *_against(report), *report.tables]


def _singles(report: Report) -> ExtraTable:
    rows = sorted(report.singles, key=lambda one: -one.score)
    return ExtraTable(
        title=f"{report.source}: {report.n_queries:,} queries, {report.n_texts:,} distinct texts",
        header=("candidate", "mean score", "cost, USD"),
        rows=tuple((one.candidate, f"{one.score:.4f}", f"{one.cost_usd:.4g}") for one in rows),
    )


def _figures(report: Report) -> Iterator[ExtraTable]:
    for n, n_test in report.n_test.items():
        own = [row for row in report.rows if row.n_labelled == n]
        for title, names in GROUPS.items():
            shown = [name for name in names if any(name in row.figures for row in own)]
            if shown:
                yield _group(report, own, f"{title}, {n:,} labelled, n = {n_test:,} test", shown)


def _group(report: Report, rows: list[Row], title: str, names: list[str]) -> ExtraTable:
    return ExtraTable(
        title=f"{title}, split {report.split}, {report.costs} costs, {report.n_seeds} seeds",
        header=("router", *(f"{FIGURES[name].label} ({FIGURES[name].unit})" for name in names)),
        rows=tuple(
            (row.router, *(interval_text(row.figures.get(name)) for name in names)) for row in rows
        ),
    )


def _against(report: Report) -> Iterator[ExtraTable]:
    for n in report.n_test:
        own = [row for row in report.rows if row.n_labelled == n and row.against_zero]
        names = [name for name in SHOWN if any(name in row.against_zero for row in own)]
        if own:
            yield ExtraTable(
                title=f"Difference from the zero-router, paired, {n:,} labelled",
                header=("router", *(FIGURES[name].label for name in names)),
                rows=tuple(
                    (row.router, *(interval_text(row.against_zero.get(f), "+") for f in names))
                    for row in own
                ),
            )


def interval_text(found: Interval | None, sign: str = "") -> str:
    """Write a figure with its 95 % interval, where it has one; a dash where there is none."""
    if found is None or not math.isfinite(found.mean):
        return "–"
    mean = f"{found.mean:{sign}.3f}" if abs(found.mean) >= 5e-4 else f"{found.mean:{sign}.1g}"
    if not math.isfinite(found.low):
        return mean
    return f"{mean} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
