"""What is left of a window, shared out over the calls that are still expected in it."""

from __future__ import annotations

from optllm_router.core.pacing import MIN_CALLS, allowance_nusd


def test_what_is_left_is_shared_out_over_as_many_calls_as_came_so_far():
    assert 30.0 == allowance_nusd(left_nusd=3_000, n_calls=100, elapsed=0.5)


def test_early_in_the_window_many_more_calls_are_expected_and_late_few():
    assert 1.0 == allowance_nusd(left_nusd=700, n_calls=100, elapsed=0.125)
    assert 80.0 == allowance_nusd(left_nusd=2_400, n_calls=90, elapsed=0.75)


def test_a_call_never_gets_more_than_is_left():
    assert 500.0 == allowance_nusd(left_nusd=500, n_calls=100, elapsed=1.0)


def test_nothing_left_allows_nothing():
    assert 0.0 == allowance_nusd(left_nusd=-5, n_calls=100, elapsed=0.5)


def test_too_few_calls_and_windows_without_an_end_say_nothing():
    assert allowance_nusd(left_nusd=100, n_calls=MIN_CALLS - 1, elapsed=0.5) is None
    assert allowance_nusd(left_nusd=100, n_calls=MIN_CALLS, elapsed=0.5) is not None
    assert allowance_nusd(left_nusd=100, n_calls=100, elapsed=None) is None
    assert allowance_nusd(left_nusd=100, n_calls=100, elapsed=0.0) is None
