"""Small panels, one for a headline figure: every router's mean with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from optllm_router.bench.figures import FIGURES, HEADLINE, Figure
from optllm_router.bench.html.drawing import Named, line, svg, tick_number, words, x_axis
from optllm_router.bench.html.labels import Box, shortened
from optllm_router.bench.html.looks import Look, marker
from optllm_router.bench.html.markup import Safe, tag, together
from optllm_router.bench.html.numerals import NOTHING, count, interval_text, number
from optllm_router.bench.html.scales import Scale, extent
from optllm_router.bench.html.tables import BETTER
from optllm_router.bench.records import Report, Row
from optllm_router.core.evaluation import Interval

_WIDTH, _ROW = 360.0, 21.0
_UNKNOWN = Interval(mean=math.nan, low=math.nan, high=math.nan)


def forest_panels(report: Report, n_labelled: int, looks: Mapping[str, Look]) -> Safe:
    """Return the panels of every headline figure that some router has; empty without any."""
    rows = [row for row in report.rows if row.n_labelled == n_labelled]
    figures = [
        FIGURES[name]
        for name in HEADLINE
        if any(math.isfinite(row.figures.get(name, _UNKNOWN).mean) for row in rows)
    ]
    if not figures:
        return Safe("")
    n_test = count(report.n_test.get(n_labelled))
    panels = [_panel(each, rows, looks=looks, n_test=n_test) for each in figures]
    return tag("div", *panels, class_="panels")


def _panel(figure: Figure, rows: Sequence[Row], *, looks: Mapping[str, Look], n_test: str) -> Safe:
    n_seeds = "/".join(str(each) for each in sorted({row.n_seeds for row in rows}))
    caption = tag(
        "figcaption",
        tag("strong", figure.label),
        f" {BETTER[figure.better]} ",
        tag("span", f"n = {n_test} test queries, seeds: {n_seeds}", class_="muted line"),
    )
    height = 14 + _ROW * len(rows)
    box = Box(118.0, 6.0, _WIDTH - 64, height)
    named = Named(
        key=f"forest-{rows[0].n_labelled}-{figure.name}",
        title=f"{figure.label} of every router at {rows[0].n_labelled} labels",
        desc=f"In {figure.unit}, {figure.better} is better: {_told(figure, rows)}.",
    )
    scale = _scale(figure, rows, box)
    drawn = [
        _line(
            row, figure, scale=scale, y=box.top + _ROW * (index + 0.5) + 4, look=looks[row.router]
        )
        for index, row in enumerate(rows)
    ]
    unit = words(
        _axis_title(figure), box.right, height + 33, class_="axis-title", text_anchor="end"
    )
    axis = x_axis(scale, box, label=tick_number(scale))
    return tag("figure", caption, svg(named, axis, *drawn, unit, size=(_WIDTH, height + 40)))


def _line(row: Row, figure: Figure, *, scale: Scale, y: float, look: Look) -> Safe:
    interval = row.figures.get(figure.name, _UNKNOWN)
    name = shortened(row.router, size=12, width=106)
    parts = [
        tag("text", tag("title", row.router), name, x=0.0, y=y + 4),
        words(number(interval.mean), _WIDTH - 4, y + 4, class_="figure", text_anchor="end"),
    ]
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        low, high = scale.at(interval.low), scale.at(interval.high)
        parts.append(line((low, y), (high, y), f"whisker {look.colour}"))
        parts += [line((x, y - 3.5), (x, y + 3.5), f"whisker {look.colour}") for x in (low, high)]
    if math.isfinite(interval.mean):
        parts.append(marker(look, scale.at(interval.mean), y, size=4.5))
    return together(parts)


def _scale(figure: Figure, rows: Sequence[Row], box: Box) -> Scale:
    known = [row.figures.get(figure.name, _UNKNOWN) for row in rows]
    ends = [end for each in known for end in (each.mean, each.low, each.high)]
    low, high = extent(ends, pad=0.06)
    return Scale(low=low, high=high, start=box.left, end=box.right)


def _axis_title(figure: Figure) -> str:
    return f"{figure.label} ({_in_words(figure.unit)})"


def _in_words(unit: str) -> str:
    return "share of 1" if unit == "share" else "0 to 1" if unit == "score" else unit


def _told(figure: Figure, rows: Sequence[Row]) -> str:
    told = []
    for row in rows:
        interval = row.figures.get(figure.name, _UNKNOWN)
        written = number(interval.mean)
        known = "not defined" if written == NOTHING else f"{written} {interval_text(interval)}"
        told.append(f"{row.router} {known.strip()}")
    return "; ".join(told)
