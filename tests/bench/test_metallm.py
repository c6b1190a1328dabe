"""MetaLLM as published: its reward, its price, its regimes, against plain restatements."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.bench.metallm import (
    EXPLORING,
    PUBLISHED,
    Observations,
    Settings,
    price_grid,
    price_path,
    run_regime,
    tune_price,
)
from optllm_router.core.ridge import single_threaded

COST = np.array([4e-3, 1e-3, 2e-2])  # USD per call: the middle column is the cheapest


@pytest.fixture(autouse=True)
def one_thread():
    with single_threaded():
        yield


def some_queries(seed, n, m=3, d=4):
    """Scores that depend on the features, costs that scatter around each candidate's mean."""
    rng = np.random.default_rng(seed)
    taste = np.random.default_rng(99).normal(size=(d, m))
    features = np.hstack([np.ones((n, 1)), rng.normal(size=(n, d - 1))])
    scores = (features @ taste + rng.normal(size=(n, m)) > 0).astype(float)
    return Observations(
        features=features, scores=scores, cost_usd=COST[:m] * rng.uniform(0.5, 1.5, (n, m))
    )


def easy_and_hard(n):
    """Half the queries need the dear candidate, the feature tells which; cost 1 and 10."""
    hard = np.arange(n) % 2 == 1
    return Observations(
        features=np.column_stack([~hard, hard]).astype(float),
        scores=np.column_stack([~hard, np.ones(n)]).astype(float),
        cost_usd=np.tile([1.0, 10.0], (n, 1)),
    )


def without(queries, mask):
    return Observations(
        features=queries.features,
        scores=np.where(mask, np.nan, queries.scores),
        cost_usd=np.where(mask, np.nan, queries.cost_usd),
    )


def plain_offline(labelled, features, price, ridge):
    """One explicit ridge per arm on score - price * normalised mean cost, and the argmax."""
    charge = np.nanmean(labelled.cost_usd, axis=0)
    charge = price * charge / charge.max()
    columns = []
    for arm in range(charge.size):
        seen = ~np.isnan(labelled.scores[:, arm])
        rows = labelled.features[seen]
        gram = ridge * np.eye(rows.shape[1]) + rows.T @ rows
        moment = rows.T @ (labelled.scores[seen, arm] - charge[arm])
        columns.append(features @ np.linalg.solve(gram, moment))
    return np.stack(columns, axis=1)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3]))
def test_the_path_is_the_plain_router_at_every_price(seed, missing):
    labelled, test = some_queries(seed, 30), some_queries(seed + 1, 15)
    labelled = without(labelled, np.random.default_rng(seed).random((30, 3)) < missing)
    prices = np.array([0.0, 0.01, 0.3, 1.0, 7.0])
    path = price_path(labelled, test.features, prices, settings=Settings(ridge=2.5))

    assert (5, 15) == path.shape
    for price, choice in zip(prices, path, strict=True):
        values = plain_offline(labelled, test.features, price, 2.5)
        assert np.allclose(values.max(axis=1), values[np.arange(15), choice], rtol=0, atol=1e-10)


def test_a_price_buys_the_dear_candidate_where_it_gains_more_than_it_costs():
    queries = easy_and_hard(400)
    options = Settings(ridge=1e-9)
    # the dear candidate gains 1 on hard queries for 0.9 of its own cost, so its price is 1 / 0.9
    path = price_path(queries, np.eye(2), np.array([0.001, 1.1, 1.12]), settings=options)

    assert [[0, 1], [0, 1], [0, 0]] == path.tolist()


def test_an_infinite_price_chooses_the_least_mean_cost_throughout():
    labelled, test = some_queries(0, 30), some_queries(1, 10)
    path = price_path(labelled, test.features, np.array([math.inf]))

    assert [[1] * 10] == path.tolist()


