"""Routing between a weak and a strong candidate: PGR, APGR, CPT.

Source: RouteLLM (Ong et al., arXiv 2406.18665, section 2). They are defined for two candidates only
and count calls of the strong one instead of money.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from optllm_router.core.evaluation.checks import floats, require_range, same_shape
from optllm_router.core.front import TOLERANCE
from optllm_router.records import Floats


def pgr(score: ArrayLike, *, weak: float, strong: float) -> Floats:
    """Return the performance gap recovered: (score - weak) / (strong - weak).

    0 is as good as the weak candidate, 1 as the strong one; beyond both is possible.

    Args:
        score: realised mean scores in [0, 1], any shape.
        weak: mean score of the weak candidate on the same queries.
        strong: of the strong one, above `weak`.

    Returns:
        The share of the gap per score, of the same shape.

    Raises:
        ValueError: A strong candidate that is not better, a score outside [0, 1].
    """
    realised = floats(score)
    require_range("score", realised, upper=1.0)
    if not strong > weak:
        raise ValueError(
            f"`strong` scores {strong!r} and `weak` {weak!r}, but there is a gap to recover only "
            "where the strong candidate is better: swap them, or leave these figures out."
        )
    return (realised - weak) / (strong - weak)


def apgr(strong_share: ArrayLike, score: ArrayLike, *, weak: float, strong: float) -> float:
    """Return the average PGR: its integral over the share of strong calls from 0 to 1.

    The trapezoid over all points, with both candidates as ends; the paper's own figure averages
    ten shares. A random mix has .5.

    Args:
        strong_share: share of queries sent to the strong candidate per point, ascending, in [0, 1],
            (n_points,); it may be empty.
        score: realised mean score per point, (n_points,).
        weak: mean score of the weak candidate.
        strong: of the strong one, above `weak`.

    Raises:
        ValueError: As in `pgr`; shares that are not ascending or outside [0, 1].
    """
    share, recovered = _walk(strong_share, pgr(score, weak=weak, strong=strong))
    return float(np.trapezoid(recovered, share))


def cpt(
    strong_share: ArrayLike, score: ArrayLike, *, target: float, weak: float, strong: float
) -> float:
    """Return the call-performance threshold: the least share of strong calls with PGR >= target.

    RouteLLM reports it at .2, .5 and .8. Only points of the walk and the two candidates count,
    nothing between them; calling the strong candidate always reaches any target up to 1.

    Args:
        strong_share: share of queries sent to the strong candidate per point, ascending, in [0, 1],
            (n_points,); it may be empty.
        score: realised mean score per point, (n_points,).
        target: PGR to reach, in (0, 1].
        weak: mean score of the weak candidate.
        strong: of the strong one, above `weak`.

    Raises:
        ValueError: As in `apgr`; a target outside (0, 1].
    """
    if not 0.0 < target <= 1.0:
        raise ValueError(
            f"`target` is {target!r}, but the share of the gap to recover must lie in (0, 1]: give "
            ".5 for half of it."
        )
    share, recovered = _walk(strong_share, pgr(score, weak=weak, strong=strong))
    return float(share[np.argmax(recovered >= target - TOLERANCE)])


def _walk(strong_share: ArrayLike, recovered: Floats) -> tuple[Floats, Floats]:
    """Return shares and PGR with both candidates added as ends."""
    share = floats(strong_share)
    same_shape(("score", recovered), strong_share=share)
    require_range("strong_share", share, upper=1.0)
    if (np.diff(share) < 0.0).any():
        raise ValueError(
            f"`strong_share` falls after point {int(np.argmax(np.diff(share) < 0.0))}, but a walk "
            "goes from few strong calls to many: sort the points."
        )
    return np.concatenate(([0.0], share, [1.0])), np.concatenate(([0.0], recovered, [1.0]))
