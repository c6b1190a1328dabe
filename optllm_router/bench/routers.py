"""The routers and baselines of an evaluation, by name.

All get the same split, the same features and the same cost forecast; they differ in what they make
of them. OptLLM, MetaLLM and the evolutionary baselines have modules of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from optllm_router.bench.kernel_ridge import KernelRidge
from optllm_router.bench.problem import Split
from optllm_router.bench.routing import (
    Routed,
    Terms,
    forecast_costs,
    routed_by,
    task_indicators,
    text_components,
    with_tasks,
)
from optllm_router.bench.walks import FrontWalk, MixWalk, hull_mix
from optllm_router.core.estimates import Estimator
from optllm_router.core.fitting import fit_snapshot
from optllm_router.core.front import pareto_front
from optllm_router.core.planning import aligned_optimism
from optllm_router.core.snapshot import TrainingSet
from optllm_router.core.success import TASK_SCALE, SuccessPredictor
from optllm_router.records import Candidate, Floats, Ints, Query

N_NEIGHBOURS = (5, 10, 20, 40, 80)
N_COMPONENTS = 100
N_KERNEL_COMPONENTS = 600  # up to so many distinct texts all that there are: the kernel is exact
N_MIXED = 201
ROWS_AT_ONCE = 2_000  # whose similarities to all labelled queries are in memory


def ours(split: Split, terms: Terms) -> Routed:
    """Route as `Router` does with its defaults: fit a snapshot, estimate, plan."""
    return _with_contrast(split, terms, None)


def unshrunk(split: Split, terms: Terms) -> Routed:
    """Route as ours with all of the columns' estimated differences on a query."""
    return _with_contrast(split, terms, 1.0)


def alike(split: Split, terms: Terms) -> Routed:
    """Route as ours with none of the columns' differences but their means: by costs alone."""
    return _with_contrast(split, terms, 0.0)


def _with_contrast(split: Split, terms: Terms, contrast: float | None) -> Routed:
    """Ours, with the contrast that it chose (None) or another one for all texts."""
    candidates = [Candidate(name=n, model=n, price=None) for n in split.labelled.candidates]
    snapshot = fit_snapshot(training_set(split), candidates, version="evaluate", seed=split.seed)
    predictor = snapshot.predictor
    if contrast is not None and isinstance(predictor, SuccessPredictor):
        predictor.set_contrast(contrast, met=contrast)
    test = split.test
    queries = [
        Query(text="", task=task, n_prompt_tokens=round(tokens))
        for task, tokens in zip(test.tasks, test.prompt_tokens.tolist(), strict=True)
    ]
    estimator = Estimator(snapshot, candidates)
    estimates = estimator.estimate(queries, test.features, spread=False)
    cost = test.cost_usd if terms.oracle_costs else estimates.cost_usd
    return routed_by(
        estimates.prob,
        cost,
        test.candidates,
        optimism=aligned_optimism(snapshot, estimates),
    )


def training_set(split: Split) -> TrainingSet:
    """Return the labelled part as the answers of a log, billed by a table."""
    seen = split.labelled
    return TrainingSet(
        columns=seen.candidates,
        texts=seen.features,
        tasks=seen.tasks,
        groups=seen.texts,
        shapes=seen.shapes,
        prompt_tokens=seen.prompt_tokens,
        scores=seen.scores,
        output_tokens=np.full(seen.scores.shape, np.nan),
        cost_usd=seen.cost_usd,
    )


def knn(split: Split, terms: Terms) -> Routed:
    """Average the scores of the k most similar labelled queries, k by leave-one-out.

    Two queries are as similar as the cosine of their text's components, and 0.49 more where they
    are of the same named task: the indicator stands beside the unit text vector with the weight
    that it has in our own design (`TASK_SCALE`, 0.7, of which 0.49 is the square).
    """
    seen, asked = _placed(split)
    scores = split.labelled.scores
    sizes = [k for k in N_NEIGHBOURS if k < len(seen)] or [1]
    error = loo_errors(seen, scores, split.labelled.group, sizes)
    k = sizes[int(np.argmin(error))]
    nearest = (found[:, :k] for found in nearest_blocks(asked, seen, [k]))
    prob = np.concatenate([scores[rows].mean(axis=1) for rows in nearest])
    routed = routed_by(prob, forecast_costs(split, terms), split.test.candidates)
    return replace(routed, note=f"k = {k}")


