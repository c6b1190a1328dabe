"""Reliability diagrams: predicted probability against mean score, a small square per candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optllm_router.bench.html.drawing import Named, line, path, svg, words
from optllm_router.bench.html.labels import Box
from optllm_router.bench.html.looks import Look
from optllm_router.bench.html.markup import Safe, tag, together
from optllm_router.bench.html.numerals import count, number, plural
from optllm_router.bench.html.scales import Scale
from optllm_router.bench.records import Reliability, Report

_BOX = Box(42.0, 8.0, 192.0, 158.0)
_X = Scale(low=0, high=1, start=_BOX.left, end=_BOX.right)
_Y = Scale(low=0, high=1, start=_BOX.bottom, end=_BOX.top)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One candidate's bins under one router, over all seeds."""

    key: str
    router: str
    bins: Reliability


def reliability_section(report: Report, n_labelled: int, looks: Mapping[str, Look]) -> Safe:
    """Return the diagrams of every router that has them, the first router's unfolded."""
    found: dict[str, dict[str, list[Reliability]]] = {}
    for run in report.runs:
        if run.n_labelled == n_labelled:
            for each in run.reliability:
                found.setdefault(run.router, {}).setdefault(each.candidate, []).append(each)
    parts = [
        _router(router, found[router], key=f"rel-{n_labelled}-{index}", look=looks[router])
        for index, router in enumerate(found)
    ]
    if not parts:
        return Safe("")
    explained = (
        "Test queries in bins of equal mass by predicted probability; a point on the diagonal is a "
        "bin whose mean score is what was predicted."
    )
    return together([tag("h3", "Reliability"), tag("p", explained), *parts])


def pooled(every: Sequence[Reliability]) -> Reliability:
    """Return one candidate's bins over all seeds, as many as the seed with most bins has.

    All bins are sorted by probability and grouped anew by equal mass; a group has the weighted
    means of its bins and the sum of their sizes. Bins without queries are left out.
    """
    prob, score, n = (
        np.concatenate([np.asarray(getattr(each, name), dtype=np.float64) for each in every])
        for name in ("prob", "score", "n")
    )
    keep = np.isfinite(prob) & np.isfinite(score) & (n > 0)
    order = np.argsort(prob[keep], kind="stable")
    prob, score, n = prob[keep][order], score[keep][order], n[keep][order]
    n_bins = max((each.n.size for each in every), default=0)
    share = (np.cumsum(n) - n / 2) / max(n.sum(), 1)
    group = np.minimum(share * n_bins, n_bins - 1).astype(np.int64)
    size, prob_sum, score_sum = (
        np.bincount(group, weights=weights, minlength=n_bins).astype(np.float64)
        for weights in (n, n * prob, n * score)
    )
    held = size > 0
    return Reliability(
        candidate=every[0].candidate,
        prob=prob_sum[held] / size[held],
        score=score_sum[held] / size[held],
        n=size[held],
    )


def _router(
    router: str, candidates: Mapping[str, Sequence[Reliability]], *, key: str, look: Look
) -> Safe:
    panels = [
        _panel(Panel(key=f"{key}-{index}", router=router, bins=pooled(every)), look)
        for index, every in enumerate(candidates.values())
    ]
    n_runs = max(len(every) for every in candidates.values())
    title = f"{router}: {plural(len(candidates), 'candidate')}, {plural(n_runs, 'seed')}"
    is_first = "open" if key.endswith("-0") else None
    return tag(
        "details",
        tag("summary", title),
        tag("div", *panels, class_="squares"),
        open=is_first,
    )


def _panel(panel: Panel, look: Look) -> Safe:
    bins = panel.bins
    caption = tag(
        "figcaption",
        tag("strong", bins.candidate),
        " ",
        tag("span", _sizes(bins), class_="muted"),
    )
    named = Named(
        key=panel.key,
        title=f"Reliability of {panel.router} for {bins.candidate}",
        desc=f"Mean score by predicted probability, {_sizes(bins)}: {_told(bins)}.",
    )
    points = np.column_stack([_X(bins.prob), _Y(bins.score)])
    curve = tag("path", d=path(points), class_=f"thin {look.colour}") if len(points) else Safe("")
    dots = [_dot(bins, index, look=look) for index in range(bins.n.size)]
    return tag("figure", caption, svg(named, _frame(), curve, *dots, size=(200.0, 194.0)))


def _frame() -> Safe:
    parts = []
    for tick in (0.0, 0.5, 1.0):
        x, y = _X.at(tick), _Y.at(tick)
        parts += [
            line((x, _BOX.top), (x, _BOX.bottom), "grid"),
            line((_BOX.left, y), (_BOX.right, y), "grid"),
            words(f"{tick:g}", x, _BOX.bottom + 13, class_="tick", text_anchor="middle"),
            words(f"{tick:g}", _BOX.left - 5, y + 4, class_="tick", text_anchor="end"),
        ]
    middle = (_BOX.top + _BOX.bottom) / 2
    parts += [
        line((_BOX.left, _BOX.bottom), (_BOX.right, _BOX.top), "diagonal"),
        words(
            "predicted probability", _X.at(0.5), 188.0, class_="axis-title", text_anchor="middle"
        ),
        words(
            "mean score",
            0.0,
            0.0,
            class_="axis-title",
            text_anchor="middle",
            transform=f"translate(9 {middle:g}) rotate(-90)",
        ),
    ]
    return together(parts)


def _dot(bins: Reliability, index: int, *, look: Look) -> Safe:
    prob, score, n = (float(each[index]) for each in (bins.prob, bins.score, bins.n))
    told = f"predicted {number(prob)}, mean score {number(score)}, n = {count(n)}"
    return tag(
        "circle",
        tag("title", told),
        cx=_X.at(prob),
        cy=_Y.at(score),
        r=3.0,
        class_=f"mark {look.colour}",
    )


def _sizes(bins: Reliability) -> str:
    if not bins.n.size:
        return "n = 0"
    low, high = count(float(bins.n.min())), count(float(bins.n.max()))
    each = low if low == high else f"{low} to {high}"
    return f"{plural(bins.n.size, 'bin')}, n = {each} each"


def _told(bins: Reliability) -> str:
    pairs = zip(bins.prob, bins.score, strict=True)
    return "; ".join(f"{number(float(p))} → {number(float(s))}" for p, s in pairs)