def test_equal_predictions_go_to_the_cheaper_candidate():
    queries = easy_and_hard(8)
    same = Observations(
        features=queries.features, scores=np.ones((8, 2)), cost_usd=queries.cost_usd[:, ::-1]
    )

    assert [[1] * 8] == price_path(same, same.features, np.array([0.0])).tolist()


def test_exploration_enters_the_path_as_a_bonus_that_no_price_changes():
    labelled, test = some_queries(2, 40), some_queries(3, 12)
    sparse = without(labelled, np.arange(40)[:, None] >= np.array([40, 10, 3]))
    bonus = Settings(ridge=1.0, exploration=0.8)
    path = price_path(sparse, test.features, np.array([0.4]), settings=bonus)
    values = plain_offline(sparse, test.features, 0.4, 1.0)
    for arm, n in enumerate([40, 10, 3]):
        gram = np.eye(4) + labelled.features[:n].T @ labelled.features[:n]
        solved = np.linalg.solve(gram, test.features.T).T
        values[:, arm] += 0.8 * np.sqrt((test.features * solved).sum(axis=1))

    assert values.argmax(axis=1).tolist() == path[0].tolist()


def split_by_hand(labelled, seed):
    order = np.random.default_rng([seed, 0]).permutation(len(labelled.features))
    half = (len(order) + 1) // 2
    return labelled.take(order[:half]), labelled.take(order[half:])


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(1.05e-3, 2e-2))
def test_the_tuned_price_is_the_best_of_those_within_the_validation_budget(seed, budget):
    labelled = some_queries(seed, 40)
    options = Settings(ridge=1.0, seed=seed)
    fitted, held_out = split_by_hand(labelled, seed)
    tuned = tune_price(labelled, budget, settings=options)
    outcomes = []
    mean_cost = labelled.cost_usd.mean(axis=0)
    for price in price_grid():
        # the fixed costs are those of the whole labelled part, the ridges those of one half
        repriced = Observations(
            features=fitted.features,
            scores=fitted.scores,
            cost_usd=np.tile(mean_cost, (len(fitted.scores), 1)),
        )
        choice = plain_offline(repriced, held_out.features, price, 1.0).argmax(axis=1)
        rows = np.arange(choice.size)
        cost, score = held_out.cost_usd[rows, choice].mean(), held_out.scores[rows, choice].mean()
        if cost <= budget:
            outcomes.append((score, -cost))

    assert bool(outcomes) == tuned.feasible
    if outcomes:
        assert tuned.validation_cost_usd <= budget
        assert max(outcomes)[0] == pytest.approx(tuned.validation_score, abs=1e-12)
        assert -max(outcomes)[1] == pytest.approx(tuned.validation_cost_usd, rel=1e-12)


def test_a_budget_is_kept_to_the_last_digit():
    labelled = some_queries(4, 80)
    asked = tune_price(labelled, 1.0)
    exact = tune_price(labelled, asked.validation_cost_usd)
    below = tune_price(labelled, asked.validation_cost_usd * (1 - 1e-9))

    assert asked == exact
    assert below.feasible
    assert below.price > exact.price
    assert below.validation_cost_usd < exact.validation_cost_usd
    assert below.validation_score < exact.validation_score


@pytest.mark.parametrize("regime", ["offline", "online", "online_untrained"])
def test_a_budget_below_every_price_says_so_and_takes_the_cheapest(regime):
    labelled, test = some_queries(4, 40), some_queries(5, 20)
    tuned = tune_price(labelled, 1e-6)
    result = run_regime(labelled, test, budget_usd_per_query=1e-6, regime=regime)

    assert (False, math.inf) == (tuned.feasible, tuned.price)
    assert (False, math.inf) == (result.feasible, result.price)
    assert [1] * 20 == result.choice.tolist()
    assert result.cost_usd == pytest.approx(test.cost_usd[:, 1].sum(), rel=1e-12)
    assert result.overrun == pytest.approx(test.cost_usd[:, 1].mean() / 1e-6 - 1.0, rel=1e-12)


