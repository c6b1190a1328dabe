"""Joins a column to a fitted predictor; no bit of the other columns' estimates changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optllm_router.core.features import SparseText
from optllm_router.core.likeness import Likeness
from optllm_router.core.success.blending import MOST_SPREAD
from optllm_router.core.success.labels import LeftOut, checked_scores, checked_tasks, numbered
from optllm_router.core.success.newcomer import Lenders, Level, Newcomer, placed
from optllm_router.core.success.predictor import SuccessPredictor
from optllm_router.records import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewLabels:
    """A newcomer's labelled queries: hashed texts and `scores` (n_labels,) in [0, 1].

    `tasks` has one per query and `shapes` is (n_labels, 5); None means no task and average shapes.
    `rows` (n_labels,) is where the queries stand among the predictor's training rows, whose texts
    `groups` names; None where they are others.
    """

    texts: Sequence[SparseText]
    scores: Floats
    tasks: Sequence[str] | None = None
    shapes: Floats | None = None
    rows: Ints | None = None
    groups: Sequence[str] | None = None


def join(
    predictor: SuccessPredictor, column: int, like: Likeness, labels: NewLabels
) -> SuccessPredictor:
    """Return a predictor with one column more, from a handful of labels.

    Args:
        predictor: fitted; it stays as it is.
        column: the index of a column that has no label, of one that joined before (which is
            replaced), or `predictor.n_columns`.
        like: what is expected of it; its `mix` is over the columns of `fit`, 0 for one without a
            label.
        labels: at least one. With `rows`, a predictor that knows its out-of-bag estimates (it was
            fitted just now) has them of the newcomer as well, without each row's own text.

    Raises: ValueError for a column that was fitted on its own labels or would leave a gap, scores
        that do not fit, no label; NotTrainedError before `fit`.
    """
    if column > predictor.n_columns or predictor.fitted_[column : column + 1].any():
        raise ValueError(
            f"column {column} of {predictor.n_columns} cannot join: pass one that has no label of "
            "its own, or the next one"
        )
    n = len(labels.texts)
    scores = checked_scores(np.reshape(labels.scores, (-1, 1)), n)[:, 0]
    if np.isnan(scores).any():
        raise ValueError("a score is NaN: pass the newcomer's labelled queries only")
    lenders, tasks = predictor.lenders(), checked_tasks(labels.tasks, n)
    seen = predictor.by_fitted(labels.texts, tasks, labels.shapes, spread=False)
    level, near = Level.of(lenders, like, seen.prob, scores), lenders.neighbours
    newcomer = Newcomer.of(
        lenders,
        column=column,
        mix=like.mix,
        score=level.score,
        score_std=level.std,
        neighbours=None if near is None else near.of_labels(seen.places, scores[:, None]),
        seed=predictor.seed,
    )
    known = predictor.left_out_
    left_out = None
    if known is not None and labels.rows is not None:
        elsewhere = np.full(len(known.prob), level.score)
        elsewhere[labels.rows] = level.elsewhere(numbered(labels.groups, n))
        left_out = _left_out(known, newcomer, lenders, elsewhere)
    return predictor.with_newcomer(newcomer, n, left_out)


def _left_out(known: LeftOut, newcomer: Newcomer, lenders: Lenders, elsewhere: Floats) -> LeftOut:
    """The training rows' estimates with the newcomer's, by its level `elsewhere`, (n_rows,)."""
    column, n_fitted = newcomer.column, newcomer.mix.size
    deviation = lenders.deviations(known.prob[:, :n_fitted]) @ newcomer.mix
    std = np.nan_to_num(known.std[:, :n_fitted]) @ newcomer.mix + newcomer.score_std
    return LeftOut(
        prob=placed(known.prob, column, elsewhere + deviation),
        std=placed(known.std, column, np.minimum(std, MOST_SPREAD)),
        column_score=placed(known.column_score, column, elsewhere),
    )
