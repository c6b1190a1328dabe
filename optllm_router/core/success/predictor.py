"""How likely each column is to answer a query well: a bootstrap ensemble of masked ridges.

The label matrix (queries x columns) has holes: after a probe every column of a query is observed,
after a served answer only one. Each column is a ridge on the same design: an intercept, the text's
principal components, one indicator per task, the query's shape, and, where there are embeddings,
theirs (`dense`). Ridge is the hierarchical shrinkage: labels are centred on their overall mean, the
intercept is a column's deviation from it, a task indicator the task's deviation from the column,
and every one is pulled towards 0 by its penalty, so that few labels mean little deviation (James &
Stein, 1961; Hoerl & Kennard, 1970).

The ensemble resamples distinct texts, so that duplicates never stand on both sides. Members
differ only in their weights, so their mean is itself such a ridge, and serving it is one small
product per text: the mean weights are folded into the projection beforehand. OptLLM (arXiv
2405.15130, section III-B) is the source of the idea: mean and spread over bootstrap members; its
forests and its weights are not needed for it.

The ridges' mean is drawn towards what the nearest labelled texts say (`neighbours`), and the
columns' differences are then shrunk by as much as they mislead (`personal`). Both are judged on
rows that did not take part.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.embedding import Embedder, Encoder, embedded_texts
from optllm_router.core.features import SparseText
from optllm_router.core.projection import Projection
from optllm_router.core.ridge import blocks_of, single_threaded
from optllm_router.core.success.dense import DenseProjection, joint_places
from optllm_router.core.success.ensemble import RidgeEnsemble
from optllm_router.core.success.labels import (
    LeftOut,
    SuccessEstimate,
    checked_scores,
    checked_tasks,
    numbered,
)
from optllm_router.core.success.neighbours import Neighbours, fit_neighbours
from optllm_router.core.success.personal import (
    Personal,
    column_scores,
    contrast_slope,
    scores_elsewhere,
)
from optllm_router.core.success.traits import N_SHAPES, Traits, packed
from optllm_router.errors import NotTrainedError
from optllm_router.records import Floats, Ints

N_FOLDS = 8
MET_STRENGTH = 5.0  # rows that a met text's contrast is drawn towards a new one's
MOST_SPREAD = 0.5  # of anything in [0, 1]


@dataclass(frozen=True, slots=True, eq=False)
class _Serving:
    """What estimates a text, ready to use.

    `per_bucket` (N_FEATURES, n_columns), `of_rest` (n_tasks + 5 + n_dense, n_columns) and `centre`
    (n_columns,) are the ridges' mean.
    """

    ensemble: RidgeEnsemble
    projection: Projection
    centre: Floats
    per_bucket: NDArray[np.float32]
    of_rest: Floats

    @classmethod
    def of(cls, ensemble: RidgeEnsemble, projection: Projection) -> Self:
        mean, r = ensemble.weights.mean(axis=1), projection.axes.shape[1]
        return cls(
            ensemble=ensemble,
            projection=projection,
            centre=ensemble.centre + mean[0].astype(np.float64),
            per_bucket=projection.fold(mean[1 : 1 + r]),
            of_rest=mean[1 + r :].astype(np.float64),
        )


class SuccessPredictor:
    """Predict each column's probability of success from a query's text, task and shape.

    Args:
        n_bootstraps: members of the ensemble, at least 2.
        seed: seeds the resampling; the same data and seed give the same predictor.
        n_components: principal components of the text that are kept, at most.
        embedder: embeds the texts of `fit` and `predict`, which then learn from both; what it
            raises they pass on. It is not kept by `to_arrays`.

    Raises:
        ValueError: fewer than 2 members, a negative seed or number of components.

    Attributes:
        oob_: the training rows' estimates as of new texts, each from members that did not see the
            row's text and from labels that are not its own.
        left_out_: the same before the columns' differences are shrunk; not kept by `to_arrays`.
        n_labels_: observed labels per column, shape (n_columns,).
    """

    def __init__(
        self,
        n_bootstraps: int = 50,
        seed: int = 0,
        n_components: int = 128,
        *,
        embedder: Embedder | Encoder | None = None,
    ) -> None:
        if n_bootstraps < 2 or seed < 0 or n_components < 0:
            raise ValueError(
                f"n_bootstraps={n_bootstraps}, seed={seed}, n_components={n_components}: an "
                "ensemble has at least 2 members, the other two are not negative"
            )
        self.n_bootstraps = n_bootstraps
        self.seed = seed
        self.n_components = n_components
        self.embedder = embedder
        self.n_labels_: Ints = np.zeros(0, dtype=np.int64)
        self.oob_: SuccessEstimate | None = None
        self.left_out_: LeftOut | None = None
        self._traits = Traits((), np.zeros(N_SHAPES))
        self._dense: DenseProjection | None = None
        self._serving: _Serving | None = None
        self._neighbours: Neighbours | None = None
        self._personal = Personal(np.zeros(0))

    @property
    def n_columns(self) -> int:
        """The number of columns that it was fitted on; 0 before."""
        return int(self.n_labels_.size)

    @property
    def tasks_(self) -> tuple[str, ...]:
        """The tasks that have an indicator, the most frequent ones first."""
        return self._traits.tasks

    @property
    def column_score_(self) -> Floats:
        """Every column's mean score over all training rows, (n_columns,); NaN without a label."""
        return self._personal.column_score

    @property
    def contrast(self) -> float:
        """The share of the columns' differences kept on new texts: 0 = all texts alike."""
        return self._personal.contrast

    @property
    def n_dimensions_(self) -> int:
        """How many numbers the embeddings had that it was fitted on; 0 for none."""
        return 0 if self._dense is None else self._dense.n_dimensions

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
            ConfigError: what the embedder returned are no embeddings.
        """
        texts = embedded_texts(queries, self.embedder)
        return self.fit_features(texts, scores, tasks=tasks, groups=queries)

    def fit_features(
        self,
        texts: Sequence[SparseText],
        scores: Floats,
        *,
        tasks: Sequence[str] | None = None,
        shapes: Floats | None = None,
        groups: Sequence[str] | None = None,
    ) -> Self:
        """Fit on hashed texts; `shapes` is (n_queries, 5), `groups` names the distinct texts.

        Texts without an embedding count as average ones where others have one.
        """
        n = len(texts)
        scores = checked_scores(scores, n)
        tasks = checked_tasks(tasks, n)
        shapes = np.zeros((n, N_SHAPES)) if shapes is None else np.asarray(shapes, dtype=np.float64)
        self.n_labels_ = (~np.isnan(scores)).sum(axis=0)
        self._traits = Traits.fit(tasks, shapes)
        rng = np.random.default_rng(self.seed)
        blocks = blocks_of(groups if groups is not None else [str(i) for i in range(n)], rng)
        with single_threaded():
            projection = Projection.fit(texts, self.n_components, self.seed)
            components = projection.apply(texts)
            self._dense = DenseProjection.fit(texts, components, self.seed)
            rest = self._rest(texts, tasks, shapes)
            design = _design(components, rest)
            ensemble, out = RidgeEnsemble.fit(design, scores, blocks, self.n_bootstraps, rng)
            self._serving = _Serving.of(ensemble, projection)
            ridge = self._masked(ensemble.out_of_bag(design, out))
            places = self._places(components, rest)
            self._fit_shrinking(places, scores, numbered(groups, n), ridge, blocks % N_FOLDS)
        return self

    def set_contrast(self, contrast: float, *, met: float | None = None) -> None:
        """Keep another share of the columns' differences on new texts; `oob_` follows.

        Args:
            contrast: in [0, 1]; 0 makes all texts alike but for what they do to all columns.
            met: the share on texts that were met before, in [0, 1]; None leaves it.

        Raises:
            ValueError: a share outside [0, 1].
            NotTrainedError: before `fit`.
        """
        self._fitted()
        met = self._personal.contrast_met if met is None else met
        for share in (contrast, met):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"contrast {share!r} is outside [0, 1]: it is a share")
        self._personal = replace(self._personal, contrast=contrast, contrast_met=met)
        if self.left_out_ is not None:
            own = self.left_out_
            prob = self._personal.of_left_out(own.prob, own.column_score)
            self.oob_ = SuccessEstimate(np.clip(prob, 0.0, 1.0), own.std)

    def predict(
        self, queries: Sequence[str], tasks: Sequence[str] | None = None
    ) -> SuccessEstimate:
        """Predict texts; an unknown task counts as none.

        Raises: NotTrainedError before `fit`; ConfigError, also for embeddings of another length.
        """
        embedder = self.embedder if self.n_dimensions_ else None
        texts = embedded_texts(queries, embedder, self.n_dimensions_)
        return self.predict_features(texts, tasks=tasks)

    def predict_features(
        self,
        texts: Sequence[SparseText],
        *,
        tasks: Sequence[str] | None = None,
        shapes: Floats | None = None,
        spread: bool = True,
    ) -> SuccessEstimate:
        """Predict hashed texts; `shapes` is (n_queries, 5), None means average ones.

        A text without an embedding counts as an average one, also where the embedding has another
        length than those of the fit; a fit without embeddings looks at none.

        Without `spread`, `std` is left out (NaN): a live decision does not need it.
        """
        serving, near = self._fitted(), self._neighbours
        rest = self._rest(texts, checked_tasks(tasks, len(texts)), shapes)
        projection = serving.projection
        axes = [projection.axes] if spread or near is not None else []
        prob, *components = projection.times(texts, serving.per_bucket, *axes)
        prob += rest @ serving.of_rest
        prob += serving.centre
        std = serving.ensemble.spread(_design(components[0], rest)) if spread else None
        met = np.zeros(len(texts), dtype=np.bool_)
        if near is not None:
            prob, met = near.estimate(self._places(components[0], rest), prob, std)
        shrunk = np.clip(self._personal.of(prob, met), 0.0, 1.0)
        unknown = np.full(prob.shape, np.nan)
        std = unknown if std is None else np.minimum(std, MOST_SPREAD)
        return self._masked(SuccessEstimate(shrunk, std))

    def _fitted(self) -> _Serving:
        if self._serving is None:
            raise NotTrainedError("this predictor is not fitted: call `fit` first")
        return self._serving

    def _fit_shrinking(
        self, places: Floats, scores: Floats, texts: Ints, ridge: SuccessEstimate, fold: Ints
    ) -> None:
        """Choose the neighbours' say and the contrasts by rows that did not take part."""
        judged = fit_neighbours(places, scores, texts, ridge.prob)
        near, own, met = judged.neighbours, judged.left_out, judged.met
        std = ridge.std.copy()
        if near is not None:
            near.estimate(places, ridge.prob, std)
        mean = column_scores(own, scores)
        slope = contrast_slope(own, scores, mean)
        again = contrast_slope(
            judged.met_again[met], scores[met], mean, expected=slope, strength=MET_STRENGTH
        )
        self._neighbours, self._personal = near, Personal(mean, contrast_met=again)
        elsewhere = scores_elsewhere(own, scores, fold)
        self.left_out_ = LeftOut(own, np.minimum(std, MOST_SPREAD), elsewhere)
        self.set_contrast(slope)

    def _rest(
        self, texts: Sequence[SparseText], tasks: Sequence[str], shapes: Floats | None
    ) -> Floats:
        """Tasks, shapes and embeddings' components, (n_queries, n_tasks + 5 + n_dense)."""
        rest = self._traits.of(tasks, shapes)
        return rest if self._dense is None else np.hstack([rest, self._dense.apply(texts)])

    def _places(self, components: Floats, rest: Floats) -> Floats:
        """Where texts lie among their neighbours, (n_queries, n_components + n_dense + n_tasks)."""
        n_tasks = self._traits.n_tasks
        return joint_places(components, rest[:, n_tasks + N_SHAPES :], rest[:, :n_tasks])

    def _masked(self, estimate: SuccessEstimate) -> SuccessEstimate:
        unlabelled = self.n_labels_ == 0
        for values in (estimate.prob, estimate.std):
            values[:, unlabelled] = np.nan
        return estimate

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that prediction needs as plain arrays, for an npz file."""
        serving = self._fitted()
        return {
            "weights": serving.ensemble.weights,
            "centre": np.array(serving.ensemble.centre),
            "n_labels": self.n_labels_,
            "settings": packed([self.n_bootstraps, self.seed, self.n_components]),
            "column_score": self._personal.column_score,
            "contrast": np.array([self._personal.contrast, self._personal.contrast_met]),
            **self._traits.to_arrays(),
            **({} if self._neighbours is None else self._neighbours.to_arrays("near")),
            **serving.projection.to_arrays(),
            **({} if self._dense is None else self._dense.to_arrays()),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> Self:
        """Rebuild a predictor from `to_arrays`; its out-of-bag estimates are not kept."""
        predictor = cls(*json.loads(arrays["settings"].tobytes()))
        predictor.n_labels_ = np.asarray(arrays["n_labels"], dtype=np.int64)
        predictor._traits = Traits.from_arrays(arrays)
        predictor._dense = DenseProjection.from_arrays(arrays)
        weights = np.asarray(arrays["weights"], dtype=np.float32)
        ensemble = RidgeEnsemble(weights, float(arrays["centre"]))
        predictor._serving = _Serving.of(ensemble, Projection.from_arrays(arrays))
        level = np.where(predictor.n_labels_ > 0, 0.0, np.nan)
        predictor._personal = Personal(level)  # where nothing is shrunk any level will do
        if "contrast" in arrays:  # there were neither neighbours nor shrinking at first
            score = np.asarray(arrays["column_score"], dtype=np.float64)
            kept = np.asarray(arrays["contrast"], dtype=np.float64).tolist()
            predictor._personal = Personal(score, *kept)
            predictor._neighbours = Neighbours.from_arrays(arrays, "near")
        return predictor


def _design(components: Floats, rest: Floats) -> Floats:
    """The ridges' design: intercept, text components, tasks, shape, embedding components."""
    return np.hstack([np.ones((len(rest), 1)), components, rest])
