"""Where the words of a chart go: next to what they name, and not on top of one another.

Greedy, in the order given: every label tries places around its points, near ones first, and takes
the one that covers least. Words are measured by rule of thumb, a little too wide rather than too
narrow, since nobody knows the reader's fonts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from optllm_router.bench.html.markup import clean
from optllm_router.records import Floats

_NARROW = frozenset("iIljft.,:;'|!()[] /-")
_RINGS = (8.0, 15.0, 26.0, 38.0, 52.0, 68.0)
_LEADER_FROM = 20.0
_DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (0.8, -0.7), (0.8, 0.7), (-0.8, -0.7), (-0.8, 0.7))
_PRICE_OF_INK = 4.0
_CLEARLY = 3.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Return the area that both cover, in square pixels."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)

    def inside(self, other: Box) -> bool:
        """Tell whether no part of this box lies outside the other."""
        return (
            self.left >= other.left
            and self.top >= other.top
            and self.right <= other.right
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Words and the points that they may stand next to.

    `line` is the index of the line that they name; words for a point name none, and they must
    stand, if need be on top of others.
    """

    text: str
    points: Sequence[tuple[float, float]]
    size: float
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Words with the point of their base line; `leader` is the point that a thin line leads to.

    `away` is the distance in pixels from the point that they name.
    """

    text: str
    x: float
    y: float
    anchor: Literal["start", "middle", "end"]
    box: Box
    leader: tuple[float, float] | None
    away: float


def text_width(text: str, size: float) -> float:
    """Return about how many pixels wide the text is at a font size in pixels."""
    return size * sum(map(_char_width, text))


def shortened(text: str, *, size: float, width: float) -> str:
    """Return the text cut to a width in pixels, with an ellipsis in the middle where it was cut.

    Names of a family differ at their ends, so that both ends are kept.
    """
    text = clean(text)
    if text_width(text, size) <= width:
        return text
    n_kept = len(text)
    cut = text
    while n_kept and text_width(cut, size) > width:
        n_kept -= 1
        n_tail = n_kept // 2
        cut = f"{text[: n_kept - n_tail]}…{text[len(text) - n_tail :]}"
    return cut


def place(
    wanted: Sequence[Wanted], *, frame: Box, taken: Sequence[Box], lines: Sequence[Floats]
) -> list[Placed | None]:
    """Return a place for every label, or None where there is none for it.

    Args:
        wanted: labels, the most important first.
        frame: no label leaves it.
        taken: boxes that stay free.
        lines: points close together on every line drawn, (n_points, 2) each. They are avoided where
            possible; a line's label stands only where its line is clearly the nearest.
    """
    boxes, ink = list(taken), np.concatenate([*lines, np.empty((0, 2))])
    places: list[Placed | None] = []
    for label in wanted:
        spots = [spot for spot in _spots(label) if spot.box.inside(frame)]
        if label.line is None:
            best = min(spots, key=lambda spot: _price(spot, taken=boxes, ink=ink), default=None)
        else:
            clear = (spot for spot in spots if _is_clear(spot.box, boxes))
            nearest = (spot for spot in clear if _is_nearest(label.line, spot.box, lines))
            best = next(nearest, None)
        places.append(best)
        if best is not None:
            boxes.append(best.box)
    return places


def spaced(at: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Return positions at least `gap` apart, as near to those wanted as least squares puts them.

    Wanted positions are ascending. Neighbours that are too close form a group around their mean
    (pool adjacent violators, on positions less the gaps before them), and groups are moved into
    [low, high]; where they cannot fit, they are spread evenly over it.
    """
    n = len(at)
    if n > 1 and (n - 1) * gap > high - low:
        return [float(each) for each in np.linspace(low, high, n)]
    groups: list[tuple[float, int]] = []
    for index, wanted in enumerate(at):
        mean, size = wanted - index * gap, 1
        while groups and groups[-1][0] > mean:
            before, n_before = groups.pop()
            mean, size = (mean * size + before * n_before) / (size + n_before), size + n_before
        groups.append((mean, size))
    free = [mean for mean, size in groups for _ in range(size)]
    return [min(max(each, low), high - (n - 1) * gap) + i * gap for i, each in enumerate(free)]


def _price(spot: Placed, *, taken: Sequence[Box], ink: Floats) -> float:
    covered = sum(spot.box.overlap(box) for box in taken)
    inked = np.count_nonzero(_gaps(spot.box, ink) == 0)
    return 100 * covered + _PRICE_OF_INK * inked + spot.away


def _is_clear(box: Box, taken: Sequence[Box]) -> bool:
    return not any(box.overlap(other) for other in taken)


def _is_nearest(line: int, box: Box, lines: Sequence[Floats]) -> bool:
    nearest = [float(_gaps(box, points).min(initial=np.inf)) for points in lines]
    others = min((gap for index, gap in enumerate(nearest) if index != line), default=np.inf)
    return nearest[line] > 0 and nearest[line] + _CLEARLY <= others


def _gaps(box: Box, points: Floats) -> Floats:
    """Return the distance of every point from the box, 0 inside, (n_points,)."""
    x, y = points.T
    aside = np.maximum(np.maximum(box.left - x, x - box.right), 0)
    above = np.maximum(np.maximum(box.top - y, y - box.bottom), 0)
    return np.asarray(np.hypot(aside, above))


def _spots(label: Wanted) -> Iterator[Placed]:
    rings = _RINGS if label.line is None else _RINGS[:2]
    for point in label.points:
        for ring in rings:
            for direction in _DIRECTIONS:
                yield _spot(label, point, ring=ring, direction=direction)


def _spot(
    label: Wanted, point: tuple[float, float], *, ring: float, direction: tuple[float, float]
) -> Placed:
    side, down = direction
    x, y = point[0] + ring * side, point[1] + ring * down
    width = text_width(label.text, label.size)
    left = x - width / 2 if side == 0 else x if side > 0 else x - width
    return Placed(
        text=label.text,
        x=x,
        y=y + 0.35 * label.size,
        anchor="middle" if side == 0 else "start" if side > 0 else "end",
        box=Box(left - 2, y - 0.62 * label.size, left + width + 2, y + 0.62 * label.size),
        leader=point if ring > _LEADER_FROM else None,
        away=ring,
    )


def _char_width(char: str) -> float:
    if unicodedata.east_asian_width(char) in "WF":
        return 1.0
    if char in _NARROW:
        return 0.36
    return 0.88 if char in "mwMW@%…—" else 0.7 if char.isupper() else 0.6
