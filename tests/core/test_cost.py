"""Money: exact bills against fractions, worst cases that hold, forecasts that stay in bounds."""

from decimal import Decimal, localcontext
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optllm_router.core.cost import (
    PROMPT_MARGIN,
    PROMPT_MARGIN_TOKENS,
    Rates,
    cost_nusd,
    expected_usd,
    output_limit,
    usd_to_nusd,
    worst_case_nusd,
)
from optllm_router.records import Candidate, Capabilities, PriceTier, Query, TokenPrice, Usage

RATES = st.decimals(min_value=0, max_value=1_000, places=12) | st.decimals(
    min_value=0, max_value=1, places=40
)
MAYBE = st.none() | RATES
COUNTS = st.integers(0, 10**7)


@st.composite
def prices(draw):
    thresholds = draw(st.lists(st.integers(1, 10**6), unique=True, max_size=3))
    return TokenPrice(
        input_per_1m=draw(RATES),
        output_per_1m=draw(RATES),
        cached_input_per_1m=draw(MAYBE),
        cache_write_per_1m=draw(MAYBE),
        tiers=tuple(
            PriceTier(
                above_tokens=above,
                input_per_1m=draw(RATES),
                output_per_1m=draw(RATES),
                cached_input_per_1m=draw(MAYBE),
            )
            for above in thresholds
        ),
    )


@st.composite
def usages(draw):
    return Usage(
        prompt_tokens=draw(COUNTS),
        completion_tokens=draw(COUNTS),
        cached_tokens=draw(COUNTS),
        cache_write_tokens=draw(COUNTS),
    )


def billed_exactly(usage, price):
    """The same bill in fractions, straight from the rules in words."""
    met = [tier for tier in price.tiers if usage.prompt_tokens > tier.above_tokens]
    rates = max(met, key=lambda tier: tier.above_tokens) if met else price
    rate_in = Fraction(rates.input_per_1m)
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    written = min(usage.cache_write_tokens, usage.prompt_tokens - cached)
    reading, writing = rates.cached_input_per_1m, price.cache_write_per_1m
    total = (
        (usage.prompt_tokens - cached - written) * rate_in
        + cached * (rate_in if reading is None else Fraction(reading))
        + written * (rate_in if writing is None else Fraction(writing))
        + usage.completion_tokens * Fraction(rates.output_per_1m)
    )
    return ceil(total / 1_000_000 * 1_000_000_000)


def a_price(rate_in="1", rate_out="2", **others):
    return TokenPrice(input_per_1m=Decimal(rate_in), output_per_1m=Decimal(rate_out), **others)


def a_candidate(price=None, **others):
    return Candidate(name="a", model="a", price=price or a_price(), **others)


@given(usages(), prices())
def test_a_bill_is_the_ceiling_of_the_exact_sum(usage, price):
    assert billed_exactly(usage, price) == cost_nusd(usage, price)


def test_a_bill_does_not_depend_on_the_decimal_context():
    usage = Usage(prompt_tokens=123_457, completion_tokens=7_891)
    price = a_price("0.123456789", "9.87654321")
    with localcontext(prec=3):
        rounded_context = cost_nusd(usage, price)

    assert billed_exactly(usage, price) == rounded_context


def test_a_bill_of_no_tokens_or_no_price_is_nothing():
    assert 0 == cost_nusd(Usage(prompt_tokens=0, completion_tokens=0), a_price())
    assert 0 == cost_nusd(Usage(prompt_tokens=9, completion_tokens=9), a_price("0", "0"))


def test_the_smallest_price_costs_at_least_one_nano():
    assert 1 == cost_nusd(Usage(prompt_tokens=1, completion_tokens=0), a_price("1e-30", "0"))


def test_a_tier_applies_to_the_whole_call_above_its_threshold():
    tier = PriceTier(above_tokens=100, input_per_1m=Decimal(10), output_per_1m=Decimal(20))
    price = a_price(tiers=(tier,))

    at = Usage(prompt_tokens=100, completion_tokens=10)
    above = Usage(prompt_tokens=101, completion_tokens=10)
    assert (100 * 1 + 10 * 2) * 1_000 == cost_nusd(at, price)
    assert (101 * 10 + 10 * 20) * 1_000 == cost_nusd(above, price)


def test_cached_and_written_tokens_are_priced_apart():
    price = a_price(cached_input_per_1m=Decimal("0.1"), cache_write_per_1m=Decimal("1.25"))
    usage = Usage(prompt_tokens=100, completion_tokens=0, cached_tokens=40, cache_write_tokens=20)

    assert 40_000 + 40 * 100 + 20 * 1_250 == cost_nusd(usage, price)


