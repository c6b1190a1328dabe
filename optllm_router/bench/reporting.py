"""A report as JSON values, and as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from optllm_router.bench.figures import COMPARED, FIGURES, HEADLINE
from optllm_router.bench.html.numerals import decimals_of
from optllm_router.bench.records import ExtraTable, Reliability, Report, Row, Run, Single
from optllm_router.core.evaluation import Interval

POLICY_FIGURES = (
    "target_shortfall",
    "target_missed",
    "target_saving",
    "budget_score",
    "budget_overspend",
)
QUALITY_FIGURES = ("ece", "ece_pooled", "brier", "log_loss", "cost_error", "cost_error_per_query")
FRONT_FIGURES = ("aiq", "qnc", "igd", "igd_plus", "hypervolume", "spread")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Realised curves": HEADLINE,
    "Policies": POLICY_FIGURES,
    "Estimates": QUALITY_FIGURES,
    "Areas and fronts": FRONT_FIGURES,
}
KINDS: Mapping[str, str] = {
    "seeds and texts": "95 % intervals over seeds and test texts",
    "seeds": "95 % intervals over seeds only",
    "none": "no intervals",
}
NOISE = 1e-9  # below it a number is what rounding leaves of 0


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
        "singles": [_single(one) for one in report.singles],
        "test_singles": {
            str(n): [_single(one) for one in found] for n, found in report.test_singles.items()
        },
        "rows": [_row(row) for row in report.rows],
        "ours_against": [
            {
                "router": one.router,
                "n_labelled": one.n_labelled,
                "n_seeds": one.n_seeds,
                "figures": _intervals(one.figures, one.kinds),
            }
            for one in report.ours_against
        ],
        "runs": [_run(run) for run in report.runs],
        "tables": [
            {"title": t.title, "header": t.header, "rows": t.rows, "note": t.note}
            for t in report.tables
        ],
        "notes": report.notes,
    }


def _single(one: Single) -> dict[str, Any]:
    return {"candidate": one.candidate, "score": one.score, "cost_usd": one.cost_usd}


def _row(row: Row) -> dict[str, Any]:
    return {
        "router": row.router,
        "n_labelled": row.n_labelled,
        "n_seeds": row.n_seeds,
        "figures": _intervals(row.figures, row.kinds),
        "against_zero": _intervals(row.against_zero, row.against_kinds),
        "note": row.note,
    }


def _intervals(found: Mapping[str, Interval], kinds: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {"mean": one.mean, "low": one.low, "high": one.high, "kind": kinds.get(name)}
        for name, one in found.items()
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "router": run.router,
        "n_labelled": run.n_labelled,
        "n_test": run.n_test,
        "seed": run.seed,
        "seconds": run.seconds,
        "figures": dict(run.figures),
        "reliability": [_bins(one) for one in run.reliability],
        "drawn": {"cost_usd": run.drawn.cost_usd.tolist(), "score": run.drawn.score.tolist()},
        "note": run.note,
    }


def _bins(one: Reliability) -> dict[str, Any]:
    return {
        "candidate": one.candidate,
        "prob": one.prob.tolist(),
        "score": one.score.tolist(),
        "n": one.n.tolist(),
        "ece": one.ece,
        "brier": one.brier,
        "log_loss": one.log_loss,
    }


def report_tables(report: Report) -> list[ExtraTable]:
    """Return the tables of a report: candidates, figures by group, and what was asked beside."""
    return [
        _singles(report),
        *_figures(report),
        *_calibrations(report),
        *_against(report),
        *_rivals(report),
        *report.tables,
    ]


def _singles(report: Report) -> ExtraTable:
    rows = sorted(report.singles, key=lambda one: -one.score)
    return ExtraTable(
        title=f"{report.source}: {report.n_queries:,} queries, {report.n_texts:,} distinct texts",
        header=("candidate", "mean score", "cost, USD"),
        rows=tuple((one.candidate, f"{one.score:.4f}", f"{one.cost_usd:.4g}") for one in rows),
        note="\n".join(report.notes),
    )


def _figures(report: Report) -> Iterator[ExtraTable]:
    for n, n_test in report.n_test.items():
        own, note = [row for row in report.rows if row.n_labelled == n], _run_notes(report, n)
        for title, names in GROUPS.items():
            shown = [name for name in names if any(name in row.figures for row in own)]
            if shown:
                whole = f"{title}, {n:,} labelled, n = {n_test:,} test, split {report.split}"
                yield _group(report, own, names=shown, title=whole, note=note)
                note = ""  # once is enough


def _run_notes(report: Report, n: int) -> str:
    """What the runs with `n` labels say of themselves, a line per router."""
    by_router: dict[str, dict[str, None]] = {}
    for one in report.runs:
        if one.n_labelled == n and one.note:
            by_router.setdefault(one.router, {})[one.note] = None
    return "\n".join(f"{name}: {'; '.join(notes)}" for name, notes in by_router.items())


def _group(
    report: Report, rows: Sequence[Row], *, names: Sequence[str], title: str, note: str
) -> ExtraTable:
    kind, more = _kinds({row.router: row.kinds for row in rows}, names)
    return ExtraTable(
        title=f"{title}, {report.costs} costs, {_seeds(report.n_seeds)}{kind}",
        header=("router", *(f"{FIGURES[name].label} ({FIGURES[name].unit})" for name in names)),
        rows=_cells({row.router: row.figures for row in rows}, names),
        note="\n".join(part for part in (more, note) if part),
    )


def _seeds(n: int) -> str:
    return f"{n} seed" if n == 1 else f"{n} seeds"


def _kinds(by_router: Mapping[str, Mapping[str, str]], names: Sequence[str]) -> tuple[str, str]:
    """Name the intervals' kind for the title where it is one, else the figures of each in a note.

    A figure whose kind differs between routers stands under each with the routers' names.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        of_kind: dict[str, list[str]] = {}
        for router, kinds in by_router.items():
            if name in kinds:
                of_kind.setdefault(kinds[name], []).append(router)
        for kind, routers in of_kind.items():
            whose = f" ({', '.join(routers)})" if len(of_kind) > 1 else ""
            found.setdefault(kind, []).append(FIGURES[name].label + whose)
    if len(found) == 1:
        return f", {KINDS[next(iter(found))]}", ""
    said = [f"{KINDS[kind]}: {', '.join(found[kind])}" for kind in KINDS if kind in found]
    return "", "; ".join(said)