def ridge(split: Split, terms: Terms) -> Routed:
    """Predict by kernel ridge on hashed n-grams and task, one fit per component of the scores.

    Two queries are as similar as the product of their texts' weighted n-grams, 1 for equal texts,
    and 0.49 more where they are of the same named task. Every penalty is chosen by leave-one-out,
    equal texts left out together; see `KernelRidge`. Beyond `N_KERNEL_COMPONENTS` distinct texts
    the n-grams are taken by their leading components.
    """
    seen, asked = (
        np.hstack([text, TASK_SCALE * task])
        for text, task in zip(
            text_components(split, N_KERNEL_COMPONENTS), task_indicators(split), strict=True
        )
    )
    fitted = KernelRidge.fit(seen, split.labelled.scores, split.labelled.group)
    routed = routed_by(fitted.predict(asked), forecast_costs(split, terms), split.test.candidates)
    n_kept = int(np.isfinite(fitted.penalties).sum())
    return replace(routed, note=f"{n_kept} of {fitted.penalties.size} components of the scores")


def forest(split: Split, terms: Terms) -> Routed:
    """Predict by RandomForest(200 trees, depth 10) on text and task, then the exact front.

    The text is 100 components, the task its indicator; the intercept is what is left to grow a tree
    on where there is neither.
    """
    from sklearn.ensemble import RandomForestRegressor

    seen, asked = with_tasks(split, N_COMPONENTS)
    model = RandomForestRegressor(200, max_depth=10, random_state=split.seed, n_jobs=2)
    model.fit(seen, split.labelled.scores).set_params(n_jobs=1)
    prob = model.predict(asked)  # by one thread: with more, their timing orders the sum over trees
    return routed_by(prob, forecast_costs(split, terms), split.test.candidates)


def zero(split: Split, terms: Terms) -> Routed:
    """Mix the single candidates on the hull of their labelled means (RouterBench's zero-router)."""
    score, cost = split.labelled.scores.mean(axis=0), _mean_costs(split, terms)
    walk = hull_mix(score, cost, split.test.n_queries)
    return Routed(walk=walk, forecast_score=walk.shares @ score)


def random_mix(split: Split, terms: Terms) -> Routed:
    """Send a random share of the queries to the labelled best candidate, the rest to the cheapest.

    Between the two, in steps of half a per cent.
    """
    score, cost = split.labelled.scores.mean(axis=0), _mean_costs(split, terms)
    cheapest, best = int(cost.argmin()), int(np.lexsort((cost, -score))[0])
    share = np.linspace(0.0, 1.0, N_MIXED)
    shares = np.zeros((N_MIXED, cost.size))
    shares[:, cheapest] += 1.0 - share
    shares[:, best] += share
    per_query = cost[cheapest] + share * (cost[best] - cost[cheapest])  # ascends, rounded or not
    return Routed(
        walk=MixWalk(shares, per_query * split.test.n_queries), forecast_score=shares @ score
    )


def oracle(split: Split, _terms: Terms) -> Routed:
    """Know every test answer's score and cost: the exact front of the truth, out of reach."""
    front = pareto_front(split.test.scores, split.test.cost_usd)
    return Routed(walk=FrontWalk(front), forecast_score=front.accuracy)


def _mean_costs(split: Split, terms: Terms) -> Floats:
    known = split.test if terms.oracle_costs else split.labelled
    return np.asarray(known.cost_usd.mean(axis=0))


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0))


def _placed(split: Split) -> tuple[Floats, Floats]:
    """Unit text vector and scaled task indicators of both parts, whose products are similarities.

    Shapes (n_labelled, n_features) and (n_test, n_features).
    """
    seen, asked = (
        np.hstack([_unit(text), TASK_SCALE * task])
        for text, task in zip(
            text_components(split, N_COMPONENTS), task_indicators(split), strict=True
        )
    )
    return seen, asked


def loo_errors(points: Floats, scores: Floats, group: Ints, sizes: Sequence[int]) -> list[float]:
    """Return the mean squared error of every number of neighbours, each point left out in turn.

    With a point all of its group is left out: a repeated text would be its own best neighbour.

    Args:
        points: (n, n_features); a product of two rows is their similarity.
        scores: (n, n_candidates).
        group: (n,), equal for equal texts.
        sizes: numbers of neighbours, each below n.
    """
    squares, start = np.zeros(len(sizes)), 0
    for nearest in nearest_blocks(points, points, sizes, group=group):
        true = scores[start : start + len(nearest)]
        squares += [((scores[nearest[:, :k]].mean(axis=1) - true) ** 2).sum() for k in sizes]
        start += len(nearest)
    return [float(one) for one in squares / scores.size]


def nearest_blocks(
    asked: Floats, seen: Floats, sizes: Sequence[int], *, group: Ints | None = None
) -> Iterator[Ints]:
    """Yield the rows of `seen` that are most similar to each of `asked`, in blocks of `asked`.

    A block is (at most `ROWS_AT_ONCE`, max(sizes)); its first k columns are the k nearest for every
    k of `sizes`, in no order. Where `asked` is `seen`, rows of the same `group` come last.
    """
    for start in range(0, len(asked), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        distance = -asked[rows] @ seen.T
        if group is not None:
            distance[group[rows, None] == group] = np.inf
        order = np.argpartition(distance, [k - 1 for k in sizes], axis=1)
        yield order[:, : max(sizes)]
