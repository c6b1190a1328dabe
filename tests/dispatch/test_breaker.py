"""The circuit breaker with a given clock: opens, rests, tries, and never refuses for ever."""

import threading

import pytest

from optllm_router.completion.base import Failure
from optllm_router.dispatch.breaker import MAX_OPEN_S, Breaker, twin

ILL = Failure(remedy="retry", is_ill=True)
DOWN = RuntimeError("down")


class Clock:
    def __init__(self):
        self.now_s = 1_000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(open_after=3, cooldown_s=5.0, clock=clock)


def open_it(breaker, n=3):
    for _ in range(n):
        assert "pass" == breaker.admit()
        breaker.failed(DOWN, ILL, trial=False)


def test_it_opens_after_failures_in_a_row_and_not_before(breaker):
    open_it(breaker, n=2)
    assert "pass" == breaker.admit()
    breaker.succeeded()
    open_it(breaker, n=3)

    assert breaker.is_open
    assert "elsewhere" == breaker.admit()


def test_after_its_rest_one_call_is_let_through_on_trial(breaker, clock):
    open_it(breaker)
    clock.now_s += 4.999
    assert "elsewhere" == breaker.admit()
    clock.now_s += 0.001

    assert not breaker.is_open
    assert ["trial", "elsewhere", "elsewhere"] == [breaker.admit() for _ in range(3)]


def test_a_trial_that_succeeds_closes_it(breaker, clock):
    open_it(breaker)
    clock.now_s += 5
    breaker.admit()

    breaker.succeeded()

    assert ["pass", "pass"] == [breaker.admit(), breaker.admit()]


def test_each_failed_trial_doubles_its_rest_up_to_a_minute(breaker, clock):
    open_it(breaker)
    rests = []
    for expected in (5, 10, 20, 40, 60, 60):
        clock.now_s += expected - 0.01
        rests.append(breaker.admit())
        clock.now_s += 0.01
        rests.append(breaker.admit())
        breaker.failed(DOWN, ILL, trial=True)

    assert ["elsewhere", "trial"] * 6 == rests
    assert 60 == MAX_OPEN_S


def test_it_rests_as_long_as_the_provider_asks(breaker, clock):
    asks = Failure(remedy="retry", is_ill=True, retry_after_s=30.0)
    for _ in range(3):
        breaker.failed(DOWN, asks, trial=False)

    clock.now_s += 29
    assert "elsewhere" == breaker.admit()
    clock.now_s += 1
    assert "trial" == breaker.admit()


def test_failures_of_calls_that_were_under_way_do_not_prolong_its_rest(breaker, clock):
    open_it(breaker)
    clock.now_s += 4
    breaker.failed(DOWN, ILL, trial=False)
    clock.now_s += 1

    assert "trial" == breaker.admit()


def test_where_nobody_else_could_answer_a_call_goes_through_at_once_one_at_a_time(breaker):
    open_it(breaker)

    assert "trial" == breaker.admit(last_resort=True)
    assert "wait" == breaker.admit(last_resort=True)
    breaker.failed(DOWN, ILL, trial=True)
    assert "trial" == breaker.admit(last_resort=True)
    breaker.succeeded()
    assert "pass" == breaker.admit(last_resort=True)


def test_a_trial_that_hangs_holds_nobody_up_for_longer_than_the_cool_down(breaker, clock):
    open_it(breaker)
    assert "trial" == breaker.admit(last_resort=True)
    clock.now_s += 4.9
    assert "wait" == breaker.admit(last_resort=True)
    clock.now_s += 0.1

    assert "trial" == breaker.admit(last_resort=True)


def test_a_trial_that_was_given_up_leaves_the_way_free(breaker):
    open_it(breaker)
    breaker.admit(last_resort=True)

    breaker.released()

    assert "trial" == breaker.admit(last_resort=True)


def test_of_many_threads_one_has_the_trial(breaker, clock):
    open_it(breaker)
    clock.now_s += 5
    admitted = []
    start = threading.Barrier(16)

    def ask():
        start.wait()
        admitted.append(breaker.admit())

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == admitted.count("trial")
    assert 15 == admitted.count("elsewhere")


def test_a_lost_trials_error_is_kept_as_a_twin_without_its_traceback(breaker):
    open_it(breaker)
    error = ValueError("all gone")
    error.status_code = 503
    try:
        raise error
    except ValueError:
        breaker.failed(error, ILL, trial=True)

    kept, failure = breaker.last
    assert (ValueError, ("all gone",), 503) == (type(kept), kept.args, kept.status_code)
    assert kept is not error
    assert kept.__traceback__ is None
    assert failure is ILL


def test_a_twin_of_litellms_errors_reads_the_same():
    import litellm

    error = litellm.RateLimitError("slow down", llm_provider="openai", model="m")
    made = twin(error)

    assert type(error) is type(made)
    assert (str(error), error.status_code) == (str(made), made.status_code)