def _cells(
    by_router: Mapping[str, Mapping[str, Interval]], names: Sequence[str], sign: str = ""
) -> tuple[tuple[str, ...], ...]:
    decimals = {
        name: _decimals(name, [own[name] for own in by_router.values() if name in own])
        for name in names
    }
    return tuple(
        (router, *(interval_text(own.get(name), sign, decimals[name]) for name in names))
        for router, own in by_router.items()
    )


def _decimals(name: str, found: Iterable[Interval]) -> int:
    """Three; for amounts in USD, enough for three significant digits of the largest mean."""
    if FIGURES[name].unit != "USD":
        return 3
    return decimals_of(one.mean for one in found)


def _calibrations(report: Report) -> Iterator[ExtraTable]:
    """Every candidate's calibration, means over the seeds, per number of labels."""
    for n, n_test in report.n_test.items():
        found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
        for run in report.runs:
            for one in run.reliability if run.n_labelled == n else ():
                key = (run.router, one.candidate)
                found.setdefault(key, []).append((one.ece, one.brier, one.log_loss))
        if found:
            yield ExtraTable(
                title=f"Calibration of each candidate, {n:,} labelled, n = {n_test:,} test, "
                f"split {report.split}, means over {_seeds(report.n_seeds)}",
                header=(
                    "router",
                    "candidate",
                    "ECE (score)",
                    "Brier score (score)",
                    "log loss (nat)",
                ),
                rows=tuple(
                    (*key, *(number_text(fmean(column)) for column in zip(*each, strict=True)))
                    for key, each in found.items()
                ),
            )


def _against(report: Report) -> Iterator[ExtraTable]:
    for n in report.n_test:
        own = [row for row in report.rows if row.n_labelled == n and row.against_zero]
        names = [name for name in HEADLINE if any(name in row.against_zero for row in own)]
        if own:
            figures = {row.router: row.against_zero for row in own}
            kinds = {row.router: row.against_kinds for row in own}
            title = f"Difference from the zero-router, paired, {n:,} labelled"
            yield _differences(report, title, "router", names, (figures, kinds))


def _rivals(report: Report) -> Iterator[ExtraTable]:
    for n in report.n_test:
        found = report.rivals(n)
        if found:
            figures = {one.router: one.figures for one in found}
            kinds = {one.router: one.kinds for one in found}
            title = f"Ours against each other router, paired, {n:,} labelled"
            yield _differences(report, title, "ours minus", COMPARED, (figures, kinds))


def _differences(
    report: Report,
    title: str,
    corner: str,
    names: Sequence[str],
    found: tuple[Mapping[str, Mapping[str, Interval]], Mapping[str, Mapping[str, str]]],
) -> ExtraTable:
    """A table of paired differences; `found` are they and their intervals' kinds, by router."""
    figures, kinds = found
    kind, note = _kinds(kinds, names)
    return ExtraTable(
        title=f"{title}, {_seeds(report.n_seeds)}{kind}",
        header=(corner, *(FIGURES[name].label for name in names)),
        rows=_cells(figures, names, "+"),
        note=note,
    )


def interval_text(found: Interval | None, sign: str = "", decimals: int = 3) -> str:
    """Write a figure with its 95 % interval, where it has one; a dash where there is none."""
    if found is None or not math.isfinite(found.mean):
        return "–"
    mean = number_text(found.mean, sign, decimals)
    if not math.isfinite(found.low):
        return mean
    low, high = (number_text(end, sign, decimals) for end in (found.low, found.high))
    return f"{mean} [{low}, {high}]"


def number_text(value: float, sign: str = "", decimals: int = 3) -> str:
    """Write a number; "0" below `NOISE`, one significant digit where its decimals are all 0."""
    if abs(value) < NOISE:
        return "0"
    if abs(value) < 0.5 * 10.0**-decimals:
        return f"{value:{sign}.1g}"
    return f"{value:{sign}.{decimals}f}"