def test_offline_chooses_as_the_path_at_the_tuned_price():
    labelled, test = some_queries(6, 60), some_queries(7, 25)
    result = run_regime(labelled, test, budget_usd_per_query=6e-3, regime="offline")
    tuned = tune_price(labelled, 6e-3)
    path = price_path(labelled, test.features, np.array([tuned.price]))
    rows = np.arange(25)

    assert tuned.price == result.price
    assert path[0].tolist() == result.choice.tolist()
    assert result.cost_usd == pytest.approx(test.cost_usd[rows, path[0]].sum(), rel=1e-12)
    assert result.score == pytest.approx(test.scores[rows, path[0]].mean(), rel=1e-12)
    assert result.budget_usd == pytest.approx(25 * 6e-3, rel=1e-12)
    assert result.overrun == pytest.approx(
        max(0.0, result.cost_usd / result.budget_usd - 1.0), abs=1e-12
    )


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("discount", [1.0, 0.97])
def test_an_online_run_is_a_ridge_solved_anew_before_every_query(trained, discount):
    labelled, test = some_queries(8, 40), some_queries(9, 60)
    options = Settings(ridge=2.0, exploration=0.3, discount=discount, seed=5)
    regime = "online" if trained else "online_untrained"
    result = run_regime(labelled, test, budget_usd_per_query=8e-3, regime=regime, settings=options)
    charge = labelled.cost_usd.mean(axis=0)
    charge = result.price * charge / charge.max()
    grams, moments = np.array([2.0 * np.eye(4)] * 3), np.zeros((3, 4))
    if trained:
        grams += labelled.features.T @ labelled.features
        moments += (labelled.scores - charge).T @ labelled.features
    expected = np.zeros(60, dtype=int)
    for query in np.random.default_rng([5, 1]).permutation(60):
        x = test.features[query]
        theta = [np.linalg.solve(a, b) for a, b in zip(grams, moments, strict=True)]
        width = [np.sqrt(x @ np.linalg.solve(a, x)) for a in grams]
        arm = min(range(3), key=lambda j: (-round(x @ theta[j] + 0.3 * width[j], 12), charge[j]))
        reward = test.scores[query, arm] - charge[arm]
        grams[arm] = discount * grams[arm] + np.outer(x, x)
        moments[arm] = discount * moments[arm] + reward * x
        expected[query] = arm

    assert result.feasible
    assert len(set(expected.tolist())) > 1
    assert expected.tolist() == result.choice.tolist()


def test_a_cold_start_without_exploration_stays_with_the_first_arm_that_pays():
    queries = Observations(
        features=np.ones((300, 1)),
        scores=np.tile([0.95, 0.6], (300, 1)),
        cost_usd=np.tile([2.0, 1.0], (300, 1)),
    )
    options = Settings(prices=np.array([0.001]))
    runs = [
        run_regime(queries, queries, budget_usd_per_query=3.0, regime=regime, settings=options)
        for regime in ("offline", "online", "online_untrained")
    ]

    assert [0] * 300 == runs[0].choice.tolist() == runs[1].choice.tolist()
    assert [1] * 300 == runs[2].choice.tolist()
    assert (0.95, 0.6) == pytest.approx((runs[0].score, runs[2].score), rel=1e-12)


def test_the_exploring_settings_leave_the_first_arm_that_pays_and_settle_on_the_best():
    queries = Observations(
        features=np.ones((300, 1)),
        scores=np.tile([0.95, 0.3], (300, 1)),
        cost_usd=np.tile([2.0, 1.0], (300, 1)),
    )
    published, exploring = (
        run_regime(
            queries,
            queries,
            budget_usd_per_query=3.0,
            regime="online_untrained",
            settings=replace(options, prices=np.array([0.001])),
        )
        for options in (PUBLISHED, EXPLORING)
    )

    assert (0.5, 1.0) == (EXPLORING.exploration, EXPLORING.ridge)
    assert [1] * 300 == published.choice.tolist()
    assert 1 <= exploring.choice.sum() < 30


