"""What every chart is made of: a named SVG, its axes, words, lines and a legend."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optllm_router.bench.html.labels import Box, text_width
from optllm_router.bench.html.looks import Look, marker
from optllm_router.bench.html.markup import Safe, pixels, tag, together
from optllm_router.bench.html.numerals import number, tick_usd
from optllm_router.bench.html.scales import Scale
from optllm_router.records import Floats

TEXT = 12.0
"""Font size of a chart's words, in its own pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What an SVG says to those who cannot see it; `key` is its id, unique in the page."""

    key: str
    title: str
    desc: str


def svg(named: Named, *parts: Safe, size: tuple[float, float], class_: str = "") -> Safe:
    """Return an image of a size in pixels, with its title and description."""
    return tag(
        "svg",
        tag("title", named.title, id=f"{named.key}-t"),
        tag("desc", named.desc, id=f"{named.key}-d"),
        *parts,
        viewBox=f"0 0 {pixels(size[0])} {pixels(size[1])}",
        role="img",
        aria_labelledby=f"{named.key}-t",
        aria_describedby=f"{named.key}-d",
        class_=class_ or None,
    )


def words(text: str, x: float, y: float, **attributes: object) -> Safe:
    """Return a line of text with its base line at (x, y)."""
    return tag("text", text, x=x, y=y, **attributes)


def line(start: tuple[float, float], end: tuple[float, float], class_: str) -> Safe:
    """Return a straight line."""
    return tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def path(points: Floats) -> str:
    """Return the path data of a polyline, (n_points, 2) in pixels, to a tenth of a pixel."""
    return "M" + "L".join(f"{_tenth(x)} {_tenth(y)}" for x, y in points)


def x_axis(scale: Scale, box: Box, *, label: Callable[[float], str]) -> Safe:
    """Return the ticks below a plot: grid lines across it and their numbers."""
    parts = []
    for tick in scale.ticks:
        x = scale.at(tick)
        parts += [
            line((x, box.top), (x, box.bottom), "grid"),
            words(label(tick), x, box.bottom + 16, class_="tick", text_anchor="middle"),
        ]
    return together([*parts, line((box.left, box.bottom), (box.right, box.bottom), "axis")])


def y_axis(scale: Scale, box: Box, *, label: Callable[[float], str]) -> Safe:
    """Return the ticks left of a plot: grid lines across it and their numbers."""
    parts = []
    for tick in scale.ticks:
        y = scale.at(tick)
        parts += [
            line((box.left, y), (box.right, y), "grid"),
            words(label(tick), box.left - 7, y + 4, class_="tick", text_anchor="end"),
        ]
    return together(parts)


def tick_number(scale: Scale) -> Callable[[float], str]:
    """Return how a linear scale's ticks are written: all with as many decimals as they need."""
    decimals = max(1, _tick_decimals(scale))
    return lambda tick: number(tick, decimals)


def tick_amount(scale: Scale) -> Callable[[float], str]:
    """Return how amounts in USD are written: alike on a linear scale, short on a log scale."""
    if scale.log:
        return tick_usd
    needed = _tick_decimals(scale)
    decimals = max(2, needed) if needed > 0 else 0
    return lambda tick: f"${number(tick, decimals)}"


def clipped(content: Safe, *, box: Box, key: str) -> Safe:
    """Return the content without what leaves the box by more than a marker's size."""
    inside = tag(
        "rect",
        x=box.left - 6,
        y=box.top - 6,
        width=box.right - box.left + 12,
        height=box.bottom - box.top + 6,
    )
    clip = tag("clipPath", inside, id=key)
    return together([clip, tag("g", content, clip_path=f"url(#{key})")])


def legend(entries: Sequence[tuple[str, Safe]], *, box: Box) -> tuple[Safe, float]:
    """Return a legend that fills the box's width row by row, and the height that it takes.

    Args:
        entries: a name and its sample, drawn from (0, 0) to (30, 0).
        box: where it starts and how wide it is.
    """
    parts, x, y = [], box.left, box.top
    for name, sample in entries:
        width = 36 + text_width(name, TEXT) + 20
        if x > box.left and x + width - 20 > box.right:
            x, y = box.left, y + 21
        place = f"translate({pixels(x)} {pixels(y)})"
        parts.append(tag("g", sample, words(name, 37.0, 4.0), transform=place))
        x += width
    return together(parts), y - box.top + 21


def sample_of(look: Look) -> Safe:
    """Return a router's line with its marker, for a legend."""
    drawn = tag("path", d="M0 0H30", class_=look.curve, stroke_dasharray=look.dash)
    return together([drawn, marker(look, 15, 0)])


def _tick_decimals(scale: Scale) -> int:
    ticks = scale.ticks
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else scale.high - scale.low
    return -math.floor(math.log10(step) + 1e-9)


def _tenth(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
