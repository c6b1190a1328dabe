"""Tables: every router by every figure, its difference to `zero`, the candidates, a glossary.

Figures stand in groups of a handful, so that a table fits a page; one that no group names gets into
the last, so that a new figure is never lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from optllm_router.bench.figures import COMPARED, FIGURES, HEADLINE, Figure
from optllm_router.bench.html.looks import ORACLE
from optllm_router.bench.html.markup import Safe, tag, together
from optllm_router.bench.html.numerals import (
    count,
    decimals_of,
    interval_text,
    number,
    plural,
    signed,
    usd,
)
from optllm_router.bench.records import Against, ExtraTable, Report, Row, Single
from optllm_router.core.evaluation import Interval

BETTER = {"higher": "↑ higher is better", "lower": "↓ lower is better"}
_UNKNOWN = Interval(mean=math.nan, low=math.nan, high=math.nan)
_GROUPS = {
    "Headline figures": HEADLINE,
    "Policies: what a user gets": (
        "target_shortfall",
        "target_missed",
        "target_saving",
        "budget_score",
        "budget_overspend",
    ),
    "Forecasts": ("ece", "brier", "log_loss", "cost_error", "cost_error_per_query"),
    "Quality of the front": ("aiq", "qnc", "igd", "igd_plus", "hypervolume", "spread"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One figure of every row, in the rows' order."""

    figure: Figure
    intervals: tuple[Interval, ...]

    @property
    def decimals(self) -> int:
        """Three; for amounts in USD, enough for three significant digits of the largest."""
        if self.figure.unit != "USD":
            return 3
        return decimals_of(interval.mean for interval in self.intervals)

    def best(self, routers: Sequence[str]) -> float:
        """Return the best mean as it is written, the oracle's aside.

        It is NaN where nothing is compared: fewer than two means, or no known direction.
        """
        means = [
            round(interval.mean, self.decimals)
            for router, interval in zip(routers, self.intervals, strict=True)
            if router != ORACLE and math.isfinite(interval.mean)
        ]
        if len(means) < 2 or self.figure.better not in BETTER:
            return math.nan
        return max(means) if self.figure.better == "higher" else min(means)


def figure_tables(report: Report, n_labelled: int) -> Safe:
    """Return the tables of one number of labels, the headline open and the others folded."""
    rows = [row for row in report.rows if row.n_labelled == n_labelled]
    seconds = _seconds(report, n_labelled)
    parts = []
    for group, names in _grouped(rows).items():
        columns = _columns(names, [row.figures for row in rows])
        if columns:
            table = _table(f"{group}, {n_labelled} labels", rows, columns=columns)
            parts.append(table if names == HEADLINE else _folded(group, table))
    against = _columns(HEADLINE, [row.against_zero for row in rows])
    if against:
        title = "Paired differences to the router zero"
        table = _table(f"{title}, {n_labelled} labels", rows, columns=against, paired=True)
        parts.append(_folded(title, table))
    rivals = report.rivals(n_labelled)
    compared = _columns(COMPARED, [one.figures for one in rivals])
    if compared:
        title = "Paired differences of ours from each other router"
        table = _table(f"{title}, {n_labelled} labels", rivals, columns=compared, paired=True)
        parts.append(_folded(title, table))
    if seconds:
        parts.append(_folded("Time", _times(seconds, n_labelled)))
    return together(parts)


def singles_tables(report: Report) -> Safe:
    """Return the candidates on the whole table, then folded on every number of labels' test parts.

    The best come first; the test parts' figures are means over the seeds.
    """
    n_queries = count(report.n_queries)
    whole = f"Single candidates, n = {n_queries} queries, the whole table"
    parts = [_singles(whole, report.singles, report.n_queries)]
    for n_labelled, singles in report.test_singles.items():
        n_test = report.n_test.get(n_labelled)
        title = f"Single candidates on the test part, {plural(n_labelled, 'label')}"
        caption = f"{title}, n = {count(n_test)} queries, {plural(report.n_seeds, 'seed')}"
        parts.append(_folded(title, _singles(caption, singles, n_test or 0)))
    return together(parts)


def _singles(caption: str, singles: Sequence[Single], n_queries: int) -> Safe:
    per_1k = 1000 / n_queries if n_queries else math.nan
    rows = [
        (each.candidate, number(each.score), usd(each.cost_usd), usd(each.cost_usd * per_1k))
        for each in sorted(singles, key=lambda each: (-_ranked(each.score), each.cost_usd))
    ]
    heads = ("candidate", "mean score (0 to 1)", "total cost, USD", "USD per 1,000 queries")
    return _plain_table(caption, heads, rows)


def extra_tables(tables: Sequence[ExtraTable]) -> Safe:
    """Return tables whose cells are written out already, each with its note."""
    parts = []
    for table in tables:
        parts.append(_plain_table(table.title, table.header, table.rows))
        if table.note:
            parts.append(tag("p", table.note, class_="muted"))
    return together(parts)


def glossary() -> Safe:
    """Return what every figure means, its unit and which direction is better."""
    rows = [
        (figure.label, figure.unit, BETTER[figure.better], figure.meaning)
        for figure in FIGURES.values()
    ]
    heads = ("figure", "unit", "better", "meaning")
    return _plain_table("What the figures mean", heads, rows, class_="glossary")


