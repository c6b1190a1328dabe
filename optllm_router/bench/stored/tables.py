"""The report on a log in words: tables of written cells, each with its n and a note."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby

from optllm_router.bench.records import ExtraTable
from optllm_router.bench.stored.records import (
    Comparison,
    Forecast,
    FullInformation,
    Group,
    StoredReport,
)
from optllm_router.core.evaluation import Interval

MOST_GROUPS = 40
_ID_END = 12
_WAY_OUT = (
    "To support more: probe a sample of these queries (`optllm probe`), which asks every candidate "
    "and grades it, or serve in shadow mode with that candidate as the default; exploration, once "
    "the router has it, logs choices drawn by chance. A query is matched by its text key: what is "
    "routed of it, not its earlier turns."
)


def stored_tables(report: StoredReport) -> tuple[ExtraTable, ...]:
    """Return the tables of a report; those without rows are left out.

    The newest `MOST_GROUPS` groups are shown, batches first; the report itself has all.
    """
    shown = report.groups[:MOST_GROUPS]
    names = {group.name: _short(group) for group in shown}
    compared = [one for one in report.comparisons if one.group in names]
    expected = [one for one in report.forecasts if one.group in names]
    left_out = len(report.groups) - len(shown)
    more = f" {left_out:,} further groups are in the JSON only." if left_out else ""
    tables = (
        _money(shown, report, more),
        _grades(shown, names, more),
        _supported(compared, names),
        _unsupported(compared, names),
        _full_information(report.full_information),
        _forecasts(expected, names),
    )
    return tuple(table for table in tables if table.rows)


def _money(groups: Sequence[Group], report: StoredReport, more: str) -> ExtraTable:
    return ExtraTable(
        title=f"What was asked and what it cost, n = {report.n_decisions:,} decisions",
        header=(
            "group",
            "policy",
            "when, UTC",
            "n",
            "answered",
            "failed",
            "unfinished",
            "cost, USD",
            "calls estimated",
            "calls unpriced",
        ),
        rows=tuple(map(_money_row, groups)),
        note="Costs are exact to the nano-USD and include failed calls. Estimated ones were "
        "forecast or counted here, since no usage was reported; calls of unknown price are left "
        "out of the sum." + "".join(f" {note}" for note in report.notes) + more,
    )


def _money_row(group: Group) -> tuple[str, ...]:
    estimated = f"{group.n_estimated:,}"
    if group.n_estimated:
        estimated += f" (USD {group.estimated_usd})"
    counts = (group.n_decisions, group.n_answered, group.n_failed, group.n_unfinished)
    return (
        group.name,
        group.policy,
        _span(group.first_at, group.last_at),
        *(f"{count:,}" for count in counts),
        group.cost_usd,
        estimated,
        f"{group.n_unpriced:,}",
    )


def _grades(groups: Sequence[Group], names: Mapping[str, str], more: str) -> ExtraTable:
    return ExtraTable(
        title="How it was graded",
        header=(
            "group",
            "n",
            "graded",
            "coverage",
            "texts",
            "mean score",
            "95 % interval",
            "all decisions",
        ),
        rows=tuple(_grade_row(group, names) for group in groups if group.n_graded),
        note="The mean score is over the graded decisions alone, its interval over their distinct "
        "texts (bootstrap; one without width says that all scored alike, not that the score is "
        "certain). `all decisions` is what the mean over all n can be: failed ones count 0, "
        "ungraded ones anything from 0 to 1." + more,
    )


def _grade_row(group: Group, names: Mapping[str, str]) -> tuple[str, ...]:
    least, most = f"{group.score_least:.3f}", f"{group.score_most:.3f}"
    return (
        names[group.name],
        f"{group.n_decisions:,}",
        f"{group.n_graded:,}",
        f"{group.coverage:.1%}",
        f"{group.n_texts:,}",
        _mean(group.score),
        _ends(group.score),
        least if least == most else f"{least} to {most}",
    )


def _supported(found: Iterable[Comparison], names: Mapping[str, str]) -> ExtraTable:
    return ExtraTable(
        title="Against always asking one candidate, on the same queries",
        header=(
            "group",
            "always",
            "n",
            "its cost, USD",
            "saving of the group [95 %]",
            "its score [95 %]",
            "score of the group minus its [95 %]",
            "n paired",
        ),
        rows=tuple(_supported_row(one, names) for one in found if one.is_supported),
        note="Every query of the group has this candidate's graded outcome: it served it, or was "
        "asked by a probe or an imported row with the same text. Intervals are paired by text.",
    )


def _supported_row(one: Comparison, names: Mapping[str, str]) -> tuple[str, ...]:
    return (
        names[one.group],
        one.candidate,
        f"{one.n_queries:,}",
        one.cost_usd or "unknown",
        _interval(one.saving, ".1%"),
        _interval(one.score, ".3f"),
        _interval(one.difference, "+.3f"),
        f"{one.n_paired:,}",
    )


def _unsupported(found: Iterable[Comparison], names: Mapping[str, str]) -> ExtraTable:
    missing = [one for one in found if not one.is_supported]
    return ExtraTable(
        title="Comparisons that this log does not support, and that are not estimated",
        header=("group", "always one of (queries with its outcome)", "verdict", "n"),
        rows=tuple(
            _unsupported_row(names[group], reason, list(some))
            for (group, reason), some in groupby(missing, key=lambda one: (one.group, one.reason))
        ),
        note="Savings and scores against a candidate that was not asked on these queries are "
        f"unknown. {_WAY_OUT}",
    )


def _unsupported_row(group: str, reason: str, some: Sequence[Comparison]) -> tuple[str, ...]:
    return (
        group,
        ", ".join(f"{one.candidate} ({one.n_known:,})" for one in some),
        f"not supported: {reason}",
        f"{some[0].n_queries:,}",
    )


def _full_information(found: Iterable[FullInformation]) -> ExtraTable:
    return ExtraTable(
        title="Candidates on queries that were put to all of them",
        header=(
            "candidate",
            "from",
            "calls",
            "failed",
            "graded",
            "mean score [95 %]",
            "cost, USD",
            "common texts",
            "score on these [95 %]",
            "mean cost on these, USD",
        ),
        rows=tuple(map(_informed_row, found)),
        note="Common texts are graded for every candidate, so they compare candidates on the same "
        "queries; a text asked more than once counts once.",
    )


def _informed_row(one: FullInformation) -> tuple[str, ...]:
    unpriced = f" + {one.n_unpriced:,} unpriced" if one.n_unpriced else ""
    return (
        one.candidate,
        "probes" if one.source == "probe" else "imports",
        f"{one.n_calls:,}",
        f"{one.n_failed:,}",
        f"{one.n_graded:,}",
        _interval(one.score, ".3f"),
        one.cost_usd + unpriced,
        f"{one.n_common:,}",
        _interval(one.common_score, ".3f"),
        "-" if one.common_cost_usd is None else f"{one.common_cost_usd:.9f}",
    )


def _forecasts(found: Iterable[Forecast], names: Mapping[str, str]) -> ExtraTable:
    return ExtraTable(
        title="What was expected, and what came",
        header=(
            "group",
            "n graded",
            "expected score",
            "graded score",
            "graded minus expected [95 %]",
            "n billed",
            "expected cost, USD",
            "actual cost, USD",
            "cost error",
        ),
        rows=tuple(_forecast_row(one, names) for one in found),
        note="Scores over graded decisions with an expectation; costs over answered ones whose "
        "bill the provider reported. The cost error is actual / expected - 1.",
    )


def _forecast_row(one: Forecast, names: Mapping[str, str]) -> tuple[str, ...]:
    expected, graded = (
        "-" if score is None else f"{score:.3f}" for score in (one.expected_score, one.graded_score)
    )
    costs = (one.expected_usd, one.actual_usd) if one.n_costed else ("-", "-")
    return (
        names[one.group],
        f"{one.n_scored:,}",
        expected,
        graded,
        _interval(one.difference, "+.3f"),
        f"{one.n_costed:,}",
        *costs,
        "-" if one.cost_error is None else f"{one.cost_error:+.1%}",
    )


def _short(group: Group) -> str:
    """Return a group's name, of a batch's long id only the end, which is random."""
    if group.batch_id is None or len(group.batch_id) <= _ID_END:
        return group.name
    return f"batch …{group.batch_id[-_ID_END:]}"


def _span(first: datetime, last: datetime) -> str:
    start, end = (at.astimezone(UTC).strftime("%Y-%m-%d %H:%M") for at in (first, last))
    if start == end:
        return start
    day, _, time = end.partition(" ")
    return f"{start} to {time if start.startswith(day) else end}"


def _mean(found: Interval | None) -> str:
    return "-" if found is None else f"{found.mean:.3f}"


def _ends(found: Interval | None, form: str = ".3f") -> str:
    if found is None or math.isnan(found.low):
        return "-"
    return f"{found.low:{form}} to {found.high:{form}}"


def _interval(found: Interval | None, form: str) -> str:
    if found is None:
        return "-"
    return f"{found.mean:{form}} [{_ends(found, form)}]"
