"""Forecasts of amounts: by length and task, shrunk while little is known, never below a floor."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optllm_router.core.amounts import MAX_TASKS, AmountForecast, filled_output

NINE = np.array([4.0, 30.0, 8.0, 12.0, 90.0, 16.0, 20.0, 25.0, 5.0])


def plain_fit(amounts):
    """Fit on amounts, (n_rows, n_columns), of prompts that are all alike."""
    return AmountForecast.fit(amounts, np.full(len(amounts), 7.0), [""] * len(amounts))


def at(forecast, share):
    """The quantile for such a prompt, one per column."""
    return forecast.quantile(np.array([7.0]), [""], share)[0]


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

    kept = 90 / 93
    assert pytest.approx([250 - 150 * kept, 250 + 150 * kept, 250]) == predicted.tolist()


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
    for share in (0.0, 0.37, 1.0):
        stored, fresh = (one.quantile(prompt, tasks, share) for one in (back, forecast))
        assert fresh.tobytes() == stored.tobytes()


def test_the_share_k_of_n_and_one_is_the_kth_ratio_to_what_the_others_forecast():
    mean, others = NINE.mean(), (NINE.sum() - NINE) / 8
    ratios = np.sort(NINE / others)
    forecast = plain_fit(NINE[:, None])

    for share, k in [(0.0, 1), (0.1, 1), (0.3, 3), (0.5, 5), (0.9, 9), (0.95, 9), (1.0, 9)]:
        assert mean * ratios[k - 1] == pytest.approx(at(forecast, share)[0])
    assert mean * ratios[3:5].mean() == pytest.approx(at(forecast, 0.45)[0])


def test_quantiles_scale_with_the_forecast():
    amounts = np.array([[100.0], [140.0]] * 45 + [[400.0], [560.0]] * 45)
    tasks = ["short"] * 90 + ["long"] * 90
    forecast = AmountForecast.fit(amounts, np.full(180, 7.0), tasks)
    asked = (np.array([7.0, 7.0]), ["short", "long"])

    high, mean = forecast.quantile(*asked, 0.9)[:, 0], forecast.predict(*asked)[:, 0]
    assert high[0] / mean[0] == pytest.approx(high[1] / mean[1])
    assert [140, 560] == pytest.approx(high.tolist(), rel=0.1)


@pytest.mark.parametrize("n_rows", [9, 40])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_quantile_covers_its_share_of_fresh_amounts_however_few_the_rows(share, n_rows):
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(400):
        amounts, prompt = rng.lognormal(5.0, 0.8, (n_rows, 1)), rng.uniform(10, 90, n_rows)
        forecast = AmountForecast.fit(amounts, prompt, (["t", "u", "v"] * n_rows)[:n_rows])
        fresh = rng.lognormal(5.0, 0.8, (50, 1))
        tasks = ["t", "v"] * 25
        covered.append((fresh <= forecast.quantile(rng.uniform(10, 90, 50), tasks, share)).mean())

    assert share == pytest.approx(np.mean(covered), abs=0.03)


def test_a_column_with_few_rows_borrows_the_spread_of_the_others():
    amounts = np.column_stack([np.tile(NINE, 20), np.full(180, 50.0)])
    few, many = amounts.copy(), amounts
    few[2:, 1] = np.nan

    assert at(plain_fit(few), 0.9)[1] > 1.5 * 50
    assert 50 == pytest.approx(at(plain_fit(many), 0.9)[1])
    assert at(plain_fit(many), 0.9)[0] == pytest.approx(at(plain_fit(few), 0.9)[0], rel=0.1)


def test_a_quantile_is_the_mean_forecast_where_no_ratio_is_known():
    single, free = plain_fit(np.array([[40.0, np.nan]])), plain_fit(np.zeros((5, 1)))

    for share in (0.0, 0.1, 0.9):
        assert 40.0 == at(single, share)[0]
        assert np.isnan(at(single, share)[1])
        assert [0.0] == at(free, share).tolist()


def test_a_forecast_stored_before_ratios_were_gives_its_mean_as_any_quantile():
    forecast = plain_fit(NINE[:, None])
    arrays = forecast.to_arrays("tokens")
    del arrays["tokens_ratio"]
    old = AmountForecast.from_arrays(arrays, "tokens")

    assert [NINE.mean()] * 3 == pytest.approx([at(old, share)[0] for share in (0.0, 0.1, 1.0)])


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_of_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=f"`share={share}` is no share of amounts"):
        at(plain_fit(NINE[:, None]), share)


@given(st.data())
def test_quantiles_ascend_with_the_share_and_are_never_negative(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    n_rows = data.draw(st.integers(0, 12))
    amounts = np.round(rng.lognormal(1.0, 2.0, (n_rows, 3)), data.draw(st.integers(-1, 3)))
    amounts[rng.random(amounts.shape) < 0.4] = np.nan
    prompt = rng.integers(0, 500, n_rows).astype(float)
    forecast = AmountForecast.fit(amounts, prompt, rng.choice(["", "a", "b"], n_rows).tolist())
    shares = sorted(data.draw(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6)))

    asked = (np.array([0.0, 90.0, 1e6]), ["a", "", "new"])
    found = np.array([forecast.quantile(*asked, share) for share in shares])
    known = ~np.isnan(amounts).all(axis=0)
    assert (known == ~np.isnan(found).any(axis=(0, 1))).all()
    assert (found[..., known] >= 0.0).all()
    assert (np.diff(found[..., known], axis=0) >= 0.0).all()
