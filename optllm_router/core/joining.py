"""Joins columns with a handful of labels to a snapshot, or to what a fit makes of the others.

Nothing is refitted: a newcomer is made from what is known of the fitted columns (`likeness`,
`success.newcomer`), and every array of the snapshot gets a column more. No bit of the other columns
changes. What it costs is borrowed, too: as much as the others, in proportion, and what its own
answers leave over of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from optllm_router.core.amounts import (
    RATIO_STRENGTH,
    AmountForecast,
    filled_output,
    ratio_quantiles,
)
from optllm_router.core.cost import Rates
from optllm_router.core.levels import fit_levels
from optllm_router.core.likeness import Likeness, likeness
from optllm_router.core.snapshot import OPTIMISM_STRENGTH, Optimism, Snapshot, TrainingSet
from optllm_router.core.success import NewLabels, SuccessPredictor, join
from optllm_router.core.success.newcomer import placed
from optllm_router.records import Bools, Candidate, Floats, Ints

FEW = 30
"""A column with fewer distinct labelled texts, or observed amounts, borrows from the others."""

FEW_BESIDE = 3  # times as many texts has the column of which most is known, at least


def few_labels(scores: Floats, texts: Ints) -> Bools:
    """Say which columns have few labels, and few beside the others, (n_columns,).

    None where no column has many; a column without any label has nothing to join with.

    Args:
        scores: (n_rows, n_columns), NaN where not observed.
        texts: (n_rows,), equal for equal texts.
    """
    n = np.array([np.unique(texts[~np.isnan(column)]).size for column in scores.T])
    most = n.max(initial=0)
    return np.asarray((n > 0) & (n < FEW) & (n * FEW_BESIDE <= most) & (most >= FEW))


def like_the_fitted(
    predictor: SuccessPredictor, columns: Sequence[str], usd: Floats, name: str, own_usd: float
) -> Likeness:
    """Weigh a predictor's fitted columns by how like a newcomer they are.

    Args:
        predictor: at least one of its columns was fitted on labels.
        columns: the names of its columns.
        usd: what they cost per query, (n_columns,), NaN where unknown.
        name: the newcomer's.
        own_usd: what it costs per query.

    Returns: weights of the columns of `fit`, 0 for one without a label.
    """
    known = np.flatnonzero(predictor.fitted_)
    found = likeness(name, own_usd, [columns[j] for j in known.tolist()], usd[known])
    mix = np.zeros(predictor.lenders().column_score.size)
    mix[known] = found.mix
    return replace(found, mix=mix)


def labels_of(training: TrainingSet, column: int, *, trained: bool) -> NewLabels:
    """Return one column's labels; `trained` says that the others were fitted on the same rows."""
    rows = np.flatnonzero(~np.isnan(training.scores[:, column]))
    at = rows.tolist()
    return NewLabels(
        texts=[training.texts[i] for i in at],
        scores=training.scores[rows, column],
        tasks=[training.tasks[i] for i in at],
        shapes=training.shapes[rows],
        rows=rows if trained else None,
        groups=[training.groups[i] for i in at],
    )


def join_few_amounts(
    forecast: AmountForecast, amounts: Floats, prompt_tokens: Floats, tasks: Sequence[str]
) -> AmountForecast:
    """Forecast columns with few observations by the others; arguments as for `AmountForecast.fit`.

    None of them where no column has many observations.
    """
    n = forecast.n_observed
    if (n >= FEW).any():
        for column in np.flatnonzero((n > 0) & (n < FEW)).tolist():
            seen = amounts[:, column]
            forecast = join_amounts(forecast, column, seen, prompt_tokens, tasks)
    return forecast


