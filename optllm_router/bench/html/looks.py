"""How every router is drawn: a colour, a dash and a marker, so that colour is never alone.

Colours are classes (`c0` to `c9`, grey `cx` for the oracle): the style sheet knows their values in
light and dark. Ten colours, four dashes and seven markers repeat together only after 140 routers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optllm_router.bench.html.markup import Safe, tag
from optllm_router.bench.names import OURS

N_COLOURS = 10
ORACLE = "oracle"
_DASHES = (None, "7 3", "2 2.5", "9 3 2 3")
_SHAPES = {
    "disc": "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1-1 0Z",
    "square": "M-.9-.9H.9V.9H-.9Z",
    "triangle": "M0-1.15L1.1 .85H-1.1Z",
    "diamond": "M0-1.3L1.1 0 0 1.3-1.1 0Z",
    "wedge": "M0 1.15L1.1-.85H-1.1Z",
    "bowtie": "M-1.1-1.1L1.1 1.1V-1.1L-1.1 1.1Z",
    "plus": "M-.4-1.2H.4V-.4H1.2V.4H.4V1.2H-.4V.4H-1.2V-.4H-.4Z",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One router's colour class, dash pattern (None is a solid line), marker and weight."""

    colour: str
    dash: str | None
    shape: str
    is_heavy: bool = False

    @property
    def curve(self) -> str:
        """The classes of its curve."""
        return f"curve {self.colour}{' heavy' if self.is_heavy else ''}"


def looks_of(routers: Sequence[str]) -> dict[str, Look]:
    """Return every router's look, in the order given; `ours` is heavy, the oracle grey."""
    names = [name for name in dict.fromkeys(routers) if name != ORACLE]
    shapes = tuple(_SHAPES)
    looks = {
        name: Look(
            colour=f"c{index % N_COLOURS}",
            dash=_DASHES[index % len(_DASHES)],
            shape=shapes[index % len(shapes)],
            is_heavy=name == OURS,
        )
        for index, name in enumerate(names)
    }
    return looks | {ORACLE: Look(colour="cx", dash="4 4", shape="disc")}


def marker(look: Look, x: float, y: float, *, size: float = 4.0) -> Safe:
    """Return the router's marker about the point (x, y), `size` pixels from its middle."""
    place = f"translate({x:.1f} {y:.1f}) scale({size:g})"
    return tag("path", d=_SHAPES[look.shape], transform=place, class_=f"mark {look.colour}")
