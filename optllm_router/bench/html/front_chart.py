"""The chart of realised fronts, drawn once for wide screens and once for narrow ones."""

from __future__ import annotations

from collections.abc import Mapping

from optllm_router.bench.html.canvas import NARROW_UP_TO, Canvas
from optllm_router.bench.html.curves import spread_along
from optllm_router.bench.html.drawing import (
    TEXT,
    Named,
    clipped,
    legend,
    path,
    sample_of,
    svg,
    tick_amount,
    tick_number,
    words,
    x_axis,
    y_axis,
)
from optllm_router.bench.html.fronts import Fronts, Window, close_up, whole_window
from optllm_router.bench.html.labels import Box, shortened
from optllm_router.bench.html.looks import Look, marker
from optllm_router.bench.html.markup import Safe, tag, together
from optllm_router.bench.html.naming import end_labels_width, names
from optllm_router.bench.html.numerals import count, number, plural, usd
from optllm_router.bench.html.scales import Scale
from optllm_router.bench.records import Single

_DOT = 4.5
_NAME = 11.0
_WIDE, _NARROW = (860.0, 400.0), (400.0, 340.0)


def front_charts(fronts: Fronts, looks: Mapping[str, Look]) -> Safe:
    """Return the chart of everything, and one of the routers where that squeezes them.

    Each is drawn twice; the style sheet shows the one that suits the screen.
    """
    whole = _figure(fronts, looks, window=whole_window(fronts), title="Realised fronts")
    near = close_up(fronts)
    if near is None:
        return whole
    return together([whole, _figure(fronts, looks, window=near, title="The routers, closer")])


def _figure(fronts: Fronts, looks: Mapping[str, Look], *, window: Window, title: str) -> Safe:
    told = _caption(fronts) if title == "Realised fronts" else _near_caption(fronts)
    drawn = [
        _drawn(fronts, looks, canvas=_canvas(fronts, window, title=title, size=size))
        for size in (_WIDE, _NARROW)
    ]
    return tag("figure", tag("figcaption", tag("strong", f"{title}. "), told), *drawn)


def _caption(fronts: Fronts) -> str:
    averaged = (
        f"lines and circles are means over {plural(fronts.n_seeds, 'seed')}, each curve cut at the "
        "same shares of its range of cost"
        if fronts.n_seeds > 1
        else "lines and circles are of 1 seed"
    )
    return (
        "What the points of every router’s predicted front cost and score in truth on the "
        f"n = {count(fronts.n_test)} test queries; {averaged}. Circles are single candidates asked "
        "for every one of them. Up and to the left is better."
    )


def _near_caption(fronts: Fronts) -> str:
    n_test = count(fronts.n_test)
    return f"The same curves, n = {n_test} test queries, without what lies far from the routers’."


def _canvas(fronts: Fronts, window: Window, *, title: str, size: tuple[float, float]) -> Canvas:
    aside = end_labels_width(fronts.curves) if size[0] > NARROW_UP_TO else 12.0
    box = Box(46.0, 30.0, size[0] - aside, size[1])
    kind = "fronts" if title == "Realised fronts" else "near"
    named = Named(
        key=f"{kind}-{fronts.n_labelled}-{size[0]:.0f}",
        title=f"{title} at {plural(fronts.n_labelled, 'label')}",
        desc=_desc(fronts),
    )
    (low, high), (worst, best) = window.cost_usd, window.score
    return Canvas(
        named=named,
        box=box,
        width=size[0],
        window=window,
        x=Scale(low=low, high=high, start=box.left, end=box.right, log=fronts.log),
        y=Scale(low=worst, high=best, start=box.bottom, end=box.top),
    )


def _drawn(fronts: Fronts, looks: Mapping[str, Look], *, canvas: Canvas) -> Safe:
    shown, height = _legend(fronts, looks, canvas=canvas)
    curves = [_curve(fronts, canvas, router=each, looks=looks) for each in fronts.curves]
    dots = [_dot(canvas, each) for each in fronts.singles if canvas.window.holds(each)]
    return svg(
        canvas.named,
        _axes(fronts, canvas),
        clipped(together(curves), box=canvas.box, key=f"{canvas.named.key}-c"),
        *dots,
        *names(fronts, canvas, looks=looks),
        shown,
        size=(canvas.width, canvas.box.bottom + 48 + height),
        class_="wide" if canvas.is_wide else "narrow",
    )


def _axes(fronts: Fronts, canvas: Canvas) -> Safe:
    box = canvas.box
    scale = "log scale" if fronts.log else "linear scale"
    cost = f"cost of n = {count(fronts.n_test)} test queries, USD ({scale})"
    return together(
        [
            x_axis(canvas.x, box, label=tick_amount(canvas.x)),
            y_axis(canvas.y, box, label=tick_number(canvas.y)),
            words("mean score (0 to 1)", 0.0, 14.0, class_="axis-title"),
            words(cost, box.right, box.bottom + 35, class_="axis-title", text_anchor="end"),
        ]
    )


def _curve(fronts: Fronts, canvas: Canvas, *, router: str, looks: Mapping[str, Look]) -> Safe:
    look, points = looks[router], canvas.points(fronts.curves[router])
    if len(points) == 1:
        marks = [marker(look, points[0][0], points[0][1], size=5.5)]
    else:
        start = 12 + 23 * (list(looks).index(router) % 5)
        marks = [marker(look, x, y) for x, y in spread_along(points, gap=115, first=start)]
    drawn = tag("path", d=path(points), class_=look.curve, stroke_dasharray=look.dash)
    return tag("g", tag("title", router), drawn, *marks)


def _dot(canvas: Canvas, single: Single) -> Safe:
    x, y = canvas.point(single)
    told = f"{single.candidate}: score {number(single.score)}, {usd(single.cost_usd)}"
    return tag("circle", tag("title", told), cx=x, cy=y, r=_DOT, class_="single")


def _legend(fronts: Fronts, looks: Mapping[str, Look], *, canvas: Canvas) -> tuple[Safe, float]:
    room = canvas.width - 60
    entries = [
        (shortened(router, size=TEXT, width=room), sample_of(looks[router]))
        for router in fronts.curves
    ]
    if fronts.singles:
        circle = tag("circle", cx=15.0, cy=0.0, r=_DOT, class_="single")
        entries.append(("single candidate", circle))
    below = canvas.box.bottom + 60
    return legend(entries, box=Box(8.0, below, canvas.width, below))


def _desc(fronts: Fronts) -> str:
    lines = [
        f"{router}: from {usd(curve.cost_usd[0])} at {number(curve.score[0])} "
        f"to {usd(curve.cost_usd[-1])} at {number(curve.score[-1])}, "
        f"highest {number(curve.score.max())}"
        for router, curve in fronts.curves.items()
    ]
    dots = [
        f"{single.candidate}: {usd(single.cost_usd)} at {number(single.score)}"
        for single in fronts.singles
    ]
    axes = f"Mean score against cost in USD of {count(fronts.n_test)} test queries. "
    return f"{axes}Routers: {'; '.join(lines)}. Single candidates: {'; '.join(dots)}."