def join_amounts(
    forecast: AmountForecast,
    column: int,
    amounts: Floats,
    prompt_tokens: Floats,
    tasks: Sequence[str],
) -> AmountForecast:
    """Forecast one column by the others' mean, and by what its own amounts leave over of that.

    Every other column is taken in units of its own mean. What is left of the newcomer's amounts
    gets level, slope and task offsets of its own, which are small while they are few (`levels`).

    Args:
        forecast: of the others, which stay as they are.
        column: replaced, or appended as the next one.
        amounts: the column's, (n_rows,), NaN = not observed.
        prompt_tokens: (n_rows,).
        tasks: one per row.

    Lenders are the columns with many observations; without any it is fitted by itself.
    """
    lenders = _lenders(forecast, column)
    shape = _shape(forecast, lenders)
    rows = np.flatnonzero(~np.isnan(amounts))
    seen, length, task = amounts[rows], prompt_tokens[rows], [tasks[i] for i in rows.tolist()]
    usual = shape.predict(length, task)[:, 0]
    scale = float(seen.sum() / usual.sum()) if rows.size else 0.0
    mean = scale * float(usual.mean()) if rows.size else 0.0
    left = seen - scale * usual + mean  # of the same mean, which is what amounts are measured by
    own = fit_levels(
        left[:, None],
        length - forecast.mean_tokens,
        np.array(forecast.task_numbers(task), dtype=np.int64),
        len(forecast.tasks),
    )
    ratio = _ratio(seen, seen - left + own.left_out[:, 0], forecast.ratio[:, lenders])
    return replace(
        forecast,
        level=placed(forecast.level, column, scale * shape.level[0] + own.level[0] - mean),
        slope=placed(forecast.slope, column, scale * shape.slope[0] + own.slope[0]),
        task_offset=placed(
            forecast.task_offset, column, scale * shape.task_offset[:, 0] + own.task_offset[:, 0]
        ),
        floor=placed(forecast.floor, column, scale * shape.floor[0]),
        n_observed=placed(forecast.n_observed, column, rows.size),
        ratio=placed(forecast.ratio, column, ratio),
    )


def _lenders(forecast: AmountForecast, column: int) -> Ints:
    """The other columns with many observations, and not of 0 alone."""
    many = (forecast.n_observed >= FEW) & (forecast.floor > 0.0)
    many[column : column + 1] = False
    return np.flatnonzero(many)


def _shape(forecast: AmountForecast, lenders: Ints) -> AmountForecast:
    """The lenders' mean forecast, in units of its mean; 1 without any."""
    level, slope, offset = np.ones(1), np.zeros(1), np.zeros((len(forecast.tasks), 1))
    if lenders.size:
        unit = forecast.floor[lenders] * 10.0  # the mean, by which a floor is defined
        level[0] = (forecast.level[lenders] / unit).mean()
        slope[0] = (forecast.slope[lenders] / unit).mean()
        offset[:, 0] = (forecast.task_offset[:, lenders] / unit).mean(axis=1)
    return replace(
        forecast,
        level=level,
        slope=slope,
        task_offset=offset,
        floor=np.full(1, 0.1),
        n_observed=np.ones(1, dtype=np.int64),
        ratio=np.ones((len(forecast.ratio), 1)),
    )


def _ratio(seen: Floats, left_out: Floats, of_lenders: Floats) -> Floats:
    """Quantiles of amount over forecast, (n_shares,); 1 where no ratio is known.

    Of the column's own amounts, each over the forecast by the others (NaN where there is none), and
    of the lenders' ratios, (n_shares, n_lenders), which weigh as in `AmountForecast.fit`. The mean
    of n amounts is off by itself, with 1/n of the variance of an amount: by so much are the
    lenders' logarithms widened.
    """
    known = left_out > 0.0
    own = seen[known] / left_out[known]
    borrowed = of_lenders.ravel() ** np.sqrt(1.0 + 1.0 / max(seen.size, 1))
    ratio = np.concatenate([own, borrowed])
    weight = np.ones(ratio.size)
    weight[own.size :] = RATIO_STRENGTH / max(borrowed.size, 1)
    order = np.argsort(ratio, kind="stable")
    return ratio_quantiles(ratio[order], weight[order])


def join_columns(
    snapshot: Snapshot, training: TrainingSet, candidates: Sequence[Candidate], *, version: str
) -> Snapshot:
    """Return a snapshot with further columns, or with others in place of those that joined before.

    Args:
        snapshot: of a `SuccessPredictor`; it stays as it is.
        training: the newcomers' answers, its columns being they; one without a label is left out.
        candidates: the newcomers, in their order.
        version: of the new snapshot.

    Raises: ValueError for a column that was fitted on its own labels; TypeError for the snapshot of
        another predictor.
    """
    for j, candidate in enumerate(candidates):
        if not np.isnan(training.scores[:, j]).all():
            snapshot = _joined(snapshot, training, j, candidate)
    return replace(snapshot, version=version)


