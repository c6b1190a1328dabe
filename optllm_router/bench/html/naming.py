"""The words within the chart of fronts: every candidate's name, and the routers' at their curves.

A curve that ends in the right part of a wide chart is named in the margin behind its end; any other
is named next to it, if there is a place where it is clearly the nearest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from optllm_router.bench.html.canvas import Canvas
from optllm_router.bench.html.curves import spread_along
from optllm_router.bench.html.drawing import TEXT, line, path, words
from optllm_router.bench.html.fronts import Fronts
from optllm_router.bench.html.labels import (
    Box,
    Placed,
    Wanted,
    place,
    shortened,
    spaced,
    text_width,
)
from optllm_router.bench.html.looks import Look
from optllm_router.bench.html.markup import Safe, tag, together
from optllm_router.records import Floats

_NAME = 11.0
_LONGEST = 140.0
_LEADER = 26.0
_MARGIN_FROM = 0.75


def end_labels_width(routers: Iterable[str]) -> float:
    """Return how wide the margin is that holds the routers' names, in pixels."""
    widest = max((text_width(each, TEXT) for each in routers), default=0.0)
    return _LEADER + 8 + min(widest, _LONGEST) * 1.06


def names(fronts: Fronts, canvas: Canvas, *, looks: Mapping[str, Look]) -> list[Safe]:
    """Return the candidates' names, which must stand, and the routers', where there is room."""
    lines = {router: canvas.points(curve) for router, curve in fronts.curves.items()}
    behind, beside = _sorted_out(lines, canvas) if canvas.is_wide else ([], [])
    leaders = _leaders({each: lines[each] for each in behind}, canvas)
    singles = [each for each in fronts.singles if canvas.window.holds(each)]
    order = list(lines)
    places = place(
        [_beside_dot(each.candidate, canvas.point(each)) for each in singles]
        + [_beside_curve(each, lines[each], order.index(each), canvas=canvas) for each in beside],
        frame=Box(canvas.box.left, canvas.box.top - 8, canvas.box.right + 8, canvas.box.bottom - 1),
        taken=[_around(canvas.point(each)) for each in singles],
        lines=[spread_along(each, gap=3, first=0) for each in (*lines.values(), *leaders.values())],
    )
    classes = ["name"] * len(singles) + [f"label {looks[each].colour}" for each in beside]
    pairs = zip(places, classes, strict=True)
    placed = [_word(placed, class_) for placed, class_ in pairs if placed is not None]
    return placed + [_behind(each, leaders[each], look=looks[each]) for each in behind]


def _sorted_out(lines: Mapping[str, Floats], canvas: Canvas) -> tuple[list[str], list[str]]:
    """Return the routers named in the margin, and those named beside their curves."""
    from_x = canvas.box.left + _MARGIN_FROM * (canvas.box.right - canvas.box.left)
    ends = {each: (float(points[-1][0]), float(points[-1][1])) for each, points in lines.items()}
    behind = [
        each
        for each, end in ends.items()
        if len(lines[each]) > 1 and end[0] >= from_x and canvas.holds(end)
    ]
    return behind, [each for each in lines if each not in behind]


def _leaders(lines: Mapping[str, Floats], canvas: Canvas) -> dict[str, Floats]:
    """Return the thin line from every curve's end to its name, (4, 2) each, none on another."""
    order = sorted(lines, key=lambda each: float(lines[each][-1][1]))
    ends = [(float(lines[each][-1][0]), float(lines[each][-1][1])) for each in order]
    right, box = canvas.box.right, canvas.box
    heights = spaced([y for _, y in ends], gap=15.0, low=box.top, high=box.bottom - 4)
    return {
        router: np.array([(x + 3, y), (right, y), (right + _LEADER - 8, to), (right + _LEADER, to)])
        for router, (x, y), to in zip(order, ends, heights, strict=True)
    }


def _behind(router: str, leader: Floats, *, look: Look) -> Safe:
    x, y = (float(each) for each in leader[-1])
    name = shortened(router, size=TEXT, width=_LONGEST)
    return together(
        [
            tag("path", d=path(leader), class_=f"to-name {look.colour}"),
            words(name, x + 3, y + 4, class_=f"label {look.colour}"),
        ]
    )


def _around(point: tuple[float, float]) -> Box:
    x, y = point
    return Box(x - 6, y - 6, x + 6, y + 6)


def _beside_dot(name: str, point: tuple[float, float]) -> Wanted:
    return Wanted(text=shortened(name, size=_NAME, width=170), points=[point], size=_NAME)


def _beside_curve(router: str, points: Floats, line: int, *, canvas: Canvas) -> Wanted:
    """Return a curve's label: at its dear end if it can be, else somewhere along it."""
    at = [int(share * (len(points) - 1)) for share in (1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)]
    along = [(float(points[i][0]), float(points[i][1])) for i in dict.fromkeys(at)]
    return Wanted(
        text=shortened(router, size=TEXT, width=_LONGEST),
        points=[point for point in along if canvas.holds(point)],
        size=TEXT,
        line=line,
    )


def _word(placed: Placed, class_: str) -> Safe:
    word = words(placed.text, placed.x, placed.y, class_=class_, text_anchor=placed.anchor)
    if placed.leader is None:
        return word
    x, y = placed.leader
    box = placed.box
    nearest = (min(max(x, box.left), box.right), min(max(y, box.top), box.bottom))
    return together([line(placed.leader, nearest, "leader"), word])
