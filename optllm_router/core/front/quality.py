"""How good a front is, measured against a reference front: IGD, IGD+, hypervolume, spread.

Points are (n_points, 2): cost, which should be low, and accuracy, which should be high. Distances
mean something only on comparable axes, so scale both fronts with `normalised` first; the measures
take the axes as they get them, because published figures exist on raw axes too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from optllm_router.core.front.pareto import pareto_front
from optllm_router.records import Floats

REFERENCE_POINT = (1.1, 0.0)
"""Where the hypervolume starts, on normalised axes: a tenth dearer than the reference's dearest
point, and as accurate as its least accurate one. A front's dearest point counts, therefore, and a
point below the reference's lowest accuracy does not."""

_CHUNK = 2**18  # distances computed at once: 2 MB, which stay in cache


def nondominated(points: ArrayLike) -> Floats:
    """Return the points that no other one beats, by cost; both columns then strictly increase.

    A point is dominated where another costs at most as much and is at least as accurate, and
    differs. Of equal points one stays.

    Args:
        points: cost and accuracy, (n_points, 2), finite.

    Raises:
        ValueError: No point, another shape, or a value that is not finite.
    """
    found = _points("points", points)
    found = found[np.lexsort((-found[:, 1], found[:, 0]))]  # of a cost the most accurate first
    best_before = np.maximum.accumulate(found[:, 1])[:-1]
    front: Floats = found[np.append(True, found[1:, 1] > best_before)]
    return front


def normalised(points: ArrayLike, reference: ArrayLike) -> Floats:
    """Scale both axes so that the reference front spans [0, 1].

    (c - c_ideal) / (c_nadir - c_ideal) and (a - a_nadir) / (a_ideal - a_nadir): the ideal is the
    least cost and the highest accuracy of the reference's nondominated points, the nadir their
    highest cost and least accuracy (Miettinen, Nonlinear Multiobjective Optimization, 1999,
    section 2.4). Cost 0 and accuracy 1 are ideal afterwards; points beyond the reference lie
    outside [0, 1].

    Args:
        points: cost and accuracy, (n_points, 2), finite; their order is kept.
        reference: of the reference front, (n_reference, 2).

    Raises:
        ValueError: No point, another shape, a value that is not finite; or a reference without
            extent, which gives no unit.
    """
    found, front = _points("points", points), nondominated(reference)
    low, extent = front[0], front[-1] - front[0]
    if not (extent > 0.0).all():
        raise ValueError(
            f"`reference` has a single nondominated point, {front[0].tolist()}, so its ideal is "
            "its nadir and gives the axes no unit: use a reference of at least two points, or "
            "compare the points as they are."
        )
    scaled: Floats = (found - low) / extent
    return scaled


