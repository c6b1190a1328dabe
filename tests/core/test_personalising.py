"""The share of the columns' differences that decisions are worth: noise, signal, and end to end."""

from decimal import Decimal

import numpy as np
import pytest

from optllm_router.core import personalising as module
from optllm_router.core.estimates import estimate
from optllm_router.core.evaluation import best_single, budget_area
from optllm_router.core.evaluation.curve import Curve
from optllm_router.core.features import hash_text
from optllm_router.core.fitting import fit_snapshot
from optllm_router.core.front import pareto_front
from optllm_router.core.personalising import MIN_JUDGED, N_RESAMPLES, SHARES, Judged
from optllm_router.core.planning import plan_batch
from optllm_router.core.policy import Budget, MostAccurate
from optllm_router.core.snapshot import TrainingSet
from optllm_router.core.success import SuccessPredictor
from optllm_router.core.success.personal import (
    Personal,
    column_scores,
    contrast_slope,
    scores_elsewhere,
)
from optllm_router.records import Candidate, Query, TokenPrice

LEVEL = np.array([0.55, 0.6, 0.65])
USD = np.array([1.0, 3.0, 9.0])


def world(seed, n, *, noise=0.0, signal=0.0):
    """Chances, estimates of them, and costs: the columns differ on a query by `signal`."""
    rng = np.random.default_rng(seed)
    chance = np.clip(LEVEL + signal * rng.normal(size=(n, 3)), 0.0, 1.0)
    return chance, chance + noise * rng.normal(size=(n, 3)), USD * rng.uniform(0.5, 1.5, (n, 1))


def judged(estimates, scores, cost_usd, text=None):
    return Judged(
        estimates=estimates,
        elsewhere=scores_elsewhere(estimates, scores, np.arange(len(scores)) % 8),
        scores=scores,
        forecast_usd=cost_usd,
        cost_usd=cost_usd,
        text=np.arange(len(scores)) if text is None else np.asarray(text),
    )


def learned(seed, n, **terms):
    """A world's labels, judged: column scores, least-squares share, and the share to keep."""
    chance, estimates, cost = world(seed, n, **terms)
    scores = (np.random.default_rng(seed + 500).random((n, 3)) < chance).astype(np.float64)
    level = column_scores(estimates, scores)
    slope = contrast_slope(estimates, scores, level)
    return level, slope, module.chosen_contrast(judged(estimates, scores, cost), level, slope, 0)


def area(estimates, chance, cost):
    """What the front of some estimates buys over all budgets."""
    front = pareto_front(np.clip(estimates, 0.0, 1.0), cost)
    curve = Curve(
        forecast_usd=front.cost_usd,
        cost_usd=front.totals_of(cost),
        score=front.totals_of(chance) / len(cost),
    )
    best = best_single(chance, cost).cost_usd
    return budget_area(curve, cheapest_usd=float(cost.sum(axis=0).min()), best_cost_usd=best)


def fresh_areas(seed, level, contrasts, **terms):
    chance, estimates, cost = world(seed, 1_000, **terms)
    new = np.zeros((len(cost), 1), dtype=np.bool_)
    return [area(Personal(level, each).of(estimates, new), chance, cost) for each in contrasts]


def test_little_is_kept_of_pure_noise_and_it_costs_next_to_nothing():
    kept, areas = [], []
    for seed in range(10):
        level, _, contrast = learned(seed, 300, noise=0.2)
        kept.append(contrast)
        areas.append(fresh_areas(seed + 900, level, (contrast, 0.0, 1.0), noise=0.2))
    chosen, none, all_ = np.mean(areas, axis=0)

    assert np.mean(kept) < 0.35
    assert max(kept) < 0.6
    assert chosen > none - 0.008
    assert chosen > all_ + 0.002


def test_most_is_kept_of_what_is_true_and_it_pays():
    kept, areas = [], []
    for seed in range(5):
        level, slope, contrast = learned(seed, 200, signal=0.25)
        kept.append((slope, contrast))
        areas.append(fresh_areas(seed + 900, level, (contrast, 0.0, 1.0), signal=0.25))
    chosen, none, all_ = np.mean(areas, axis=0)

    assert np.min(kept) > 0.75
    assert chosen > none + 0.1
    assert chosen > all_ - 0.003


def test_a_half_true_signal_is_kept_in_part():
    kept = [learned(seed, 300, noise=0.2, signal=0.15)[2] for seed in range(5)]

    assert 0.35 < np.mean(kept) < 0.75


