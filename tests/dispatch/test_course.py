"""The order of a call's attempts, with a given clock and given chance."""

import numpy as np
import pytest

from optllm_router.completion.base import Failure
from optllm_router.dispatch.course import Course, backoff_s
from optllm_router.dispatch.offers import Offer
from optllm_router.records import Candidate, Capabilities

PASSES = Failure(remedy="retry", is_ill=True)
ELSEWHERE = Failure(remedy="another", is_ill=True)
NOBODY = Failure(remedy="none")


def offer(name, window=None):
    candidate = Candidate(
        name=name, model=name, price=None, capabilities=Capabilities(context_window=window)
    )
    return Offer(candidate=candidate, worst_nusd=1, forecast=lambda: None)


def course(*names, max_attempts=4, retries=True, windows=None, seed=0):
    offers = [offer(name, (windows or {}).get(name)) for name in names]
    return Course(
        offers[0],
        lambda: offers[1:],
        max_attempts=max_attempts,
        may_retry=lambda _offer: retries,
        rng=np.random.default_rng(seed),
    )


def walk(course, *failures):
    """Return who is asked, and when, as failures come one second apart."""
    leg, now, asked = course.first, 100.0, []
    for failure in failures:
        asked.append(leg.offer.candidate.name)
        now = max(now, leg.ready_at) + 1.0
        following = course.after(leg, failure, now)
        if not following:
            return asked
        leg = following[0]
    return [*asked, leg.offer.candidate.name]


def test_what_passes_is_asked_twice_then_the_next_best_and_last_somebody_new():
    assert ["a", "a", "b", "c"] == walk(course("a", "b", "c"), *[PASSES] * 4)


def test_the_last_attempt_is_somebody_elses():
    assert ["a", "b"] == walk(course("a", "b", max_attempts=2), *[PASSES] * 3)
    assert ["a", "a", "b"] == walk(course("a", "b", max_attempts=3), *[PASSES] * 3)


def test_a_single_candidate_is_asked_until_the_attempts_are_used_up():
    assert ["a"] * 4 == walk(course("a"), *[PASSES] * 9)


def test_when_all_have_been_asked_those_that_may_recover_are_asked_again():
    assert ["a", "b", "b", "b"] == walk(course("a", "b"), ELSEWHERE, PASSES, PASSES, PASSES)


def test_a_wrong_key_is_never_asked_again():
    assert ["a", "b"] == walk(course("a", "b"), ELSEWHERE, ELSEWHERE)


def test_the_callers_mistake_ends_it():
    assert ["a"] == walk(course("a", "b"), NOBODY)


def test_where_litellm_does_the_retries_everybody_is_asked_once():
    assert ["a", "b", "c"] == walk(course("a", "b", "c", retries=False), *[PASSES] * 4)


def test_a_long_wait_is_not_waited_for_while_somebody_else_may_answer():
    patient = Failure(remedy="retry", is_ill=True, retry_after_s=30.0)
    assert ["a", "b", "b", "b"] == walk(course("a", "b"), patient, PASSES, PASSES, PASSES)


def test_retry_after_is_kept_where_nobody_else_can_be_asked():
    only = course("a")
    patient = Failure(remedy="retry", is_ill=True, retry_after_s=30.0)

    (leg,) = only.after(only.first, patient, 100.0)

    assert 130.0 == leg.ready_at


def test_a_prompt_that_is_too_long_is_only_worth_a_larger_window():
    too_long = Failure(remedy="another", needs_room=True)
    windows = {"a": 8_000, "b": 8_000, "c": 4_000, "d": 16_000}

    assert ["a", "d"] == walk(course(*"abcd", windows=windows), too_long, PASSES)[:2]
    assert ["a", "b"] == walk(course("a", "b"), too_long, NOBODY)  # nothing is known of either


@pytest.mark.parametrize("n_failures", [1, 2, 3, 4, 5, 9])
def test_waits_double_up_to_eight_seconds_less_up_to_a_half(n_failures):
    longest = [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0][n_failures - 1]
    waits = [backoff_s(n_failures, np.random.default_rng(seed)) for seed in range(200)]

    assert all(longest / 2 < wait <= longest for wait in waits)
    assert 200 == len(set(waits))


def test_the_same_chance_gives_the_same_waits():
    def waits(seed):
        made, ready = course("a", seed=seed), []
        for _ in range(3):
            (leg, *_) = made.after(made.first, PASSES, 0.0)
            ready.append(leg.ready_at)
        return ready

    assert waits(7) == waits(7)
    assert waits(7) != waits(8)


def test_the_others_are_only_looked_up_after_a_failure():
    looked = []

    def others():
        looked.append(True)
        return []

    made = Course(
        offer("a"),
        others,
        max_attempts=2,
        may_retry=lambda _: True,
        rng=np.random.default_rng(0),
    )
    assert [] == looked
    made.after(made.first, PASSES, 0.0)
    made.after(made.first, PASSES, 0.0)
    assert [True] == looked
