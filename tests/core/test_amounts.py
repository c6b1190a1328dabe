"""Forecasts of amounts: by length and task, shrunk while little is known, never below a floor."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optllm_router.core.amounts import MAX_TASKS, AmountForecast, filled_output


def test_unknown_outputs_take_the_mean_of_the_others_or_256():
    known = np.array([[10.0, np.nan, 30.0], [np.nan, np.nan, np.nan]])

    assert [[10.0, 20.0, 30.0], [256.0] * 3] == filled_output(known).tolist()


def test_an_amount_follows_the_prompt_where_it_does():
    prompt = np.arange(10.0, 1_010.0)
    forecast = AmountForecast.fit((50 + 2 * prompt)[:, None], prompt, [""] * 1_000)

    assert forecast.predict(np.array([100.0, 800.0]), ["", ""])[:, 0] == pytest.approx(
        [250, 1_650], rel=0.04
    )


def test_a_task_moves_a_forecast_by_its_shrunk_mean():
    amounts = np.array([[100.0]] * 90 + [[400.0]] * 90)
    forecast = AmountForecast.fit(amounts, np.full(180, 7.0), ["short"] * 90 + ["long"] * 90)
    predicted = forecast.predict(np.full(3, 7.0), ["short", "long", "new"])[:, 0]

    assert pytest.approx([250 - 150 * 0.9, 250 + 150 * 0.9, 250]) == predicted.tolist()


def test_a_forecast_never_falls_below_a_tenth_of_the_mean():
    prompt = np.arange(200.0)
    forecast = AmountForecast.fit((200 - prompt)[:, None], prompt, [""] * 200)

    assert 0.1 * 100.5 == pytest.approx(forecast.predict(np.array([1e9]), [""])[0, 0])


def test_a_column_that_was_never_observed_has_no_forecast():
    amounts = np.array([[5.0, np.nan], [7.0, np.nan]])
    forecast = AmountForecast.fit(amounts, np.array([1.0, 2.0]), ["t", ""])
    predicted = forecast.predict(np.array([1.0]), ["t"])

    assert np.isfinite(predicted[0, 0])
    assert np.isnan(predicted[0, 1])
    assert [2, 0] == forecast.n_observed.tolist()


def test_nothing_to_fit_on_forecasts_nothing():
    forecast = AmountForecast.fit(np.empty((0, 2)), np.empty(0), [])

    assert np.isnan(forecast.predict(np.array([5.0]), ["t"])).all()
    assert (0, 2) == forecast.predict(np.empty(0), []).shape


def test_only_the_most_frequent_tasks_have_an_offset():
    tasks = [f"day {i}" for i in range(5_000)] + ["often"] * 10
    amounts = np.array([[10.0]] * 5_000 + [[90.0]] * 10)
    forecast = AmountForecast.fit(amounts, np.zeros(5_010), tasks)

    assert MAX_TASKS == len(forecast.tasks)
    assert "often" == forecast.tasks[0]
    assert (MAX_TASKS, 1) == forecast.task_offset.shape


@given(st.lists(st.text(st.characters(), max_size=5), min_size=1, max_size=6))
def test_stored_arrays_forecast_the_same_bits(tasks):
    rng = np.random.default_rng(len(tasks))
    amounts, prompt = rng.random((len(tasks), 2)), rng.random(len(tasks))
    forecast = AmountForecast.fit(amounts, prompt, tasks)
    arrays = forecast.to_arrays("tokens")
    back = AmountForecast.from_arrays(arrays, "tokens")

    assert not any(array.dtype.hasobject for array in arrays.values())
    assert forecast.tasks == back.tasks
    assert forecast.predict(prompt, tasks).tobytes() == back.predict(prompt, tasks).tobytes()
