"""Routers and baselines: none sees what a test query will score or cost, and each does its rule."""

import functools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from optllm_router.bench import papers, routers
from optllm_router.bench.kernel_ridge import KernelRidge
from optllm_router.bench.names import ABLATIONS, FAST_ROUTERS, ROUTER_NAMES, SLOW_ROUTERS
from optllm_router.bench.papers import GRID, optllm, regimes_table
from optllm_router.bench.problem import Split, split
from optllm_router.bench.routers import (
    N_COMPONENTS,
    N_KERNEL_COMPONENTS,
    knn,
    loo_errors,
    nearest_blocks,
    oracle,
    ours,
    random_mix,
    ridge,
    training_set,
)
from optllm_router.bench.routing import (
    Terms,
    forecast_costs,
    given_estimates,
    nearest_feasible,
    planned,
    task_indicators,
    text_components,
    with_tasks,
)
from optllm_router.bench.study import ROUTERS
from optllm_router.bench.walks import FrontWalk
from optllm_router.core.amounts import AmountForecast
from optllm_router.core.forest import ForestPredictor
from optllm_router.core.front import pareto_front
from optllm_router.core.policy import Budget, Cheapest, MostAccurate, TargetAccuracy
from optllm_router.core.search import destroy_repair, reach_accuracy, spend_budget

TERMS = Terms(n_bootstraps=2)
TOLD = Terms(n_bootstraps=2, oracle_costs=True)
HONEST = tuple(name for name in ROUTER_NAMES if name != "oracle")
PROBE = np.random.default_rng(5).normal(size=(30, 3))  # tells allocations of 30 queries apart


@pytest.fixture(scope="module")
def part(made):
    return split(made(60, n_texts=45), "random", 30, 1)


@pytest.fixture(scope="module")
def routed_by_name(part):
    """Each router on the split, run once for all tests."""
    return functools.cache(lambda name: ROUTERS[name](part, TERMS))


def seen_of(routed):
    """Everything that a router decided or expected, as plain numbers."""
    found = [routed.walk.forecast_usd, routed.walk.totals(PROBE)]
    found += [routed.forecast_score, routed.prob, routed.cost_usd]
    if routed.plan is not None:
        found += [routed.plan(policy) for policy in (Budget(0.3), TargetAccuracy(0.6))]
    return [None if one is None else one.tolist() for one in found]


def test_there_is_a_router_of_every_name_that_the_command_line_knows():
    assert ROUTER_NAMES == tuple(ROUTERS)
    assert set(ROUTER_NAMES) == {*FAST_ROUTERS, *SLOW_ROUTERS, *ABLATIONS}


@pytest.mark.parametrize("name", HONEST)
def test_no_router_sees_what_test_queries_score_or_cost(part, routed_by_name, blind, name):
    """Which also says that a seed gives the same walk, bit for bit."""
    assert seen_of(routed_by_name(name)) == seen_of(ROUTERS[name](blind(part), TERMS))


@pytest.mark.parametrize("name", [name for name in HONEST if name not in SLOW_ROUTERS])
def test_with_oracle_costs_a_router_sees_test_costs_and_still_no_test_scores(part, blind, name):
    told = seen_of(ROUTERS[name](part, TOLD))

    assert told == seen_of(ROUTERS[name](blind(part, costs=False), TOLD))
    assert told != seen_of(ROUTERS[name](blind(part, scores=False), TOLD))


def test_the_oracle_does_see_both(part, blind):
    known = oracle(part, TERMS)

    assert known.walk.totals(part.test.cost_usd) == pytest.approx(known.walk.forecast_usd)
    assert 30 * known.forecast_score == pytest.approx(known.walk.totals(part.test.scores))
    assert seen_of(known) != seen_of(oracle(blind(part), TERMS))


@pytest.mark.parametrize("name", [name for name in FAST_ROUTERS if name != "oracle"])
def test_no_point_of_a_router_is_above_the_line_through_the_oracle_s(part, routed_by_name, name):
    truth, walk = routed_by_name("oracle").walk, routed_by_name(name).walk

    cost, score = walk.totals(part.test.cost_usd), walk.totals(part.test.scores)

    bound = np.interp(cost, truth.forecast_usd, truth.totals(part.test.scores))
    assert (score <= bound + 1e-9).all()


