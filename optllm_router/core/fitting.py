"""Fits what one publication holds: predictor, cost forecasts, optimism, traffic, figures.

A column with few labels is not fitted beside the others: it joins them afterwards (`joining`), as
it would join a snapshot that is published already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optllm_router.core.amounts import AmountForecast, filled_output
from optllm_router.core.cost import Rates
from optllm_router.core.joining import (
    few_labels,
    join_few_amounts,
    labels_of,
    like_the_fitted,
)
from optllm_router.core.personalising import Judged, chosen_contrast
from optllm_router.core.snapshot import (
    MAX_TRAFFIC,
    PREDICTORS,
    Snapshot,
    TrainingSet,
    fit_optimism,
)
from optllm_router.core.success import SuccessPredictor, join, numbered
from optllm_router.records import Bools, Candidate, Floats, PredictorKind


def fit_snapshot(  # noqa: PLR0913  # what a fit depends on, by keyword
    training: TrainingSet,
    candidates: Sequence[Candidate],
    *,
    version: str,
    kind: PredictorKind = "ridge",
    n_bootstraps: int = 50,
    seed: int = 0,
) -> Snapshot:
    """Fit everything that one publication holds; `candidates` are the columns, in their order.

    `kind` is "ridge" (`success`) or "forest" (OptLLM's, `forest`).

    Raises: ValueError when no score is observed.
    """
    few = few_labels(training.scores, numbered(training.groups, len(training.texts)))
    predictor = PREDICTORS[kind](n_bootstraps, seed).fit_features(
        training.texts,
        np.where(few, np.nan, training.scores) if kind == "ridge" else training.scores,
        tasks=training.tasks,
        shapes=training.shapes,
        groups=training.groups,
    )
    tokens, billed, cost = _forecasts(training, candidates)
    if isinstance(predictor, SuccessPredictor):
        _personalise(predictor, training, candidates, cost, seed)
        predictor = _joined(predictor, training, few, cost)
    out_of_bag = predictor.oob_
    if out_of_bag is None:
        raise ValueError("the predictor kept no out-of-bag estimates")
    newest = slice(max(0, len(training.texts) - MAX_TRAFFIC), None)
    return Snapshot(
        version=version,
        columns=training.columns,
        predictor=predictor,
        output_tokens=tokens,
        cost_usd=billed,
        optimism=fit_optimism(out_of_bag.prob, cost, training.scores),
        traffic_prob=out_of_bag.prob[newest],
        traffic_cost_usd=cost[newest],
        column_score=_column_means(training.scores),
        metrics=_metrics(out_of_bag.prob, training.scores),
    )


def _forecasts(
    training: TrainingSet, candidates: Sequence[Candidate]
) -> tuple[AmountForecast, AmountForecast, Floats]:
    """Forecasts of output tokens and of bills, and the training rows' own forecast cost."""
    tokens, billed = (
        join_few_amounts(
            AmountForecast.fit(amounts, training.prompt_tokens, training.tasks),
            amounts,
            training.prompt_tokens,
            training.tasks,
        )
        for amounts in (training.output_tokens, training.cost_usd)
    )
    cost = Rates(candidates).forecast_usd(
        np.minimum(
            filled_output(tokens.predict(training.prompt_tokens, training.tasks)),
            [float(candidate.max_output_tokens) for candidate in candidates],
        ),
        billed.predict(training.prompt_tokens, training.tasks),
        training.prompt_tokens,
    )
    return tokens, billed, cost


def _personalise(
    predictor: SuccessPredictor,
    training: TrainingSet,
    candidates: Sequence[Candidate],
    forecast_usd: Floats,
    seed: int,
) -> None:
    """Keep as much of the columns' differences as decisions by them are worth."""
    left_out = predictor.left_out_
    if left_out is None:
        raise ValueError("the predictor kept no left-out estimates")
    cost = Rates(candidates).forecast_usd(
        training.output_tokens, training.cost_usd, training.prompt_tokens
    )
    known = ~np.isnan(predictor.column_score_)
    cells = np.isfinite(training.scores) & np.isfinite(forecast_usd) & np.isfinite(cost)
    rows = np.flatnonzero(cells[:, known].all(axis=1))
    judged = Judged(
        estimates=left_out.prob[rows][:, known],
        elsewhere=left_out.column_score[rows][:, known],
        scores=training.scores[rows][:, known],
        forecast_usd=forecast_usd[rows][:, known],
        cost_usd=cost[rows][:, known],
        text=numbered(training.groups, len(training.texts))[rows],
    )
    predictor.set_contrast(
        chosen_contrast(judged, predictor.column_score_[known], predictor.contrast, seed)
    )


def _joined(
    predictor: SuccessPredictor, training: TrainingSet, few: Bools, forecast_usd: Floats
) -> SuccessPredictor:
    """Join the columns with few labels, in their order."""
    usd = _column_means(forecast_usd)
    for column in np.flatnonzero(few).tolist():
        name = training.columns[column]
        like = like_the_fitted(predictor, training.columns, usd, name, usd[column])
        predictor = join(predictor, column, like, labels_of(training, column, trained=True))
    return predictor


def _metrics(prob: Floats, scores: Floats) -> dict[str, float | int]:
    """Out-of-bag figures of a fit: Brier score, that of the columns' means, label counts."""
    error = (prob - scores) ** 2
    baseline = (_column_means(scores) - scores) ** 2
    return {
        "n_queries": int(scores.shape[0]),
        "n_labels": int((~np.isnan(scores)).sum()),
        "brier": float(np.nanmean(error)),
        "brier_of_means": float(np.nanmean(baseline)),
    }


def _column_means(scores: Floats) -> Floats:
    n = (~np.isnan(scores)).sum(axis=0)
    return np.where(n > 0, np.nansum(scores, axis=0) / np.maximum(n, 1), np.nan)
