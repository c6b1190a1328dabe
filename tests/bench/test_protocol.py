"""The protocol's figures against a slow restatement of its words, on small random problems."""

import math
from dataclasses import replace

import numpy as np
import pytest

from optllm_router.bench import realised
from optllm_router.bench.figures import FIGURES, HEADLINE, RESAMPLED
from optllm_router.bench.policies import N_AMOUNTS, asked_of, policy_figures
from optllm_router.bench.problem import Split, split
from optllm_router.bench.protocol import run
from optllm_router.bench.realised import MAX_RESAMPLED_POINTS, every, judged
from optllm_router.bench.routing import Routed, Terms, routed_by
from optllm_router.bench.walks import FrontWalk, MixWalk, choices_walk
from optllm_router.core.evaluation import best_single, bootstrap_weights, ece
from optllm_router.core.front import pareto_front

TERMS = Terms()
JUST = 1 + 1e-12  # sums in another order differ in their last bits


class Literal:
    """The figures of one walk in plain loops; a query that counts twice stands twice in `rows`."""

    def __init__(self, choices, cells, test):
        self.choices, self.cells = choices, cells.tolist()
        self.score, self.cost = test.scores.tolist(), test.cost_usd.tolist()

    def point(self, k, rows):
        choice = self.choices[k]
        return (
            math.fsum(self.cost[i][choice[i]] for i in rows),
            math.fsum(self.score[i][choice[i]] for i in rows) / len(rows),
        )

    def single(self, j, rows):
        return (
            math.fsum(self.cost[i][j] for i in rows),
            math.fsum(self.score[i][j] for i in rows) / len(rows),
        )

    def best(self, rows):
        """The column of the highest mean score, of equals the cheaper."""
        all_of = [self.single(j, rows) for j in range(len(self.score[0]))]
        top = max(score for _, score in all_of)
        return min(
            (j for j, (_, score) in enumerate(all_of) if score >= top - 1e-12),
            key=lambda j: all_of[j][0],
        )

    def cheapest_reaching(self, score, rows):
        points = [self.point(k, rows) for k in range(len(self.choices))]
        reaching = [k for k, (_, got) in enumerate(points) if got >= score - 1e-12]
        return min(reaching, key=lambda k: points[k][0]) if reaching else None

    def saving_at_best(self, rows):
        cost, score = self.single(self.best(rows), rows)
        k = self.cheapest_reaching(score, rows)
        return 0.0 if k is None else 1 - self.point(k, rows)[0] / cost

    def crossfit(self, rows, half):
        best, ways = self.best(rows), []
        for side in (0, 1):
            picking = [i for i in rows if half[i] == side]
            reporting = [i for i in rows if half[i] != side]
            k = self.cheapest_reaching(self.single(best, picking)[1] - 0.005, picking)
            cost, score = self.single(best, reporting)
            got = (cost, score) if k is None else self.point(k, reporting)
            ways.append((1 - got[0] / cost, score - got[1]))
        return tuple(sum(two) / 2 for two in zip(*ways, strict=True))

    def budgets(self, rows):
        low = min(self.single(j, rows)[0] for j in range(len(self.score[0])))
        high = self.single(self.best(rows), rows)[0]
        return [low * (high / low) ** (step / 39) for step in range(40)]

    def budget_area(self, rows):
        points = sorted(self.point(k, rows) for k in range(len(self.choices)))
        total = 0.0
        for budget in self.budgets(rows):
            within = [score for cost, score in points if cost <= budget * JUST]
            cost, score = points[0]
            total += within[-1] if within else score * budget / cost
        return total / 40

    def overspend(self, rows):
        """Forecasts are of the queries that a resample counts, like costs and budgets."""
        forecast = [math.fsum(self.cells[i][c[i]] for i in rows) for c in self.choices]
        total = 0.0
        for budget in self.budgets(rows):
            within = [k for k, usd in enumerate(forecast) if usd <= budget * JUST]
            realised = self.point(within[-1] if within else 0, rows)[0]
            share = 1.0 if within else budget / forecast[0]
            total += max(0.0, realised * share / budget - 1)
        return total / 40

    def figures(self, rows, half):
        saving, shortfall = self.crossfit(rows, half)
        return {
            "saving_crossfit": saving,
            "shortfall_crossfit": shortfall,
            "saving_at_best": self.saving_at_best(rows),
            "max_accuracy": max(self.point(k, rows)[1] for k in range(len(self.choices))),
            "budget_area": self.budget_area(rows),
            "overspend": self.overspend(rows),
        }