@pytest.mark.parametrize("name", HONEST)
def test_walks_go_from_cheap_to_dear(routed_by_name, name):
    assert (np.diff(routed_by_name(name).walk.forecast_usd) >= 0.0).all()


@pytest.mark.parametrize("name", HONEST)
def test_what_a_walk_expects_is_what_its_estimates_add_up_to(routed_by_name, name):
    routed = routed_by_name(name)

    if routed.prob is None:
        return
    assert ((routed.prob >= 0.0) & (routed.prob <= 1.0)).all()
    assert routed.walk.totals(routed.cost_usd) == pytest.approx(routed.walk.forecast_usd)
    assert routed.walk.totals(routed.prob) / 30 == pytest.approx(routed.forecast_score, abs=1e-9)


def test_costs_are_forecast_from_the_labelled_part_by_length_and_task(part):
    seen, test = part.labelled, part.test
    forecast = AmountForecast.fit(seen.cost_usd, seen.prompt_tokens, seen.tasks)

    expected = forecast.predict(test.prompt_tokens, test.tasks)
    assert expected.tolist() == forecast_costs(part, TERMS).tolist()
    assert test.cost_usd.tolist() == forecast_costs(part, TOLD).tolist()


def test_ours_estimates_as_the_router_would_and_keeps_its_own_cost_forecast(part):
    routed, told = ours(part, TERMS), ours(part, TOLD)

    assert routed.prob is not None
    assert told.prob is not None
    assert routed.prob.tolist() == told.prob.tolist()
    assert part.test.cost_usd.tolist() == told.cost_usd.tolist()
    hard = np.array([text.startswith("prove") for text in part.test.texts])
    assert routed.prob[~hard, 0].mean() > routed.prob[hard, 0].mean() + 0.1


def test_the_training_set_is_the_labelled_part(part):
    training, seen = training_set(part), part.labelled

    assert seen.texts == training.groups
    assert seen.scores.tolist() == training.scores.tolist()
    assert seen.cost_usd.tolist() == training.cost_usd.tolist()
    assert np.isnan(training.output_tokens).all()


def similarity(part):
    """What two queries have in common, text by text: (n_test, n_labelled)."""
    seen, asked = text_components(part, N_COMPONENTS)
    return np.array(
        [
            [
                row @ one / np.linalg.norm(row) / np.linalg.norm(one) + 0.49 * (task == other != "")
                for one, other in zip(seen, part.labelled.tasks, strict=True)
            ]
            for row, task in zip(asked, part.test.tasks, strict=True)
        ]
    )


def test_knn_averages_the_scores_of_the_k_most_similar_queries(part):
    routed = knn(part, TERMS)
    k = int(routed.note.removeprefix("k = "))

    n_checked = 0
    for i, similar in enumerate(similarity(part)):
        least, more = np.sort(similar)[-k], np.sort(similar)[-k - 1]
        if least - more < 1e-9:
            continue  # a tie: which text stands k-th is open
        expected = part.labelled.scores[similar >= least].mean(axis=0)
        assert expected == pytest.approx(routed.prob[i])
        n_checked += 1
    assert n_checked > 10


def test_ridge_predicts_from_the_n_grams_and_the_tasks_of_the_labelled_part(part):
    routed = ridge(part, TERMS)

    seen, asked = (
        np.hstack([text, 0.7 * task])
        for text, task in zip(text_components(part, 600), task_indicators(part), strict=True)
    )
    fitted = KernelRidge.fit(seen, part.labelled.scores, part.labelled.group)
    assert np.clip(fitted.predict(asked), 0.0, 1.0) == pytest.approx(routed.prob)
    assert f"{np.isfinite(fitted.penalties).sum()} of 3 components of the scores" == routed.note
    assert np.isfinite(fitted.penalties).any()


