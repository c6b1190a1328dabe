"""How likely each column is to answer a query well: a bootstrap ensemble of masked ridges.

The label matrix (queries x columns) has holes: after a probe every column of a query is observed,
after a served answer only one. Each column is a ridge on the same design: an intercept, the text's
principal components, one indicator per task, and the query's shape. Ridge is the hierarchical
shrinkage: labels are centred on their overall mean, the intercept is a column's deviation from it,
a task indicator the task's deviation from the column, and every one is pulled towards 0 by its
penalty, so that few labels mean little deviation (James & Stein, 1961; Hoerl & Kennard, 1970).

The ensemble resamples distinct texts, so that duplicates never stand on both sides. Members
differ only in their weights, so their mean is itself such a ridge, and serving it is one small
product per text: the mean weights are folded into the projection beforehand. OptLLM (arXiv
2405.15130, section III-B) is the source of the idea: mean and spread over bootstrap members; its
forests and its weights are not needed for it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.features import SparseText, hash_texts
from optllm_router.core.projection import Projection
from optllm_router.core.ridge import BlockGrams, blocks_of, choose_penalties, single_threaded
from optllm_router.errors import NotTrainedError
from optllm_router.records import Bools, Floats, Ints

MAX_TASKS = 64
TASK_SCALE = 0.7
SHAPE_SCALE = 0.5
N_SHAPES = 5
_ROWS_AT_ONCE = 1024  # in cache, and little memory, while every member's estimate is there


@dataclass(frozen=True, slots=True)
class SuccessEstimate:
    """Success probabilities: mean and spread over the bootstrap members, (n_queries, n_columns).

    `prob` is the members' mean, cut to [0, 1], and NaN for a column that has no label at all;
    `std` likewise.
    """

    prob: Floats
    std: Floats


@dataclass(frozen=True, slots=True)
class _MeanMember:
    """The members' mean, ready to serve: by bucket of the text, by task and shape, and overall.

    `per_bucket` is (N_FEATURES, n_columns), `of_rest` (n_tasks + 5, n_columns), `centre`
    (n_columns,).
    """

    centre: Floats
    per_bucket: NDArray[np.float32]
    of_rest: Floats


class SuccessPredictor:
    """Predict each column's probability of success from a query's text, task and shape.

    Args:
        n_bootstraps: members of the ensemble, at least 2.
        seed: seeds the resampling; the same data and seed give the same predictor.
        n_components: principal components of the text that are kept, at most.

    Raises:
        ValueError: fewer than 2 members, a negative seed or number of components.

    Attributes:
        oob_: the training rows' estimates, each from members that did not see the row's text.
        n_labels_: observed labels per column, shape (n_columns,).
        tasks_: the tasks that have an indicator, the most frequent ones first.
    """

    def __init__(self, n_bootstraps: int = 50, seed: int = 0, n_components: int = 192) -> None:
        if n_bootstraps < 2 or seed < 0 or n_components < 0:
            raise ValueError(
                f"n_bootstraps={n_bootstraps}, seed={seed}, n_components={n_components}: an "
                "ensemble has at least 2 members, the other two are not negative"
            )
        self.n_bootstraps = n_bootstraps
        self.seed = seed
        self.n_components = n_components
        self.tasks_: tuple[str, ...] = ()
        self.n_labels_: Ints = np.zeros(0, dtype=np.int64)
        self.oob_: SuccessEstimate | None = None
        self._position: dict[str, int] = {}  # of every task
        self._projection: Projection | None = None
        self._weights: NDArray[np.float32] | None = None  # (n_design, n_bootstraps, n_columns)
        self._mean: _MeanMember | None = None
        self._centre = 0.0
        self._shape_means: Floats = np.zeros(N_SHAPES)

    @property
    def n_columns(self) -> int:
        """The number of columns that it was fitted on; 0 before."""
        return int(self.n_labels_.size)

    def fit(
        self, queries: Sequence[str], scores: Floats, tasks: Sequence[str] | None = None
    ) -> Self:
        """Fit on texts and their scores.

        Args:
            queries: the texts, n_queries of them; equal texts are resampled together.
            scores: (n_queries, n_columns) in [0, 1], soft labels allowed, NaN = not observed.
            tasks: one task per query; None means that all share one.

        Raises:
            ValueError: shapes that do not match, a score outside [0, 1], or no label at all.
        """
        return self.fit_features(hash_texts(queries), scores, tasks=tasks, groups=queries)

    def fit_features(
        self,
        texts: Sequence[SparseText],
        scores: Floats,
        *,
        tasks: Sequence[str] | None = None,
        shapes: Floats | None = None,
        groups: Sequence[str] | None = None,
    ) -> Self:
        """Fit on hashed texts; `shapes` is (n_queries, 5), `groups` names the distinct texts."""
        n = len(texts)
        scores = checked_scores(scores, n)
        tasks = checked_tasks(tasks, n)
        shapes = np.zeros((n, N_SHAPES)) if shapes is None else np.asarray(shapes, dtype=np.float64)
        observed = ~np.isnan(scores)
        self.n_labels_ = observed.sum(axis=0)
        self._set_tasks(_frequent(tasks))
        self._centre = float(scores[observed].mean())
        self._shape_means = shapes.mean(axis=0)
        rng = np.random.default_rng(self.seed)
        blocks = blocks_of(groups if groups is not None else [str(i) for i in range(n)], rng)
        with single_threaded():
            projection = Projection.fit(texts, self.n_components, self.seed)
            rest = self._rest_of_design(tasks, shapes)
            design = self._design(projection.apply(texts), rest)
            weights, out = self._fit_members(design, scores, blocks, rng)
            self._set_weights(weights, projection)
            self.oob_ = self._out_of_bag(design, out)
        return self

    def predict(
        self, queries: Sequence[str], tasks: Sequence[str] | None = None
    ) -> SuccessEstimate:
        """Predict texts; an unknown task counts as none. Raises: NotTrainedError before `fit`."""
        return self.predict_features(hash_texts(queries), tasks=tasks)

    def predict_features(
        self,
        texts: Sequence[SparseText],
        *,
        tasks: Sequence[str] | None = None,
        shapes: Floats | None = None,
        spread: bool = True,
    ) -> SuccessEstimate:
        """Predict hashed texts; `shapes` is (n_queries, 5), None means average ones.

        Without `spread`, `std` is left out (NaN): a live decision does not need it.
        """
        if self._mean is None or self._projection is None:
            raise NotTrainedError("this predictor is not fitted: call `fit` first")
        tasks = checked_tasks(tasks, len(texts))
        shapes = np.tile(self._shape_means, (len(texts), 1)) if shapes is None else shapes
        rest = self._rest_of_design(tasks, shapes)
        tables = [self._mean.per_bucket, *([self._projection.axes] if spread else [])]
        prob, *components = self._projection.times(texts, *tables)
        prob += rest @ self._mean.of_rest
        prob += self._mean.centre
        np.clip(prob, 0.0, 1.0, out=prob)
        std = np.full(prob.shape, np.nan)
        if spread:
            std = _spread(self._members(self._design(components[0], rest)))
        return self._masked(prob, std)

    def _set_tasks(self, tasks: tuple[str, ...]) -> None:
        self.tasks_ = tasks
        self._position = {task: i for i, task in enumerate(tasks)}

    def _set_weights(self, weights: NDArray[np.float32], projection: Projection) -> None:
        self._weights, self._projection = weights, projection
        mean, r = weights.mean(axis=1), projection.axes.shape[1]
        self._mean = _MeanMember(
            centre=self._centre + mean[0].astype(np.float64),
            per_bucket=projection.fold(mean[1 : 1 + r]),
            of_rest=mean[1 + r :].astype(np.float64),
        )

    def _members(self, design: Floats) -> NDArray[np.float32]:
        """Every member's estimates, shape (n_queries, n_bootstraps, n_columns)."""
        if self._weights is None:
            raise NotTrainedError("this predictor is not fitted: call `fit` first")
        flat = self._weights.reshape(self._weights.shape[0], -1)
        stacked = design.astype(np.float32) @ flat
        stacked += np.float32(self._centre)
        return stacked.reshape(len(design), *self._weights.shape[1:])

    def _masked(self, prob: Floats, std: Floats) -> SuccessEstimate:
        unlabelled = self.n_labels_ == 0
        prob[:, unlabelled] = np.nan
        std[:, unlabelled] = np.nan
        return SuccessEstimate(prob, std)

    def _design(self, components: Floats, rest: Floats) -> Floats:
        """The shared design: intercept, text components, task indicators, shape."""
        return np.hstack([np.ones((len(rest), 1)), components, rest])

    def _rest_of_design(self, tasks: Sequence[str], shapes: Floats) -> Floats:
        """Task indicators and shape, (n_queries, n_tasks + 5); an unknown task has none."""
        n_tasks = len(self.tasks_)
        rest = np.zeros((len(tasks), n_tasks + N_SHAPES))
        for row, task in enumerate(tasks):
            if task in self._position:
                rest[row, self._position[task]] = TASK_SCALE
        rest[:, n_tasks:] = SHAPE_SCALE * (shapes - self._shape_means)
        return rest

    def _fit_members(
        self, design: Floats, scores: Floats, blocks: Ints, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Bools]:
        """The members' weights, and which rows each did not see, (n_bootstraps, n_rows)."""
        grams = BlockGrams(design, scores - self._centre, blocks)
        penalties = choose_penalties(grams)
        n_blocks = int(blocks.max()) + 1
        draws = rng.multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), self.n_bootstraps)
        weights = grams.solve(draws.astype(np.float64), penalties).astype(np.float32)
        return weights, draws[:, blocks] == 0

    def _out_of_bag(self, design: Floats, out: Bools) -> SuccessEstimate:
        """Average, per row, the members that did not see it; all members where none is left."""
        use = out | ~out.any(axis=0)  # (n_bootstraps, n_rows)
        share = (use / use.sum(axis=0)).T.astype(np.float32)[:, None, :]
        mean = np.empty((len(design), self.n_columns))
        std = np.empty_like(mean)
        for rows in np.array_split(np.arange(len(design)), len(design) // _ROWS_AT_ONCE + 1):
            members = self._members(design[rows])
            average = share[rows] @ members
            members -= average
            mean[rows] = average[:, 0]
            std[rows] = np.sqrt(share[rows] @ members**2)[:, 0]
        return self._masked(np.clip(mean, 0.0, 1.0), std)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that prediction needs as plain arrays, for an npz file."""
        if self._weights is None or self._projection is None:
            raise NotTrainedError("this predictor is not fitted: call `fit` first")
        return {
            "weights": self._weights,
            "tasks": _packed(self.tasks_),
            "n_labels": self.n_labels_,
            "centre": np.array(self._centre),
            "shape_means": self._shape_means,
            "settings": _packed([self.n_bootstraps, self.seed, self.n_components]),
            **self._projection.to_arrays(),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> Self:
        """Rebuild a predictor from `to_arrays`; its out-of-bag estimates are not kept."""
        predictor = cls(*json.loads(arrays["settings"].tobytes()))
        predictor._set_tasks(tuple(json.loads(arrays["tasks"].tobytes())))
        predictor.n_labels_ = np.asarray(arrays["n_labels"], dtype=np.int64)
        predictor._centre = float(arrays["centre"])
        predictor._shape_means = np.asarray(arrays["shape_means"], dtype=np.float64)
        weights = np.asarray(arrays["weights"], dtype=np.float32)
        predictor._set_weights(weights, Projection.from_arrays(arrays))
        return predictor


def checked_scores(scores: Floats, n_queries: int) -> Floats:
    """Return the scores as floats. Raises: ValueError, naming the first cell that breaks a rule."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[0] != n_queries:
        raise ValueError(
            f"scores of shape {scores.shape} do not fit {n_queries} queries: "
            "pass (n_queries, n_columns)"
        )
    bad = np.argwhere((scores < 0) | (scores > 1))  # NaN compares false: not observed
    if bad.size:
        row, column = bad[0]
        raise ValueError(
            f"score {float(scores[row, column])!r} of query {row}, column {column} is outside "
            "[0, 1]: scale scores first; NaN means not observed"
        )
    if np.isnan(scores).all():
        raise ValueError("no score is observed: at least one label is needed to fit")
    return scores


def checked_tasks(tasks: Sequence[str] | None, n_queries: int) -> list[str]:
    """Return one task per query, "" for none. Raises: ValueError when the numbers differ."""
    if tasks is None:
        return [""] * n_queries
    if len(tasks) != n_queries:
        raise ValueError(f"{len(tasks)} tasks for {n_queries} queries: pass one task per query")
    return list(tasks)


def _packed(values: Sequence[str] | Sequence[int]) -> NDArray[np.generic]:
    """As JSON, which keeps what fixed-width text arrays cut, and takes no more than is needed."""
    return np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)


def _frequent(tasks: Sequence[str]) -> tuple[str, ...]:
    """The most frequent tasks, ties in alphabetical order; "" is no task."""
    counts = Counter(task for task in tasks if task)
    return tuple(sorted(counts, key=lambda task: (-counts[task], task))[:MAX_TASKS])


def _spread(members: NDArray[np.float32]) -> Floats:
    """The members' standard deviation, once each is cut to [0, 1]; (n_queries, n_columns)."""
    members = np.clip(members, 0.0, 1.0)
    members -= members.mean(axis=1, keepdims=True)
    members *= members
    return np.asarray(np.sqrt(members.mean(axis=1)), dtype=np.float64)
