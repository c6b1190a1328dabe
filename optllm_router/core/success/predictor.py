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

The ridges' mean is drawn towards what the nearest labelled texts say (`neighbours`), and a second
estimate is stacked on it (`stacking`). The columns' differences are then shrunk by as much as they
mislead, and what they have in common stretched by as much as it is understated (`personal`). All
are judged on rows that did not take part (`blending`). A column with a handful of labels joins
afterwards (`newcomer`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.embedding import Embedder, Encoder, embedded_texts
from optllm_router.core.features import SparseText
from optllm_router.core.projection import Projection
from optllm_router.core.ridge import blocks_of, single_threaded
from optllm_router.core.success.blending import MOST_SPREAD, Blend
from optllm_router.core.success.dense import DenseProjection, joint_places
from optllm_router.core.success.ensemble import RidgeEnsemble
from optllm_router.core.success.labels import (
    LeftOut,
    SuccessEstimate,
    checked_scores,
    checked_tasks,
    numbered,
)
from optllm_router.core.success.neighbours import Neighbours
from optllm_router.core.success.newcomer import (
    Lenders,
    Newcomer,
    Seen,
    newcomers_from_arrays,
    newcomers_to_arrays,
    placed,
    with_newcomers,
)
from optllm_router.core.success.personal import Personal
from optllm_router.core.success.serving import Serving, design_of
from optllm_router.core.success.stacking import Stack
from optllm_router.core.success.traits import N_SHAPES, Traits, packed
from optllm_router.errors import NotTrainedError
from optllm_router.records import Bools, Floats, Ints


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
        self._serving: Serving | None = None
        self._neighbours: Neighbours | None = None
        self._personal = Personal(np.zeros(0))
        self._newcomers: tuple[Newcomer, ...] = ()

    @property
    def n_columns(self) -> int:
        """The number of columns that it was fitted on or that joined; 0 before."""
        return int(self.n_labels_.size)

    @property
    def fitted_(self) -> Bools:
        """Which columns were fitted on labels of their own, (n_columns,)."""
        fitted = self._personal.fitted
        return self.n_labels_ > 0 if fitted is None else fitted

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
        self._newcomers = ()
        self._traits = Traits.fit(tasks, shapes)
        rng = np.random.default_rng(self.seed)
        blocks = blocks_of(groups if groups is not None else [str(i) for i in range(n)], rng)
        with single_threaded():
            projection = Projection.fit(texts, self.n_components, self.seed)
            components = projection.apply(texts)
            self._dense = DenseProjection.fit(texts, components, self.seed)
            rest = self._rest(texts, tasks, shapes)
            design = design_of(components, rest)
            ensemble, out = RidgeEnsemble.fit(design, scores, blocks, self.n_bootstraps, rng)
            blend = Blend.fit(
                self._masked(ensemble.out_of_bag(design, out)),
                scores,
                places=self._places(components, rest),
                components=components,
                tasks=rest[:, : self._traits.n_tasks],
                texts=numbered(groups, n),
                blocks=blocks,
            )
            self._serving = Serving.of(ensemble, projection, blend.stack)
        self._neighbours, self._personal = blend.neighbours, blend.personal
        self.left_out_ = blend.left_out
        self.set_contrast(self.contrast)
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
            shrunk = self._personal.of_left_out(own.prob, own.column_score)
            self.oob_ = SuccessEstimate(self._personal.prob(shrunk, own.prob), own.std)

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
        seen = self.by_fitted(texts, checked_tasks(tasks, len(texts)), shapes, spread=spread)
        if self._newcomers:
            seen = with_newcomers(seen, self._newcomers, self.lenders())
        prob = self._personal.prob_of(seen.prob, seen.met)
        std = prob + np.nan if seen.std is None else np.minimum(seen.std, MOST_SPREAD)
        return self._masked(SuccessEstimate(prob, std))

    def by_fitted(
        self,
        texts: Sequence[SparseText],
        tasks: Sequence[str],
        shapes: Floats | None,
        *,
        spread: bool,
    ) -> Seen:
        """Return what the fitted columns make of texts; arguments as in `predict_features`."""
        serving, near = self._fitted(), self._neighbours
        rest = self._rest(texts, tasks, shapes)
        located = spread or near is not None
        prob, added, components = serving.estimates(texts, rest, components=located)
        met = np.zeros(len(texts), dtype=np.bool_)
        design = places = np.empty((len(texts), 0))
        std = None
        if spread:
            design = design_of(components, rest)
            std = serving.ensemble.spread(design)
        if near is not None:
            places = self._places(components, rest)
            prob, met = near.estimate(places, prob, std)
        prob = serving.stacked(prob, added, met)
        return Seen(prob=prob, std=std, met=met[:, None], design=design, places=places)

    def lenders(self) -> Lenders:
        """Return the fitted columns as newcomers see them. Raises: NotTrainedError before `fit`."""
        ensemble = self._fitted().ensemble
        own = np.where(self.fitted_, self.column_score_, np.nan)
        return Lenders(
            column_score=own[: ensemble.weights.shape[2]],
            ensemble=ensemble,
            neighbours=self._neighbours,
        )

    def with_newcomer(self, newcomer: Newcomer, n_labels: int, left_out: LeftOut | None) -> Self:
        """Return a copy with a newcomer, and with its estimates of the training rows if known.

        See `joining.join`, which makes newcomers.
        """
        column, joined = newcomer.column, copy(self)
        joined.n_labels_ = placed(self.n_labels_, column, n_labels)
        others = [one for one in self._newcomers if one.column != column]
        joined._newcomers = (*others, newcomer)  # noqa: SLF001  # its own copy
        joined._personal = replace(  # noqa: SLF001  # likewise
            self._personal,
            column_score=placed(self.column_score_, column, newcomer.score),
            fitted=placed(self.fitted_, column, new=False),
        )
        joined.left_out_, joined.oob_ = left_out, None
        joined.set_contrast(self.contrast)
        return joined

    def _fitted(self) -> Serving:
        if self._serving is None:
            raise NotTrainedError("this predictor is not fitted: call `fit` first")
        return self._serving

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
        if np.count_nonzero(self.n_labels_) < self.n_columns:
            for values in (estimate.prob, estimate.std):
                values[:, self.n_labels_ == 0] = np.nan
        return estimate

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that prediction needs as plain arrays, for an npz file."""
        serving = self._fitted()
        return {
            "weights": serving.ensemble.weights,
            "centre": np.array(serving.ensemble.centre),
            "n_labels": self.n_labels_,
            "settings": packed([self.n_bootstraps, self.seed, self.n_components]),
            **self._personal.to_arrays(),
            **self._traits.to_arrays(),
            **({} if self._neighbours is None else self._neighbours.to_arrays("near")),
            **newcomers_to_arrays(self._newcomers),
            **({} if serving.stack is None else serving.stack.to_arrays()),
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
        predictor._serving = serving = Serving.of(
            ensemble, Projection.from_arrays(arrays), Stack.from_arrays(arrays)
        )
        if "contrast" in arrays:  # there were neither neighbours nor shrinking at first
            predictor._personal = Personal.from_arrays(arrays)
            predictor._neighbours = Neighbours.from_arrays(arrays, "near")
        else:  # where nothing is shrunk any level will do; newcomers borrow a likely one
            level = np.where(predictor.n_labels_ > 0, serving.centre, np.nan)
            predictor._personal = Personal(level)
        if "newcomers" in arrays:
            own = predictor.n_labels_ > 0
            own[np.asarray(arrays["newcomers"])] = False
            predictor._personal = replace(predictor._personal, fitted=own)
            predictor._newcomers = newcomers_from_arrays(
                arrays, predictor.lenders(), predictor.seed
            )
        return predictor