def guessed(test, seed):
    """Estimates that know a little of the truth."""
    rng = np.random.default_rng([seed, 1])
    prob = np.clip(0.5 * test.scores + 0.5 * rng.random(test.scores.shape), 0.0, 1.0)
    return prob, test.cost_usd * rng.uniform(0.6, 1.5, test.cost_usd.shape)


def guessing(part: Split, _terms: Terms) -> Routed:
    return routed_by(*guessed(part.test, part.seed), part.test.candidates)


def literal_of(part):
    prob, cost = guessed(part.test, part.seed)
    front = pareto_front(prob, cost)
    choices = [front.choice(k).tolist() for k in range(front.n_points)]
    return Literal(choices, cost, part.test)


def weights_of(problem, n_resamples=0, seed=0):
    rng = np.random.default_rng(seed)
    return bootstrap_weights(range(problem.n_texts), n_resamples, rng)


def ran(part, *, build=guessing, weights=None, n_texts=500, terms=TERMS):
    weights = np.ones((0, n_texts), dtype=np.int64) if weights is None else weights
    return run("some", build, part, terms, judged(part, weights))


@pytest.mark.parametrize("seed", range(12))
def test_every_headline_figure_is_what_its_words_say(made, seed):
    part = split(made(50, 2 + seed % 3, n_texts=35, seed=seed), "random", 20, seed)

    found = ran(part)

    half = judged(part, np.ones((0, 50), dtype=np.int64)).half
    expected = literal_of(part).figures(range(30), half.tolist())
    assert set(HEADLINE) == set(expected)
    assert expected == pytest.approx({name: found.figures[name] for name in HEADLINE}, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_a_resample_counts_every_query_as_often_as_its_text_was_drawn(made, seed):
    problem = made(40, 3, n_texts=30, seed=seed)
    part = split(problem, "random", 10, seed)
    by = judged(part, weights_of(problem, 5, seed))

    found = run("some", guessing, part, TERMS, by)

    literal = literal_of(part)
    for b, weights in enumerate(by.weights):
        rows = [i for i, weight in enumerate(weights.tolist()) for _ in range(weight)]
        expected = literal.figures(rows, by.half.tolist())
        got = {name: float(found.resampled[name][b]) for name in HEADLINE}
        assert expected == pytest.approx(got, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_resample_of_every_text_once_reproduces_the_figures(made, seed):
    part = split(made(60, seed=seed), "random", 20, seed)

    found = ran(part, weights=np.ones((2, 60), dtype=np.int64))

    for name in RESAMPLED:
        assert [found.figures[name]] * 2 == pytest.approx(found.resampled[name], abs=1e-12)


def test_texts_are_resampled_whole_and_alike_for_all_routers_and_seeds(made):
    problem = made(60, n_texts=20)
    weights = weights_of(problem, 7)

    for seed in (0, 1):
        part = split(problem, "random", 20, seed)
        by = judged(part, weights)
        drawn = {text: weights[:, g] for text, g in zip(problem.texts, problem.group, strict=True)}
        assert (7, 40) == by.weights.shape
        for i, text in enumerate(part.test.texts):
            assert drawn[text].tolist() == by.weights[:, i].tolist()
        first, second = (run(name, guessing, part, TERMS, by) for name in ("one", "other"))
        for name in HEADLINE:
            assert first.resampled[name].tolist() == second.resampled[name].tolist()


def test_a_resample_without_any_test_text_leaves_its_figures_undefined(made):
    part, weights = split(made(60), "random", 20, 0), np.ones((3, 60), dtype=np.int64)
    weights[1, part.test.group] = 0

    found = ran(part, weights=weights).resampled

    assert set(RESAMPLED) == set(found)
    for values in found.values():
        assert [False, True, False] == np.isnan(values).tolist()


def test_a_text_stands_on_one_side_only_and_the_sides_are_equally_large(made):
    part = split(made(90, n_texts=31), "random", 20, 5)

    half = judged(part, np.ones((0, 90), dtype=np.int64)).half

    side = dict(zip(part.test.texts, half.tolist(), strict=True))
    assert [side[text] for text in part.test.texts] == half.tolist()
    assert {15, 16} == {list(side.values()).count(0), list(side.values()).count(1)}


def test_the_halves_depend_on_the_seed_only(made):
    parts = [split(made(60), "time", 20, seed) for seed in (0, 0, 1)]

    first, again, other = (judged(p, np.ones((0, 60), int)).half.tolist() for p in parts)

    assert first == again
    assert first != other


def two_candidates_that_change_places(made):
    """On each half another candidate is the better one; over all it is the second, by far dearer.

    Four texts: the first candidate is right on the first two, the second on the others and on one
    of the first two.
    """
    part = split(made(8, 2), "time", 4, 0)
    scores = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    test = replace(part.test, scores=scores, cost_usd=np.tile([1.0, 10.0], (4, 1)))
    by = judged(part, np.ones((0, 8), int))
    return replace(part, test=test), replace(by, test=test, half=np.array([0, 0, 1, 1]))


def test_both_halves_are_compared_with_the_best_candidate_of_the_whole(made):
    part, by = two_candidates_that_change_places(made)

    def singles(split_: Split, _terms: Terms) -> Routed:
        return Routed(walk=choices_walk(np.array([[0] * 4, [1] * 4]), split_.test.cost_usd))

    found = run("some", singles, part, TERMS, by).figures

    # Picked on the first half: the cheap one, which saves 90 % and scores 0 where the best has 1.
    # Picked on the second: the dear one, which is the best.
    assert 0.45 == pytest.approx(found["saving_crossfit"])
    assert 0.5 == pytest.approx(found["shortfall_crossfit"])


def test_a_long_walk_is_thinned_but_keeps_both_ends():
    kept = every(2_500, 3)

    assert (0, 2_499) == (kept[0], kept[-1])
    assert len(kept) <= 2_500 / 3 + 2
    assert [0, 1, 2, 3] == every(4, 1).tolist()
    assert [0] == every(1, 1).tolist()


def test_a_thinned_walk_is_resampled_to_nearly_the_same_figures(made):
    part = split(made(1_500, 3, seed=1), "random", 50, 0)
    walk = guessing(part, TERMS).walk
    assert walk.forecast_usd.size > MAX_RESAMPLED_POINTS

    found = ran(part, weights=np.ones((1, 1_500), dtype=np.int64))

    for name in HEADLINE:
        assert found.figures[name] == pytest.approx(found.resampled[name][0], abs=2e-3)


def mixing(part: Split, _terms: Terms) -> Routed:
    """Three points: all cheap, a quarter dear, all dear; it expects scores of .3, .5 and .9."""
    shares = np.array([[1.0, 0.0], [0.75, 0.25], [0.0, 1.0]])
    per_query = shares @ part.labelled.cost_usd.mean(axis=0)
    return Routed(
        walk=MixWalk(shares, per_query * part.test.n_queries),
        forecast_score=np.array([0.3, 0.5, 0.9]),
    )


@pytest.mark.parametrize(("asked", "point"), [(0.2, 0), (0.5, 1), (0.75, 2), (1.0, 2)])
def test_a_target_takes_the_first_point_that_is_expected_to_reach_it(made, asked, point):
    part = split(made(60, 2), "time", 20, 0)
    seen = replace(part.labelled, scores=np.tile([0.1, asked], (20, 1)))

    figures = ran(replace(part, labelled=seen), build=mixing).figures

    test = part.test
    mean, cost = test.scores.mean(axis=0), test.cost_usd.sum(axis=0)
    share = [0.0, 0.25, 1.0][point]
    got = (1 - share) * mean[0] + share * mean[1]
    paid = (1 - share) * cost[0] + share * cost[1]
    best = int(mean.argmax())
    assert mean[best] - got == pytest.approx(figures["target_shortfall"])
    assert asked - got == pytest.approx(figures["target_missed"])
    assert 1 - paid / cost[best] == pytest.approx(figures["target_saving"])


def test_budgets_are_asked_for_in_five_amounts_and_overspent_by_what_is_realised(made):
    part = split(made(60, 2), "time", 20, 0)
    seen = replace(part.labelled, cost_usd=np.tile([1.0, 64.0], (20, 1)))
    seen = replace(seen, scores=np.tile([0.0, 1.0], (20, 1)))
    test = replace(part.test, cost_usd=np.tile([3.0, 64.0], (40, 1)))

    figures = ran(replace(part, labelled=seen, test=test), build=mixing).figures

    assert 5 == N_AMOUNTS
    # 2, 4, 8, 16 USD per query buy the cheap point, which costs 3; 32 the middle, forecast 16.75
    cheap, dear = test.scores.mean(axis=0)
    assert cheap + 0.25 * (dear - cheap) / 5 == pytest.approx(figures["budget_score"])
    assert (3 / 2 - 1) / 5 == pytest.approx(figures["budget_overspend"])


def knowing_costs(part: Split, _terms: Terms) -> Routed:
    return routed_by(guessed(part.test, 0)[0], part.test.cost_usd, part.test.candidates)


def all_knowing(part: Split, _terms: Terms) -> Routed:
    return Routed(walk=FrontWalk(pareto_front(part.test.scores, part.test.cost_usd)))


def test_a_budget_with_known_costs_is_never_overspent(made):
    part = split(made(60, 3), "random", 20, 0)

    figures = ran(part, build=knowing_costs).figures

    assert 0.0 == pytest.approx(figures["budget_overspend"], abs=1e-9)
    assert 0.0 == pytest.approx(figures["overspend"], abs=1e-9)


@pytest.mark.parametrize("build", [knowing_costs, all_knowing])
def test_known_costs_are_overspent_in_no_resample(made, build):
    problem = made(60, n_texts=40)
    part = split(problem, "random", 20, 0)

    found = ran(part, build=build, weights=weights_of(problem, 30), terms=Terms(oracle_costs=True))

    for name in ("overspend", "budget_overspend"):
        assert np.zeros(30) == pytest.approx(found.resampled[name], abs=1e-9)


@pytest.mark.parametrize("build", [guessing, mixing])
def test_resamples_are_the_same_in_blocks_as_at_once(made, monkeypatch, build):
    problem = made(60, 2, n_texts=40)
    part, weights = split(problem, "random", 20, 0), weights_of(problem, 7)
    at_once = ran(part, build=build, weights=weights).resampled

    monkeypatch.setattr(realised, "N_RESAMPLES_AT_ONCE", 3)

    found = ran(part, build=build, weights=weights).resampled
    assert list(at_once) == list(found)
    for name, values in at_once.items():
        assert values == pytest.approx(found[name], abs=1e-12)


@pytest.mark.parametrize("build", [guessing, mixing])
def test_a_resample_counts_the_choices_of_the_policies_anew(made, build):
    problem = made(60, 2, n_texts=40)
    part = split(problem, "random", 20, 0)
    by = judged(part, weights_of(problem, 6))

    found = run("some", build, part, TERMS, by)

    asked, best_cost = asked_of(build(part, TERMS), part), part.test.cost_usd
    for b, weights in enumerate(by.weights.tolist()):
        rows = [i for i, weight in enumerate(weights) for _ in range(weight)]
        mean, cost = part.test.scores[rows].mean(axis=0), best_cost[rows].sum(axis=0)
        best, target = int(mean.argmax()), asked.target
        score, paid = target.score[rows].mean(), target.cost_usd[rows].sum()
        budgets = [one.score[rows].mean() for one in asked.budgets]
        over = [
            one.cost_usd[rows].sum()
            / (one.asked * one.forecast_usd[rows].sum() / one.forecast_usd.sum())
            for one in asked.budgets
        ]
        expected = {
            "target_shortfall": mean[best] - score,
            "target_missed": target.asked - score,
            "target_saving": 1 - paid / cost[best],
            "budget_score": np.mean(budgets),
            "budget_overspend": np.mean([max(0.0, ratio - 1) for ratio in over]),
        }
        assert expected == pytest.approx({name: found.resampled[name][b] for name in expected})
    single = best_single(part.test.scores, part.test.cost_usd)
    everything = policy_figures(asked, single, np.ones(part.test.n_queries))
    assert everything == {name: found.figures[name] for name in everything}


def test_all_routers_are_averaged_over_the_candidates_range_of_cost(made):
    part = split(made(60, 2), "time", 20, 0)
    scores, cost = np.tile([0.4, 0.8], (40, 1)), np.tile([1.0, 5.0], (40, 1))
    part = replace(part, test=replace(part.test, scores=scores, cost_usd=cost))

    def dearest(split_: Split, _terms: Terms) -> Routed:
        return Routed(walk=choices_walk(np.ones((1, 40), np.int64), split_.test.cost_usd))

    # from .8 x 1 / 5 at 1 USD per query to .8 at 5
    assert 0.48 == pytest.approx(ran(part, build=dearest).figures["aiq"])


def test_calibration_and_cost_errors_are_of_the_estimates(made):
    part = split(made(60, 3), "random", 20, 0)
    prob, cost = guessed(part.test, 0)

    found = ran(part)

    test = part.test
    assert ((prob - test.scores) ** 2).mean() == pytest.approx(found.figures["brier"])
    total = np.abs(cost.sum(axis=0) / test.cost_usd.sum(axis=0) - 1)
    assert total.mean() == pytest.approx(found.figures["cost_error"])
    each = np.abs(cost - test.cost_usd).mean()
    assert each == pytest.approx(found.figures["cost_error_per_query"])
    assert test.candidates == tuple(one.candidate for one in found.reliability)
    for j, one in enumerate(found.reliability):
        assert test.n_queries == one.n.sum()
        assert prob[:, j].mean() == pytest.approx(one.prob @ one.n / one.n.sum())
        assert test.scores[:, j].mean() == pytest.approx(one.score @ one.n / one.n.sum())
    gaps = [one.n @ np.abs(one.prob - one.score) / one.n.sum() for one in found.reliability]
    assert np.mean(gaps) == pytest.approx(found.figures["ece"])
    assert gaps == pytest.approx([one.ece for one in found.reliability])
    brier = ((prob - test.scores) ** 2).mean(axis=0)
    assert brier == pytest.approx([one.brier for one in found.reliability])
    loss = np.mean([one.log_loss for one in found.reliability])
    assert loss == pytest.approx(found.figures["log_loss"])
    assert ece(prob, test.scores) == pytest.approx(found.figures["ece_pooled"])


def test_known_costs_are_no_forecast_to_judge(made):
    found = ran(split(made(60), "random", 20, 0), terms=Terms(oracle_costs=True))

    assert not {"cost_error", "cost_error_per_query"} & set(found.figures)


def test_a_router_without_estimates_has_no_calibration_and_no_forecast_to_judge(made):
    found = ran(split(made(60, 2), "random", 20, 0), build=mixing)

    absent = {"ece", "ece_pooled", "brier", "log_loss", "cost_error", "cost_error_per_query"}
    assert not absent & set(found.figures)
    assert set(FIGURES) == absent | set(found.figures)
    assert () == found.reliability


def test_the_truth_itself_lies_on_the_exact_front(made):
    part = split(made(60), "random", 20, 0)

    figures = ran(part, build=all_knowing).figures

    assert (0.0, 0.0) == pytest.approx((figures["igd"], figures["igd_plus"]), abs=1e-9)
    assert part.test.scores.max(axis=1).mean() == pytest.approx(figures["max_accuracy"])
    assert 1 - figures["saving_at_best"] == pytest.approx(figures["qnc"])
    guess = ran(part).figures
    assert guess["hypervolume"] <= figures["hypervolume"]
    assert guess["igd_plus"] > 0.0


def test_a_run_says_what_it_was(made):
    found = ran(split(made(60), "random", 20, 3))

    assert ("some", 20, 3, "") == (found.router, found.n_labelled, found.seed, found.note)
    assert 40 == found.n_test
    assert 0.0 < found.seconds
    assert found.drawn.cost_usd.shape == found.drawn.score.shape
    assert set(found.figures) <= set(FIGURES)