def test_ridge_learns_which_texts_are_hard(made):
    part = split(made(300), "random", 200, 0)

    prob = ridge(part, TERMS).prob

    hard = np.array([text.startswith("prove") for text in part.test.texts])
    assert prob[~hard, 0].mean() > prob[hard, 0].mean() + 0.4


def test_ridge_s_kernel_is_that_of_all_n_grams_where_texts_are_few(part):
    """Of labelled texts nothing is left over: each is as similar to itself as can be."""
    seen, _ = text_components(part, N_KERNEL_COMPONENTS)

    assert np.ones(len(seen)) == pytest.approx((seen**2).sum(axis=1), abs=1e-3)


@pytest.mark.parametrize("name", ["knn", "forest", "ridge"])
def test_where_only_the_task_tells_what_is_hard_it_is_learnt(made, name):
    """All texts are alike; a router of texts alone would expect the same of every query."""
    hard = np.random.default_rng(0).random(120) < 0.5
    problem = made(
        120,
        2,
        texts=["the same text"] * 120,
        features=made(1).features * 120,
        group=np.arange(120),
        tasks=["hard" if one else "easy" for one in hard],
        scores=np.column_stack([~hard, np.ones(120)]).astype(float),
    )
    part = split(problem, "random", 60, 0)

    found = ROUTERS[name](part, TERMS).prob[:, 0]

    expected = [float(task == "easy") for task in part.test.tasks]
    assert found == pytest.approx(expected, abs=0.01 if name == "ridge" else 1e-6)


def test_neighbours_are_the_same_in_blocks_as_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    points, group, scores = rng.normal(size=(40, 6)), rng.integers(30, size=40), rng.random((40, 2))
    sizes = [3, 5, 10]
    at_once = loo_errors(points, scores, group, sizes)

    monkeypatch.setattr(routers, "ROWS_AT_ONCE", 7)

    assert at_once == pytest.approx(loo_errors(points, scores, group, sizes))
    similar = np.where(group[:, None] == group, -np.inf, points @ points.T)
    for k, error in zip(sizes, at_once, strict=True):
        nearest = np.argsort(-similar, axis=1)[:, :k]
        assert ((scores[nearest].mean(axis=1) - scores) ** 2).mean() == pytest.approx(error)


def test_neighbours_need_memory_for_a_block_of_rows_and_not_for_all(monkeypatch):
    monkeypatch.setattr(routers, "ROWS_AT_ONCE", 50)
    points = np.random.default_rng(0).normal(size=(2_000, 3))
    tracemalloc.start()
    try:
        loo_errors(points, points, np.arange(2_000), [5, 80])
        for _ in nearest_blocks(points, points, [5]):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2_000 * 2_000 * 8 / 4


def test_knn_works_in_blocks(part, monkeypatch):
    whole = knn(part, TERMS)

    monkeypatch.setattr(routers, "ROWS_AT_ONCE", 7)

    assert whole.prob == pytest.approx(knn(part, TERMS).prob)


def test_knn_does_not_count_a_repeated_text_as_its_own_neighbour(made):
    """Equal texts agree, other texts tell nothing: with them the least k would look perfect."""
    of_text = np.random.default_rng(3).integers(2, size=(30, 3)).astype(float)
    problem = made(180, n_texts=30, scores=np.tile(of_text, (6, 1)))

    routed = knn(split(problem, "random", 170, 0), TERMS)

    assert "k = 5" != routed.note


PLAIN, BOLD = TERMS, Terms(n_bootstraps=5, alpha=3.0, as_released=True)


@pytest.fixture
def few_trees(monkeypatch):
    monkeypatch.setattr(papers, "N_TREES", 3)


def optllm_by_hand(part, terms):
    """The published predictor's mean and spread with 3 trees per forest, and the costs."""
    seen = part.labelled
    predictor = ForestPredictor(
        terms.n_bootstraps, seed=part.seed, n_trees=3, as_released=terms.as_released
    ).fit_features(seen.features, seen.scores, groups=seen.texts)
    estimate = predictor.predict_features(part.test.features)
    return estimate.prob, estimate.std, forecast_costs(part, terms)


