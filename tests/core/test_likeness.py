"""Likeness: what a new column is taken to be like, by its name and its price alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optllm_router.core.likeness import EVEN_SHARE, FREE, PRICE_TREND, likeness

NAN = np.nan
prices = st.one_of(st.just(0.0), st.just(NAN), st.floats(1e-9, 1e3))


@given(st.lists(prices, min_size=1, max_size=6), prices, st.data())
def test_weights_are_a_distribution_of_which_half_is_even_whatever_the_prices(known, own, data):
    names = [data.draw(st.text(max_size=12)) for _ in known]
    like = likeness("gpt-4o-mini", own, names, np.array(known))

    assert 1.0 == pytest.approx(like.mix.sum())
    assert like.mix.min() >= EVEN_SHARE / len(known) - 1e-12
    assert np.isfinite(like.shift)


def test_a_shared_family_name_counts():
    names = ["openai/gpt-4o", "google/gemini-1.5-pro", "meta/llama-3-8b"]
    mix = likeness("openai/gpt-4o-mini", 1.0, names, np.ones(3)).mix

    assert 0 == mix.argmax()
    assert mix[1] == mix[2]


def test_a_near_price_counts_by_its_logarithm():
    mix = likeness("new", 0.01, ["a", "b", "c"], np.array([0.001, 0.02, 0.005])).mix

    assert mix[0] < mix[1] == pytest.approx(mix[2])


def test_weights_are_those_of_the_formula():
    mix = likeness("x 1", np.e, ["x 2", "y"], np.array([1.0, np.e])).mix
    weight = np.exp([1 / 3 - 1 / 2, 0.0])

    assert (EVEN_SHARE / 2 + (1 - EVEN_SHARE) * weight / weight.sum()).tolist() == pytest.approx(
        mix.tolist()
    )


def test_a_dearer_one_is_expected_to_be_better_by_the_logarithm_of_the_price():
    dearer, cheaper = (
        likeness("new", usd, ["a", "b"], np.array([1.0, 1.0])).shift for usd in (10.0, 0.1)
    )

    assert PRICE_TREND * np.log(10.0) == pytest.approx(dearer)
    assert -dearer == pytest.approx(cheaper)


def test_a_free_one_costs_a_tenth_of_the_cheapest_that_is_paid():
    free = likeness("new", 0.0, ["a", "b"], np.array([1.0, 2.0]))
    almost = likeness("new", FREE, ["a", "b"], np.array([1.0, 2.0]))

    assert almost.mix.tolist() == free.mix.tolist()
    assert almost.shift == free.shift


@pytest.mark.parametrize(
    ("own", "known"), [(NAN, [1.0, 2.0]), (1.0, [NAN, NAN]), (0.0, [0.0, 0.0])]
)
def test_where_prices_tell_nothing_they_are_left_out(own, known):
    like = likeness("new", own, ["a", "b"], np.array(known))

    assert [0.5, 0.5] == like.mix.tolist()
    assert 0.0 == like.shift


def test_a_known_column_of_unknown_price_counts_as_an_average_one():
    with_hole = likeness("new", 3.0, ["a", "b", "c"], np.array([1.0, NAN, 4.0]))
    filled = likeness("new", 3.0, ["a", "b", "c"], np.array([1.0, 2.0, 4.0]))

    assert filled.mix.tolist() == pytest.approx(with_hole.mix.tolist())