def test_the_share_is_one_and_the_same_for_a_seed():
    chance, estimates, cost = world(1, 60, noise=0.1, signal=0.1)
    scores = np.round(chance)
    level = column_scores(estimates, scores)
    first, again, other = (
        module.chosen_contrast(judged(estimates, scores, cost), level, 0.5, seed)
        for seed in (7, 7, 8)
    )

    assert first == again
    assert first != other


def test_the_order_of_columns_does_not_matter():
    chance, estimates, cost = world(1, 60, noise=0.1, signal=0.2)
    scores = np.round(chance)
    level = column_scores(estimates, scores)
    order = [2, 0, 1]
    one = module.chosen_contrast(judged(estimates, scores, cost), level, 0.5, 0)
    other = module.chosen_contrast(
        judged(estimates[:, order], scores[:, order], cost[:, order]), level[order], 0.5, 0
    )

    assert one == pytest.approx(other, rel=1e-6)


def slope_alone(estimates, scores, cost, text=None):
    """Whether the least-squares share is all that comes back."""
    level = column_scores(estimates, scores)
    found = module.chosen_contrast(judged(estimates, scores, cost, text), level, 0.321, 0)
    return found == 0.321


@pytest.fixture
def signalled():
    chance, estimates, cost = world(2, 40, signal=0.3)
    return estimates, np.round(chance), cost


def test_enough_texts_with_costs_are_judged(signalled):
    assert not slope_alone(*signalled)


@pytest.mark.parametrize("n", [0, 1, MIN_JUDGED - 1])
def test_few_queries_leave_the_slope_alone(signalled, n):
    few = judged(*signalled).rows(np.arange(n))

    assert 0.321 == module.chosen_contrast(few, LEVEL, 0.321, 0)


def test_many_rows_of_few_texts_leave_the_slope_alone(signalled):
    assert slope_alone(*signalled, text=np.arange(40) % (MIN_JUDGED - 1))
    assert not slope_alone(*signalled, text=np.arange(40) % MIN_JUDGED)


def test_without_a_cost_the_slope_stands_alone(signalled):
    estimates, scores, cost = signalled

    assert slope_alone(estimates, scores, np.zeros_like(cost))


def test_with_a_free_column_the_slope_stands_alone(signalled):
    estimates, scores, cost = signalled

    assert slope_alone(estimates, scores, cost * [0.0, 1.0, 1.0])


def test_one_column_leaves_the_slope_alone(signalled):
    assert slope_alone(*(each[:, :1] for each in signalled))


def test_resamples_count_even_where_the_cheapest_column_is_the_best():
    # totals of the same costs, added up in another order, differ in their last bits
    chance, estimates, cost = world(3, 50, signal=0.1)
    scores = np.column_stack([np.ones(50), np.round(chance[:, 1:])])
    part = judged(estimates, scores, cost / 7.0)
    rng = np.random.default_rng(0)
    found = list(module._resampled_values(part, [np.clip(estimates, 0, 1)], np.arange(50), rng))

    assert N_RESAMPLES == len(found)


@pytest.mark.parametrize("slope", [0.2, 0.5, 0.8])
def test_where_all_shares_are_worth_the_same_the_slope_stands(slope):
    found = module._weighed(np.full((5, len(SHARES)), 0.4), slope)

    assert slope == pytest.approx(found, abs=0.06)


@pytest.mark.parametrize("best", range(len(SHARES)))
def test_a_share_that_is_clearly_worth_more_is_taken(best):
    values = np.full((5, len(SHARES)), 0.4) + np.random.default_rng(0).normal(0, 1e-4, (5, 6))
    values[:, best] += 0.05

    assert SHARES[best] == pytest.approx(module._weighed(values, 0.5), abs=0.02)


def test_of_too_many_queries_some_judge_evenly_spread(monkeypatch):
    chance, estimates, cost = world(4, 90, signal=0.2)
    scores = np.round(chance)
    whole = judged(estimates, scores, cost)
    level = column_scores(estimates, scores)
    rows = np.linspace(0, 89, 30).astype(np.int64)
    expected = module.chosen_contrast(whole.rows(rows), level, 0.5, 0)
    monkeypatch.setattr(module, "MAX_JUDGED", 30)

    assert expected == module.chosen_contrast(whole, level, 0.5, 0)


def test_repeats_of_a_text_are_drawn_together():
    chance, estimates, cost = world(5, 20, signal=0.2)
    twice = np.repeat(np.arange(20), 2)
    scores = np.round(chance)
    once = judged(estimates, scores, cost)
    level = column_scores(estimates, scores)

    assert module.chosen_contrast(once, level, 0.5, 0) == pytest.approx(
        module.chosen_contrast(replaced(once.rows(twice), twice), level, 0.5, 0), abs=0.02
    )