def test_scores_of_the_test_part_that_nobody_saw_teach_nothing_and_do_not_count():
    labelled, test = some_queries(10, 40), some_queries(11, 30)
    hidden = Observations(
        features=test.features, scores=np.full((30, 3), np.nan), cost_usd=test.cost_usd
    )
    known = run_regime(labelled, test, budget_usd_per_query=6e-3, regime="offline")
    blind = run_regime(labelled, hidden, budget_usd_per_query=6e-3, regime="online")

    assert known.choice.tolist() == blind.choice.tolist()
    assert known.cost_usd == blind.cost_usd
    assert math.isnan(blind.score)


def test_a_cost_that_nobody_saw_counts_as_the_candidates_mean():
    labelled, test = some_queries(12, 40), some_queries(13, 30)
    unpriced = Observations(
        features=test.features, scores=test.scores, cost_usd=np.full((30, 3), np.nan)
    )
    result = run_regime(labelled, unpriced, budget_usd_per_query=6e-3, regime="offline")
    mean_cost = labelled.cost_usd.mean(axis=0)

    assert result.cost_usd == pytest.approx(mean_cost[result.choice].sum(), rel=1e-12)


@pytest.mark.parametrize("regime", ["offline", "online", "online_untrained"])
def test_an_empty_test_part_costs_nothing_and_has_no_score(regime):
    labelled = some_queries(14, 20)
    empty = labelled.take(np.empty(0, dtype=np.int64))
    result = run_regime(labelled, empty, budget_usd_per_query=6e-3, regime=regime)

    assert (0,) == result.choice.shape
    assert (0.0, 0.0, 0.0) == (result.cost_usd, result.budget_usd, result.overrun)
    assert math.isnan(result.score)


def test_candidates_that_are_all_free_are_chosen_by_score_alone():
    queries = easy_and_hard(40)
    free = Observations(
        features=queries.features, scores=queries.scores, cost_usd=np.zeros((40, 2))
    )
    result = run_regime(free, free, budget_usd_per_query=1.0, regime="online")

    assert (1.0, 0.0) == (result.score, result.cost_usd)


@pytest.mark.parametrize("regime", ["offline", "online", "online_untrained"])
def test_the_same_seed_gives_the_same_run(regime):
    labelled, test = some_queries(15, 40), some_queries(16, 40)
    runs = [
        run_regime(labelled, test, budget_usd_per_query=6e-3, regime=regime).choice.tolist()
        for _ in range(2)
    ]

    assert runs[0] == runs[1]


def test_a_candidate_without_labels_is_refused_by_number():
    queries = some_queries(17, 20)
    with pytest.raises(ValueError, match="column 2 has no labelled score"):
        tune_price(without(queries, np.arange(3) == 2), 6e-3)


def test_wrong_arguments_are_named():
    queries = some_queries(18, 20)
    with pytest.raises(ValueError, match="`regime='offlien'` is unknown"):
        run_regime(queries, queries, budget_usd_per_query=1.0, regime="offlien")
    with pytest.raises(ValueError, match=r"`budget_usd_per_query=0.0` is not positive"):
        tune_price(queries, 0.0)
    with pytest.raises(ValueError, match="1 labelled queries cannot be halved"):
        tune_price(queries.take(np.array([3])), 1.0)


def test_tables_that_do_not_fit_are_refused():
    ones = np.ones((4, 2))
    with pytest.raises(ValueError, match="do not fit"):
        Observations(features=ones, scores=np.ones((5, 2)), cost_usd=np.ones((5, 2)))
    with pytest.raises(ValueError, match="do not fit"):
        Observations(features=ones, scores=ones, cost_usd=np.ones((4, 3)))
    with pytest.raises(ValueError, match="a cost negative"):
        Observations(features=ones, scores=ones, cost_usd=-ones)