@given(prices(), st.integers(0, 10**6), st.integers(1, 10**5), st.integers(1, 4), st.data())
def test_no_usage_within_the_reserve_costs_more_than_the_worst_case(
    price, n_prompt, limit, n_choices, data
):
    query = Query(text="", n_prompt_tokens=n_prompt, max_output_tokens=limit, n_choices=n_choices)
    candidate = a_candidate(price)
    reserved = ceil(n_prompt * PROMPT_MARGIN) + PROMPT_MARGIN_TOKENS
    usage = Usage(
        prompt_tokens=data.draw(st.integers(0, reserved)),
        completion_tokens=data.draw(st.integers(0, limit * n_choices)),
        cached_tokens=data.draw(COUNTS),
        cache_write_tokens=data.draw(COUNTS),
    )

    assert cost_nusd(usage, price) <= worst_case_nusd(candidate, query)


def test_a_worst_case_is_given_unknown_or_computed():
    query = Query(text="", n_prompt_tokens=100, max_output_tokens=10, n_choices=2)

    assert 7 == worst_case_nusd(a_candidate(worst_case_nusd=7), query)
    assert worst_case_nusd(Candidate(name="a", model="a", price=None), query) is None
    assert (130 + 64 + 2 * 2 * 10) * 1_000 == worst_case_nusd(a_candidate(), query)


def test_the_output_limit_is_the_callers_then_the_candidates_below_what_it_can():
    can = Capabilities(max_output_tokens=50)

    assert 4_096 == output_limit(a_candidate(), Query(text=""))
    assert 7 == output_limit(a_candidate(), Query(text="", max_output_tokens=7))
    assert 9_000 == output_limit(a_candidate(), Query(text="", max_output_tokens=9_000))
    assert 50 == output_limit(a_candidate(capabilities=can), Query(text=""))


@pytest.mark.parametrize(
    ("usd", "nano"),
    [
        (0.1, 100_000_000),
        (0, 0),
        ("0.0000000001", 1),
        (Decimal("1.00000000000000000000000000000000001"), 1_000_000_001),
        (1e-9, 1),
        (np.float64(2.5), 2_500_000_000),
    ],
)
def test_an_amount_is_rounded_up_from_its_decimal_text(usd, nano):
    assert nano == usd_to_nusd(usd)


@given(prices(), st.integers(0, 10**6), st.integers(0, 10**5))
def test_an_expected_cost_is_the_bill_of_an_uncached_call(price, n_prompt, n_output):
    usage = Usage(prompt_tokens=n_prompt, completion_tokens=n_output)
    expected = expected_usd(price, np.array([float(n_prompt)]), np.array([float(n_output)]))

    assert expected[0] == pytest.approx(cost_nusd(usage, price) / 1e9, rel=1e-9, abs=1.01e-9)


def test_a_forecast_is_tokens_times_price_or_a_bill_up_to_its_worst_case():
    table = Candidate(name="t", model="t", price=None, worst_case_nusd=5_000_000)
    unknown = Candidate(name="u", model="u", price=None)
    cost = Rates([a_candidate(), table, unknown]).forecast_usd(
        np.array([[10.0, 0.0, 0.0], [20.0, 0.0, 0.0]]),
        np.array([[9.0, 0.001, np.nan], [9.0, 1.0, np.nan]]),
        np.array([100.0, 0.0]),
    )

    assert [[120e-6, 0.001], [40e-6, 0.005]] == cost[:, :2].tolist()
    assert np.isnan(cost[:, 2]).all()


def test_a_tier_may_charge_more_for_cache_writes():
    tier = PriceTier(
        above_tokens=100,
        input_per_1m=Decimal(2),
        output_per_1m=Decimal(0),
        cache_write_per_1m=Decimal(5),
    )
    price = TokenPrice(
        input_per_1m=Decimal(1),
        output_per_1m=Decimal(0),
        cache_write_per_1m=Decimal(3),
        tiers=(tier,),
    )
    below = Usage(prompt_tokens=100, completion_tokens=0, cache_write_tokens=40)
    above = Usage(prompt_tokens=101, completion_tokens=0, cache_write_tokens=40)

    assert cost_nusd(below, price) == (60 * 1 + 40 * 3) * 1000
    assert cost_nusd(above, price) == (61 * 2 + 40 * 5) * 1000