def _joined(snapshot: Snapshot, training: TrainingSet, j: int, candidate: Candidate) -> Snapshot:
    """The snapshot with the j-th column of the training set."""
    before, columns = snapshot.predictor, snapshot.columns
    if not isinstance(before, SuccessPredictor):
        raise TypeError(f"nothing can join a {snapshot.kind} predictor: refit it")
    if candidate.name not in columns:
        columns = (*columns, candidate.name)
    column = columns.index(candidate.name)
    tokens, billed = (
        _with_amounts(forecast, column, seen[:, j], training)
        for forecast, seen in (
            (snapshot.output_tokens, training.output_tokens),
            (snapshot.cost_usd, training.cost_usd),
        )
    )
    usd = _usual_usd(candidate, column, tokens, billed)
    traffic_usd = _means(snapshot.traffic_cost_usd)
    like = like_the_fitted(before, snapshot.columns, traffic_usd, candidate.name, usd)
    labels = labels_of(training, j, trained=False)
    predictor = join(before, column, like, labels)
    return replace(
        snapshot,
        columns=columns,
        predictor=predictor,
        output_tokens=tokens,
        cost_usd=billed,
        optimism=_widened(snapshot.optimism, column, before.fitted_, labels.scores.size),
        traffic_prob=placed(
            snapshot.traffic_prob, column, _on_traffic(snapshot, predictor, column, like)
        ),
        traffic_cost_usd=placed(
            snapshot.traffic_cost_usd,
            column,
            usd * _proportions(snapshot.traffic_cost_usd, traffic_usd, before.fitted_),
        ),
        column_score=placed(snapshot.column_score, column, labels.scores.mean()),
    )


def _with_amounts(
    forecast: AmountForecast, column: int, amounts: Floats, training: TrainingSet
) -> AmountForecast:
    """The forecast with the newcomer, unless it was fitted on more (ungraded answers) already."""
    if forecast.n_observed[column : column + 1].sum() > (~np.isnan(amounts)).sum():
        return forecast
    return join_amounts(forecast, column, amounts, training.prompt_tokens, training.tasks)


def _usual_usd(
    candidate: Candidate, column: int, tokens: AmountForecast, billed: AmountForecast
) -> float:
    """What a newcomer costs for a prompt of mean length, in USD; NaN where nothing is known."""
    prompt, task = np.array([tokens.mean_tokens]), [""]
    output = np.minimum(
        filled_output(tokens.predict(prompt, task))[:, [column]], candidate.max_output_tokens
    )
    bill = billed.predict(prompt, task)[:, [column]]
    return float(Rates([candidate]).forecast_usd(output, bill, prompt)[0, 0])


def _on_traffic(
    snapshot: Snapshot, predictor: SuccessPredictor, column: int, like: Likeness
) -> Floats:
    """A newcomer's estimates of recent traffic, (n_traffic,), from the fitted columns'."""
    lenders = predictor.lenders()
    fitted = snapshot.traffic_prob[:, : lenders.column_score.size]
    estimate = predictor.column_score_[column] + lenders.deviations(fitted) @ like.mix
    return np.asarray(np.clip(estimate, 0.0, 1.0))


def _proportions(usd: Floats, mean_usd: Floats, fitted: Bools) -> Floats:
    """What every query of recent traffic costs, in units of the mean query, (n_traffic,)."""
    paid = np.flatnonzero(fitted & (mean_usd > 0.0))
    if not paid.size:
        return np.ones(len(usd))
    return np.asarray((usd[:, paid] / mean_usd[paid]).mean(axis=1))


def _widened(optimism: Optimism, column: int, fitted: Bools, n_labels: int) -> Optimism:
    """A newcomer borrows the others' mean optimism; a score's variance is at most 1/4."""
    gap = optimism.gap[:, fitted].mean(axis=1)
    variance = 0.25 / (n_labels + OPTIMISM_STRENGTH)
    return Optimism(
        optimism.price,
        placed(optimism.gap, column, gap),
        placed(optimism.variance, column, variance),
    )


def _means(usd: Floats) -> Floats:
    """Every column's mean, (n_columns,), NaN without any value."""
    known = ~np.isnan(usd)
    n = known.sum(axis=0)
    return np.where(n > 0, np.where(known, usd, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)