@pytest.mark.parametrize("terms", [PLAIN, BOLD])
def test_optllm_spends_a_budget_and_reaches_a_target_by_its_single_objective_mode(
    few_trees, part, terms
):
    prob, std, cost = optllm_by_hand(part, terms)
    low, high = cost.min(axis=1).sum(), cost[np.arange(30), prob.argmax(axis=1)].sum()
    budgets = np.linspace(low, high, 22)[1:-1].tolist()

    plan = optllm(part, terms).plan

    served = [plan(Budget(usd)).tolist() for usd in budgets]
    by_alpha = {
        alpha: [
            spend_budget(prob, cost, usd, robust_prob=prob + alpha * std).tolist()
            for usd in budgets
        ]
        for alpha in (0.5, 3.0)
    }
    assert by_alpha[terms.alpha] == served
    assert by_alpha[0.5] != by_alpha[3.0]
    front = pareto_front(prob, cost)
    for target in (0.5, 0.6, 0.7):
        needed = float(front.accuracy[front.accuracy >= target][0])
        reached = plan(TargetAccuracy(target)).tolist()
        assert reach_accuracy(prob, cost, needed).tolist() == reached


@pytest.mark.parametrize("terms", [PLAIN, BOLD])
def test_optllm_s_walk_is_searched_on_its_terms(few_trees, part, terms):
    prob, std, cost = optllm_by_hand(part, terms)

    routed = optllm(part, terms)

    robust = prob + terms.alpha * std
    found, otherwise = (
        destroy_repair(prob, cost, robust_prob=robust, grid=GRID, as_released=as_released)
        for as_released in (terms.as_released, not terms.as_released)
    )
    assert prob.tolist() == routed.prob.tolist()
    assert found.cost_usd == pytest.approx(routed.walk.forecast_usd)
    assert found.accuracy.tolist() == routed.forecast_score.tolist()
    assert found.accuracy.tolist() != otherwise.accuracy.tolist()


def test_optllm_s_members_are_weighed_on_its_terms(few_trees, part):
    published, released = (
        optllm(part, Terms(n_bootstraps=5, as_released=as_released)).prob.tolist()
        for as_released in (False, True)
    )

    assert published != released


def test_optllm_s_note_names_its_terms(routed_by_name, part, monkeypatch):
    routed = routed_by_name("optllm")
    n_points = routed.walk.forecast_usd.size
    expected = (
        "text only, as published; 2 bootstraps of 100 trees (the paper: 100), alpha 0.5, GN 50, "
    )
    assert f"{expected}{n_points} points" == routed.note

    monkeypatch.setattr(papers, "N_TREES", 3)
    released = optllm(part, BOLD)
    assert "text only, with the released code's defects; 5 bootstraps" in released.note
    assert "alpha 3, " in released.note


def test_the_zero_router_walks_the_hull_of_labelled_means(part):
    walk = ROUTERS["zero"](part, TERMS).walk

    cost, score = part.labelled.cost_usd.mean(axis=0), part.labelled.scores.mean(axis=0)
    ends = walk.totals(np.tile(np.arange(3.0), (30, 1)))[[0, -1]] / 30
    assert [cost.argmin(), score.argmax()] == ends.tolist()
    assert 30 * cost.min() == pytest.approx(walk.forecast_usd[0])


def test_the_random_mix_goes_from_the_cheapest_to_the_best_in_even_steps(part):
    walk = random_mix(part, TERMS).walk

    cost, score = part.labelled.cost_usd.mean(axis=0), part.labelled.scores.mean(axis=0)
    sent_to_best = walk.totals(np.tile(np.eye(3)[score.argmax()], (30, 1))) / 30
    assert 0 == cost.argmin() != score.argmax()
    assert np.linspace(0.0, 1.0, 201) == pytest.approx(sent_to_best)
    assert 30 * cost[score.argmax()] == pytest.approx(walk.forecast_usd[-1])