def igd(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the inverted generational distance: how far the reference is from the points.

    IGD = 1 / |P*| * sum over z in P* of min over y in S of ||z - y|| (Coello Coello & Reyes Sierra,
    MICAI 2004). 0 where every reference point was found. Not Pareto compliant: a dominated set can
    have the lower value, so read it beside `igd_plus`.

    Args:
        points: S, cost and accuracy, (n_points, 2), on the axes of the reference.
        reference: P*, (n_reference, 2).

    Raises:
        ValueError: No point, another shape, or a value that is not finite.
    """
    found, front = _points("points", points), _points("reference", reference)
    nearest = [np.hypot(dc, da).min(axis=1) for dc, da in _differences(found, front)]
    return float(np.concatenate(nearest).mean())


def igd_plus(points: ArrayLike, reference: ArrayLike) -> float:
    """Return IGD+, which counts only by how much the points are worse than the reference.

    IGD with d(z, y) = ||(max(0, y_cost - z_cost), max(0, z_accuracy - y_accuracy))|| (Ishibuchi,
    Masuda, Tanigaki & Nojima, EMO 2015). Weakly Pareto compliant: no set has a lower value than
    one that dominates it.

    Args:
        points: S, cost and accuracy, (n_points, 2), on the axes of the reference.
        reference: P*, (n_reference, 2).

    Raises:
        ValueError: No point, another shape, or a value that is not finite.
    """
    found, front = nondominated(points), _points("reference", reference)
    nearest = [
        np.hypot(np.maximum(dc, 0.0), np.maximum(-da, 0.0)).min(axis=1)
        for dc, da in _differences(found, front)
    ]
    return float(np.concatenate(nearest).mean())


def hypervolume(
    points: ArrayLike, *, reference_point: tuple[float, float] = REFERENCE_POINT
) -> float:
    """Return the area that the points dominate within a reference point (Zitzler & Thiele 1999).

    Over the nondominated points by cost, HV = sum of (c_ref - c_k) * (a_k - a_(k-1)), where a_0 is
    a_ref: the S metric of IEEE Transactions on Evolutionary Computation 3(4). Points that cost as
    much as the reference point, or are no more accurate, add nothing. Mixing two points is not
    counted, so many points on one line dominate more than its two ends.

    Args:
        points: cost and accuracy, (n_points, 2), finite.
        reference_point: the worst cost and accuracy that count, on the axes of the points;
            `REFERENCE_POINT` is meant for normalised ones.

    Raises:
        ValueError: No point, another shape, or a value that is not finite.
    """
    worst_cost, worst_accuracy = reference_point
    front = nondominated(points)
    cost, accuracy = front[(front[:, 0] < worst_cost) & (front[:, 1] > worst_accuracy)].T
    return float((worst_cost - cost) @ np.diff(accuracy, prepend=worst_accuracy))


def spread(points: ArrayLike, reference: ArrayLike) -> float:
    """Return Deb's Delta: how unevenly the points lie between the reference's two ends.

    Delta = (d_f + d_l + sum of |d_i - d_mean|) / (d_f + d_l + (N - 1) * d_mean) with d_i the gaps
    between neighbours of the N nondominated points by cost, d_f and d_l from their ends to those of
    the reference (Deb, Pratap, Agarwal & Meyarivan, IEEE Transactions on Evolutionary Computation
    6(2), 2002, section V). 0 is an even cover from end to end; near 1 is a clump, and a single
    point has 1. It says nothing about quality.

    Args:
        points: cost and accuracy, (n_points, 2), on the axes of the reference.
        reference: (n_reference, 2); its cheapest and its most accurate nondominated point are the
            true extremes.

    Raises:
        ValueError: No point, another shape, a value that is not finite; or nothing to measure
            because all points of both are one.
    """
    front, extremes = nondominated(points), nondominated(reference)
    gaps = np.hypot(*np.diff(front, axis=0).T)
    ends = float(np.hypot(*(front[0] - extremes[0])) + np.hypot(*(front[-1] - extremes[-1])))
    length = ends + float(gaps.sum())
    if length == 0.0:
        raise ValueError(
            f"`points` and `reference` are the one point {front[0].tolist()}, between whose ends "
            "nothing can spread: leave the spread out for a front of one point."
        )
    uneven = float(np.abs(gaps - gaps.mean()).sum()) if gaps.size else 0.0
    return (ends + uneven) / length


def exact_front_of_outcomes(scores: ArrayLike, cost_usd: ArrayLike) -> tuple[Floats, Floats]:
    """Return the exact Pareto front of what truly happened: total cost and mean score, by cost.

    With scores of 0 and 1 these are all Pareto points. A query then has one upgrade worth buying,
    from its cheapest column to its cheapest correct one, each gains 1 / n_queries, and the k of the
    least *incremental* cost are the cheapest way to k more correct answers. With soft scores it is
    the chain of `pareto_front`: every vertex of the front's convex hull, exactly, and the points
    of the merge between them; a Pareto point off the hull can be missing, but none lies above the
    line through these points.

    Args:
        scores: true scores in [0, 1], (n_queries, n_columns), each observed.
        cost_usd: true costs in USD, finite and not negative, (n_queries, n_columns).

    Returns:
        Total cost in USD and mean score, (n_points,) each, strictly increasing. Of no query: one
        point, 0 and 0.

    Raises:
        ValueError: A score that was not observed (NaN); shapes that differ or values out of range,
            as in `pareto_front`.
        NoCandidateError: No column.
    """
    outcomes = np.asarray(scores, dtype=np.float64)
    unknown = np.isnan(outcomes)
    if unknown.any():
        first = [int(i) for i in np.argwhere(unknown)[0]]
        raise ValueError(
            f"`scores{first}` is NaN ({int(unknown.sum())} of {unknown.size} are), but the exact "
            "front needs the outcome of every column for every query: leave out the queries or "
            "the columns that were not observed."
        )
    front = pareto_front(outcomes, cost_usd)
    return front.cost_usd, front.accuracy


def _points(name: str, values: ArrayLike) -> Floats:
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(
            f"`{name}` has shape {points.shape}, but at least one point of cost and accuracy is "
            "needed, (n_points, 2): stack the two with `numpy.column_stack`."
        )
    if not np.isfinite(points).all():
        row = int(np.argmin(np.isfinite(points).all(axis=1)))
        raise ValueError(
            f"`{name}[{row}]` is {points[row].tolist()}, but cost and accuracy must be finite: "
            "leave points out that were not measured."
        )
    return points


def _differences(points: Floats, reference: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Yield cost and accuracy of all points minus those of some reference points at a time."""
    step = max(1, _CHUNK // len(points))
    for start in range(0, len(reference), step):
        some = reference[start : start + step]
        yield points[:, 0] - some[:, :1], points[:, 1] - some[:, 1:]