def _grouped(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    known = {name for names in _GROUPS.values() for name in names}
    found = dict.fromkeys([*FIGURES, *(name for row in rows for name in row.figures)])
    others = tuple(name for name in found if name not in known)
    return {**_GROUPS, "Further figures": others}


def _columns(names: Iterable[str], figures: Sequence[Mapping[str, Interval]]) -> list[Column]:
    columns = [
        Column(
            figure=FIGURES.get(name) or _unlisted(name),
            intervals=tuple(each.get(name, _UNKNOWN) for each in figures),
        )
        for name in names
    ]
    return [
        column
        for column in columns
        if any(math.isfinite(interval.mean) for interval in column.intervals)
    ]


def _unlisted(name: str) -> Figure:
    return Figure(name=name, label=name, unit="unit unknown", better="", meaning="")


def _table(
    caption: str,
    rows: Sequence[Row | Against],
    *,
    columns: Sequence[Column],
    paired: bool = False,
) -> Safe:
    routers = [row.router for row in rows]
    heads = [_head(column.figure) for column in columns]
    bests = [math.nan if paired else column.best(routers) for column in columns]
    body = [
        tag(
            "tr",
            tag("th", row.router, scope="row"),
            *(
                _cell(
                    column.intervals[index],
                    decimals=column.decimals,
                    best=math.nan if row.router == ORACLE else best,
                    paired=paired,
                )
                for column, best in zip(columns, bests, strict=True)
            ),
            tag("td", count(row.n_seeds)),
        )
        for index, row in enumerate(rows)
    ]
    first = tag("th", "router", scope="col")
    last = tag("th", "seeds", tag("small", "n"), scope="col")
    marked = (
        "bold: the interval leaves out 0"
        if paired
        else "mean over seeds, [95 % interval]; bold with a tick: best mean, the oracle aside"
    )
    return _scrolling(
        caption,
        tag("caption", tag("span", tag("strong", caption), f" ({marked})")),
        tag("thead", tag("tr", first, *heads, last)),
        tag("tbody", *body),
    )


def _head(figure: Figure) -> Safe:
    arrow = {"higher": "↑", "lower": "↓"}.get(figure.better, "")
    spoken = tag("span", BETTER.get(figure.better, "")[1:], class_="spoken")
    unit = tag("small", f"{figure.unit} ", tag("span", arrow, aria_hidden="true"), spoken)
    return tag("th", figure.label, unit, scope="col", title=figure.meaning)


def _cell(interval: Interval, *, decimals: int, best: float, paired: bool) -> Safe:
    mean = (signed if paired else number)(interval.mean, decimals)
    is_best = paired and (interval.low > 0 or interval.high < 0)
    is_best = is_best or (math.isfinite(best) and round(interval.mean, decimals) == best)
    ends = tag("small", interval_text(interval, decimals))
    if not is_best:
        return tag("td", mean, ends)
    tick = Safe("") if paired else tag("span", "best: ", class_="spoken")
    return tag("td", tick, tag("b", mean), ends, class_="clear" if paired else "best")


def _seconds(report: Report, n_labelled: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {}
    for run in report.runs:
        if run.n_labelled == n_labelled and run.seconds > 0:
            seconds.setdefault(run.router, []).append(run.seconds)
    return seconds


def _times(seconds: Mapping[str, Sequence[float]], n_labelled: int) -> Safe:
    rows = [
        (router, number(sum(each) / len(each), 2), number(max(each), 2), count(len(each)))
        for router, each in seconds.items()
    ]
    heads = ("router", "mean, s", "longest, s", "runs (n)")
    return _plain_table(f"Time per run, {n_labelled} labels", heads, rows)


def _plain_table(
    caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, class_: str = ""
) -> Safe:
    """Return a table of written cells; columns that hold words are set flush left."""
    sides = ["words" if any(map(_is_wordy, column)) else None for column in zip(*rows, strict=True)]
    sides += [None] * (len(heads) - len(sides))
    columns = list(zip(heads, sides, strict=True))
    body = [
        tag(
            "tr",
            tag("th", first, scope="row"),
            *(tag("td", cell, class_=side) for cell, side in zip(cells, sides[1:], strict=True)),
        )
        for first, *cells in rows
    ]
    return _scrolling(
        caption,
        tag("caption", tag("span", tag("strong", caption))),
        tag("thead", tag("tr", *(tag("th", head, scope="col", class_=c) for head, c in columns))),
        tag("tbody", *body),
        class_=class_,
    )


def _is_wordy(cell: str) -> bool:
    return sum(map(str.isalpha, cell)) > 4


def _scrolling(caption: str, *parts: Safe, class_: str = "") -> Safe:
    table = tag("table", *parts, class_=class_ or None)
    return tag("div", table, class_="scroll", role="region", aria_label=caption, tabindex="0")


def _folded(title: str, content: Safe) -> Safe:
    return tag("details", tag("summary", title), content)


def _ranked(score: float) -> float:
    return score if math.isfinite(score) else -math.inf