def replaced(rows, text):
    return Judged(**{**{f: getattr(rows, f) for f in rows.__dataclass_fields__}, "text": text})


CHANCE = np.array([0.5, 0.72, 0.65])
WORDS = ("amber", "bread", "cloud", "dance", "eagle", "flute", "grape", "house", "igloo", "jelly")


def alike_columns(seed, n=60):
    """Texts of words at random, and labels of columns of which one is better on every text."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, 7)) for _ in range(n)]
    scores = (rng.random((n, 3)) < CHANCE).astype(np.float64)
    return texts, scores


PRICES = {"small": (1, 4), "large": (4, 16), "other": (3, 12)}


def candidates():
    return tuple(
        Candidate(
            name=name,
            model=f"p/{name}",
            price=TokenPrice(input_per_1m=Decimal(rate), output_per_1m=Decimal(out)),
        )
        for name, (rate, out) in PRICES.items()
    )


def fitted(texts, scores, seed=0):
    n = len(texts)
    training = TrainingSet(
        columns=("small", "large", "other"),
        texts=[hash_text(text) for text in texts],
        tasks=[""] * n,
        groups=texts,
        shapes=np.zeros((n, 5)),
        prompt_tokens=np.full(n, 50.0),
        scores=scores,
        output_tokens=np.full((n, 3), 100.0),
        cost_usd=np.full((n, 3), np.nan),
    )
    return fit_snapshot(training, candidates(), version="v", n_bootstraps=10, seed=seed)


def planned(snapshot, texts, policy):
    queries = [Query(text=text, task="", n_prompt_tokens=50) for text in texts]
    known = estimate(snapshot, queries, [hash_text(text) for text in texts], candidates())
    return plan_batch(known, policy, None)


@pytest.fixture(scope="module")
def unpersonal():
    """Snapshots of labels that say nothing of how the columns differ on a text, and new texts."""
    found = []
    for seed in range(12):
        texts, scores = alike_columns(seed)
        best = int(scores.mean(axis=0).argmax())
        found.append((fitted(texts, scores), best, alike_columns(seed + 1_000)[0]))
    return found


def mean_shortfall(unpersonal, policy_of, score_of):
    """By how much plans of new texts score less than single columns, on average."""
    return np.mean(
        [
            score_of(best)
            - CHANCE[planned(snapshot, texts, policy_of(best, len(texts))).choice].mean()
            for snapshot, best, texts in unpersonal
        ]
    )


def test_where_columns_differ_alike_a_plan_is_as_good_as_the_best_single_column(unpersonal):
    assert np.mean([snapshot.predictor.contrast for snapshot, _, _ in unpersonal]) < 0.45
    assert 0.008 > mean_shortfall(
        unpersonal, lambda best, n: MostAccurate(), lambda best: CHANCE[best]
    )


def test_where_columns_differ_alike_half_the_money_buys_half_the_way(unpersonal):
    usd = [(50 * rate + 100 * out) / 1e6 for rate, out in PRICES.values()]

    assert 0.002 > mean_shortfall(
        unpersonal,
        lambda best, n: Budget(usd=n * (usd[0] + usd[best]) / 2),
        lambda best: (CHANCE[0] + CHANCE[best]) / 2,
    )


def test_a_snapshot_keeps_the_share_that_its_queries_are_worth(unpersonal):
    for snapshot, _, _ in unpersonal[:3]:
        predictor = snapshot.predictor
        slope = predictor._personal.common_slope
        personal = Personal(predictor.column_score_, predictor.contrast, common_slope=slope)
        left_out = predictor.left_out_
        shrunk = personal.of_left_out(left_out.prob, left_out.column_score)

        assert 1.0 != slope
        assert personal.prob(shrunk, left_out.prob).tolist() == predictor.oob_.prob.tolist()
        assert predictor.oob_.prob.tolist() == snapshot.traffic_prob.tolist()


def test_a_column_without_labels_does_not_keep_the_others_from_being_judged():
    texts, scores = alike_columns(3)
    scores[:, 2] = np.nan
    snapshot = fitted(texts, scores)
    slope = SuccessPredictor(10).fit(texts, scores).contrast

    assert slope != snapshot.predictor.contrast
    assert np.isnan(snapshot.predictor.column_score_).tolist() == [False, False, True]


def test_labels_of_single_columns_only_leave_the_slope_alone():
    texts, scores = alike_columns(3)
    scores[np.arange(len(scores))[:, None] % 3 != np.arange(3)] = np.nan
    snapshot = fitted(texts, scores)

    assert SuccessPredictor(10).fit(texts, scores).contrast == snapshot.predictor.contrast
