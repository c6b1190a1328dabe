"""Estimates: who can be asked, at what cost, in the order of the candidates of now."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from optllm_router.core.estimates import UNKNOWN_WORST, Estimator, estimate
from optllm_router.core.features import hash_text
from optllm_router.records import Candidate, Capabilities, Query, TokenPrice


def hashed(queries):
    return [hash_text(query.text) for query in queries]


def a_price(rate_in, rate_out):
    return TokenPrice(input_per_1m=Decimal(rate_in), output_per_1m=Decimal(rate_out))


def test_estimates_fit_queries_and_candidates(snapshot, queries, candidates):
    found = estimate(snapshot, queries, hashed(queries), candidates)

    assert 40 == found.n_queries
    assert ("small", "large", "table") == found.columns
    for name in ("prob", "std", "cost_usd", "worst_nusd", "able", "allowed"):
        assert (40, 3) == getattr(found, name).shape
    assert found.allowed.all()
    assert (np.ceil(found.cost_usd * 1e9 - 1e-3) <= found.worst_nusd).all()


def test_nothing_learned_still_knows_costs_and_abilities(queries, candidates):
    found = estimate(None, queries, hashed(queries), candidates)

    assert np.isnan(found.prob).all()
    assert not found.allowed.any()
    assert found.able.all()
    assert np.isfinite(found.cost_usd[:, :2]).all()
    assert np.isnan(found.cost_usd[:, 2]).all()


def test_columns_follow_the_candidates_wherever_they_stood_in_the_fit(
    snapshot, queries, candidates
):
    newcomer = Candidate(name="new", model="p/new", price=a_price("1", "2"))
    before = estimate(snapshot, queries, hashed(queries), candidates)
    now = estimate(snapshot, queries, hashed(queries), (newcomer, candidates[2], candidates[0]))

    assert ("new", "table", "small") == now.columns
    assert np.array_equal(before.prob[:, [2, 0]], now.prob[:, 1:])
    assert np.array_equal(before.std[:, [2, 0]], now.std[:, 1:])
    assert np.array_equal(before.cost_usd[:, 2], now.cost_usd[:, 1])
    assert np.isnan(now.prob[:, 0]).all()
    assert np.isfinite(now.cost_usd[:, 0]).all()
    assert not now.allowed[:, 0].any()
    assert now.allowed[:, 1:].all()


def test_no_queries_or_no_candidates_give_empty_arrays(snapshot, queries, candidates):
    for state in (None, snapshot):
        assert (0, 3) == estimate(state, [], [], candidates).worst_nusd.shape
        assert (0, 3) == estimate(state, [], [], candidates).prob.shape
        nobody = estimate(state, queries, hashed(queries), ())
        assert (40, 0) == nobody.prob.shape == nobody.cost_usd.shape == nobody.allowed.shape


def test_a_candidate_that_cannot_is_named_with_its_reason(snapshot, queries, candidates):
    short = replace(candidates[0], capabilities=Capabilities(context_window=10))
    found = estimate(snapshot, queries, hashed(queries), (short, *candidates[1:]))

    assert not found.able[:, 0].any()
    assert not found.allowed[:, 0].any()
    assert {"small": "the prompt has about 30 tokens, its window is 10"} == found.reasons[0]


def test_an_unknown_price_has_no_worst_case_and_no_plan(snapshot, queries):
    unknown = Candidate(name="small", model="p/small", price=None)
    found = estimate(snapshot, queries[:1], hashed(queries[:1]), (unknown,))

    assert UNKNOWN_WORST == found.worst_nusd[0, 0]
    assert not found.allowed[0, 0]


def test_huge_tokens_do_not_overflow(snapshot, candidates):
    huge = Query(text="x", n_prompt_tokens=10**18, max_output_tokens=10**18)
    dear = replace(candidates[0], price=a_price("1000", "1000"))
    found = estimate(snapshot, [huge], hashed([huge]), (dear,))

    assert [[UNKNOWN_WORST]] == found.worst_nusd.tolist()
    assert np.isfinite(found.cost_usd).all()


def test_a_free_candidate_costs_nothing(snapshot, queries, candidates):
    free = replace(candidates[0], price=a_price("0", "0"))
    found = estimate(snapshot, queries, hashed(queries), (free,))

    assert not found.cost_usd.any()
    assert not found.worst_nusd.any()
    assert found.allowed.all()


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("limit", [1, 20, 100_000, None])
@pytest.mark.parametrize("n_choices", [0, 1, 5])
def test_forecast_output_stays_within_the_limit_of_every_choice(
    snapshot, candidates, learned, limit, n_choices
):
    query = Query(text="x", n_prompt_tokens=50, max_output_tokens=limit, n_choices=n_choices)
    found = estimate(snapshot if learned else None, [query], hashed([query]), candidates[:1])
    one = Query(text="x", n_prompt_tokens=50)
    alone = estimate(snapshot if learned else None, [one], hashed([one]), candidates[:1])
    prompt_usd = 50 * 0.1e-6
    each = (alone.cost_usd[0, 0] - prompt_usd) / 0.4e-6
    expected = prompt_usd + min(each, limit or np.inf) * max(n_choices, 1) * 0.4e-6

    assert expected == pytest.approx(found.cost_usd[0, 0])
    assert found.cost_usd[0, 0] * 1e9 <= found.worst_nusd[0, 0]


def test_a_candidates_own_limit_holds_per_choice(snapshot, candidates):
    terse = replace(candidates[0], max_output_tokens=10)
    query = Query(text="x", n_prompt_tokens=50, n_choices=3)
    found = estimate(snapshot, [query], hashed([query]), (terse,))

    assert 50 * 0.1e-6 + 30 * 0.4e-6 == pytest.approx(found.cost_usd[0, 0])


def test_a_bill_is_never_forecast_above_its_worst_case(snapshot, candidates):
    long = Query(text="x", n_prompt_tokens=10**9)
    found = estimate(snapshot, [long], hashed([long]), candidates[2:])

    assert 0.04 == found.cost_usd[0, 0]


def test_rows_are_the_queries_asked_for(snapshot, queries, candidates):
    found = estimate(snapshot, queries, hashed(queries), candidates)
    some = found.rows(np.array([7, 2]))

    assert 2 == some.n_queries
    assert np.array_equal(found.prob[[7, 2]], some.prob)
    assert np.array_equal(found.worst_nusd[[7, 2]], some.worst_nusd)
    assert (found.reasons[7], found.reasons[2]) == some.reasons


@pytest.fixture
def spread_out(snapshot):
    """The snapshot, with amounts that are spread evenly from 0 to twice what is forecast."""
    ratio = np.column_stack([[0.0, 1.0, 2.0]] * 3)
    return replace(
        snapshot,
        output_tokens=replace(snapshot.output_tokens, ratio=ratio),
        cost_usd=replace(snapshot.cost_usd, ratio=ratio),
    )


def test_a_costs_quantile_is_that_of_the_output_beside_the_counted_prompt(
    spread_out, queries, candidates
):
    estimator = Estimator(spread_out, candidates)
    mean = estimator.estimate(queries, hashed(queries)).cost_usd
    prompt = np.outer([query.n_prompt_tokens for query in queries], [0.1e-6, 2.5e-6, 0.0])

    assert mean == pytest.approx(estimator.cost_quantile(queries, 0.5))
    assert prompt == pytest.approx(estimator.cost_quantile(queries, 0.0))
    quarter = prompt + 0.25 * 2 * (mean - prompt)
    assert quarter == pytest.approx(estimator.cost_quantile(queries, 0.25))


def test_a_costs_quantile_stays_within_limits_of_output_and_bill(spread_out, candidates):
    query = Query(text="x", n_prompt_tokens=50, max_output_tokens=120, n_choices=3)
    (small, large, table) = Estimator(spread_out, candidates).cost_quantile([query], 1.0)[0]

    assert 50 * 0.1e-6 + 3 * 120 * 0.4e-6 == pytest.approx(small)
    assert 50 * 2.5e-6 + 3 * 120 * 10e-6 == pytest.approx(large)
    long = Query(text="x", n_prompt_tokens=10**9)
    assert 0.04 == Estimator(spread_out, candidates[2:]).cost_quantile([long], 0.5)[0, 0]
    assert table < 0.04


def test_the_costs_of_what_was_never_observed_have_no_quantile(snapshot, queries, candidates):
    newcomer = Candidate(name="new", model="p/new", price=a_price("1", "2"))
    found = Estimator(snapshot, (newcomer, candidates[1])).cost_quantile(queries, 0.9)

    assert np.isnan(found[:, 0]).all()
    assert np.isfinite(found[:, 1]).all()
    assert np.isnan(Estimator(None, candidates).cost_quantile(queries, 0.9)).all()
