"""The routers and baselines of an evaluation, by name.

All get the same split, the same features and the same cost forecast; they differ in what they make
of them. OptLLM, MetaLLM and the evolutionary baselines have modules of their own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from optllm_router.bench.problem import Split
from optllm_router.bench.routing import (
    Routed,
    Terms,
    forecast_costs,
    routed_by,
    text_components,
)
from optllm_router.bench.walks import FrontWalk, MixWalk, hull_mix
from optllm_router.core.estimates import Estimator
from optllm_router.core.fitting import fit_snapshot
from optllm_router.core.front import pareto_front
from optllm_router.core.planning import aligned_optimism
from optllm_router.core.snapshot import TrainingSet
from optllm_router.records import Candidate, Floats, Query

N_NEIGHBOURS = (5, 10, 20, 40, 80)
N_COMPONENTS = 100
N_MIXED = 201


def ours(split: Split, terms: Terms) -> Routed:
    """Route as `Router` does with its defaults: fit a snapshot, estimate, plan."""
    candidates = [Candidate(name=n, model=n, price=None) for n in split.labelled.candidates]
    snapshot = fit_snapshot(training_set(split), candidates, version="evaluate", seed=split.seed)
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
    """Average the scores of the k most similar labelled texts (cosine), k by leave-one-out."""
    seen, asked = (_unit(part) for part in text_components(split, N_COMPONENTS))
    scores = split.labelled.scores
    similar = seen @ seen.T
    same = split.labelled.group[:, None] == split.labelled.group
    similar[same] = -np.inf  # a repeated text would be its own best neighbour
    sizes = [k for k in N_NEIGHBOURS if k < len(seen)] or [1]
    error = [((_nearest_mean(similar, scores, k) - scores) ** 2).mean() for k in sizes]
    k = sizes[int(np.argmin(error))]
    prob = _nearest_mean(asked @ seen.T, scores, k)
    routed = routed_by(prob, forecast_costs(split, terms), split.test.candidates)
    return replace(routed, note=f"k = {k}")


def forest(split: Split, terms: Terms) -> Routed:
    """Predict by RandomForest(200 trees, depth 10) on 100 components, then the exact front."""
    from sklearn.ensemble import RandomForestRegressor

    seen, asked = text_components(split, N_COMPONENTS)
    if not seen.shape[1]:  # texts without a word: nothing to grow a tree on
        seen, asked = np.zeros((len(seen), 1)), np.zeros((len(asked), 1))
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


def _nearest_mean(similarity: Floats, scores: Floats, k: int) -> Floats:
    """The mean score of each row's k most similar columns, (n_rows, n_candidates)."""
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    return np.asarray(scores[nearest].mean(axis=1))