@pytest.mark.parametrize("usd", [0.1, 1 / 3, 0.7, 1e-5])
@pytest.mark.parametrize("name", ["random", "zero"])
def test_equally_dear_candidates_are_walked_in_order(made, name, usd):
    problem = made(60, 3, cost_usd=np.full((60, 3), usd))

    walk = ROUTERS[name](split(problem, "random", 30, 0), TERMS).walk

    assert (np.diff(walk.forecast_usd) >= 0.0).all()


def test_components_and_tasks_come_from_the_labelled_part(part, made):
    seen, asked = with_tasks(part, 10)

    tasks = sorted({task for task in part.labelled.tasks if task})
    assert (30, 30) == (len(seen), len(asked))
    assert [1.0] * 30 == seen[:, 0].tolist()
    for i, task in enumerate(part.test.tasks):
        assert [float(task == name) for name in tasks] == asked[i, -len(tasks) :].tolist()
    other = made(60, seed=8, texts=[f"nothing alike {i}" for i in range(60)])
    unlike = Split(seed=1, labelled=part.labelled, test=other)
    assert seen.tolist() == with_tasks(unlike, 10)[0].tolist()


def test_a_target_out_of_reach_becomes_the_nearest_and_a_budget_the_least():
    prob, cost = np.array([[0.2, 0.6], [0.1, 0.4]]), np.array([[1.0, 2.0], [1.0, 2.0]])
    estimates = given_estimates(prob, cost, ("small", "large"))

    assert [1, 1] == planned(estimates, TargetAccuracy(0.9), None).tolist()
    assert [0, 0] == planned(estimates, Budget(0.5), None).tolist()
    assert [1, 0] == planned(estimates, Budget(3.5), None).tolist()


def test_where_nothing_is_expected_to_succeed_a_target_takes_the_most_accurate():
    estimates = given_estimates(np.zeros((2, 2)), np.array([[1.0, 2.0]] * 2), ("small", "large"))

    assert [0, 0] == planned(estimates, TargetAccuracy(0.9), None).tolist()
    assert MostAccurate() == nearest_feasible(TargetAccuracy(0.9), -0.1)
    with pytest.raises(TypeError, match="always feasible"):
        nearest_feasible(Cheapest(), 0.5)


def test_the_forest_bears_texts_without_a_word(made):
    wordless = made(40, texts=["?!"] * 40, features=made(1, texts=["?!"]).features * 40)
    wordless = made(40, features=[type(f)(f.indices[:0], f.values[:0]) for f in wordless.features])
    wordless = replace(wordless, tasks=[""] * 40)

    routed = ROUTERS["forest"](split(wordless, "random", 20, 0), TERMS)

    assert routed.prob is not None
    assert np.ptp(routed.prob, axis=0) == pytest.approx(0.0)
    front = pareto_front(routed.prob, routed.cost_usd)
    assert isinstance(routed.walk, FrontWalk)
    assert front.cost_usd.tolist() == routed.walk.forecast_usd.tolist()


def test_metallm_s_regimes_run_at_the_budgets_of_single_candidates(part):
    table = regimes_table(part)

    cost, score = part.test.cost_usd.mean(axis=0), part.test.scores.mean(axis=0)
    priced = dict.fromkeys(int(j) for j in (cost.argmin(), cost.argsort()[1], score.argmax()))
    expected = [f"{part.test.candidates[j]}'s" for j in priced for _ in range(4)]
    assert expected == [row[0] for row in table.rows]
    exploring = "online_untrained, alpha 0.5, lambda 1"
    regimes = ["offline", "online", "online_untrained", exploring]
    assert regimes == [row[1] for row in table.rows[:4]]
    assert "alpha 0, lambda 12.94" in table.note
    assert f"{30 * cost.min():.4g}" == table.rows[0][2]
    assert all(len(row) == len(table.header) for row in table.rows)
    assert "n = 30 test queries" in table.title


def test_a_free_candidate_gives_metallm_no_budget(made):
    cost = np.tile([0.0, 1.0, 2.0], (60, 1))

    table = regimes_table(split(made(60, cost_usd=cost), "random", 30, 0))

    assert "a's" not in {row[0] for row in table.rows}
    assert table.rows
