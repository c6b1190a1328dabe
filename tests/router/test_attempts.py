"""A call as a sequence of attempts, by script: batches, circuits, limits, interrupts, parity."""

import asyncio
import random
import threading

import pytest

from optllm_router import Budget, BudgetExceededError, Cheapest, ConfigError
from optllm_router.completion.base import Failure
from optllm_router.core.cost import worst_case_nusd
from optllm_router.dispatch.workers import arun_batch, run_batch
from optllm_router.records import NANO_PER_USD, Query
from optllm_router.router.engine import BatchAsked
from optllm_router.testing.scripted import Line, ScriptedClient

PASSES = Failure(remedy="retry", is_ill=True)
ELSEWHERE = Failure(remedy="another", is_ill=True)
DOWN = Line(error=RuntimeError("down"), failure=ELSEWHERE)
LIMIT = 400
QUERY = Query(text="", n_prompt_tokens=4, max_output_tokens=LIMIT)
NAMES = ("cheap", "middling", "dear")


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr("optllm_router.dispatch.course.FIRST_WAIT_S", 0.002)


def fails(*lines):
    """A script of lines in order; the last one repeats."""
    left = list(lines)
    lock = threading.Lock()

    def line(_arguments) -> Line:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return line


def asked(client):
    return [call.candidate for call in client.calls]


def test_the_next_best_columns_are_asked_in_order_of_value_at_the_dual_price(
    trained, client, ask, logged
):
    router = trained(policy=Cheapest())
    client._scripts |= {"cheap": fails(DOWN), "middling": fails(DOWN)}

    response = router.complete(messages=ask("easy question"))

    assert ["cheap", "middling", "dear"] == asked(client)
    (one,) = logged(router)
    facts = response._hidden_params["optllm"]
    assert ("cheap", "dear", None) == (
        one.decision.chosen,
        one.decision.served,
        one.decision.propensity,
    )
    assert ("dear", "cheap") == (facts["candidate"], facts["chosen"])
    assert one.decision.reason == facts["reason"]
    assert facts["reason"].endswith(
        "; cheap failed: RuntimeError; middling failed: RuntimeError; dear answers"
    )


@pytest.mark.parametrize("stream", [False, True])
def test_sync_and_async_make_the_same_attempts(make_router, client, ask, logged, stream):
    router = make_router()
    script = [Line(error=TimeoutError("slow"), failure=PASSES, billed=True), DOWN, Line(text="ok")]

    async def acomplete():
        answer = await router.acomplete(messages=ask(), stream=stream)
        if stream:
            _ = [chunk async for chunk in answer]

    client._scripts = dict.fromkeys(NAMES, fails(*script))
    answer = router.complete(messages=ask(), stream=stream)
    if stream:
        list(answer)
    client._scripts = dict.fromkeys(NAMES, fails(*script))
    asyncio.run(acomplete())

    def seen(one):
        rows = [
            (a.number, a.candidate, a.status, a.error_class, a.cost_nusd, a.estimated)
            for a in one.attempts
        ]
        return one.decision.served, one.decision.reason, rows

    ours, theirs = logged(router)
    assert seen(ours) == seen(theirs)
    assert ["error", "error", "ok"] == [a.status for a in ours.attempts]


def test_the_answer_says_what_all_attempts_cost(make_router, client, ask, only, logged):
    router = make_router()
    lost = Line(error=TimeoutError("slow"), failure=ELSEWHERE, billed=True)
    client._scripts["middling"] = fails(lost)

    facts = router.complete(messages=ask())._hidden_params["optllm"]

    (one,) = logged(router)
    assert facts["cost_usd"] == sum(a.cost_nusd for a in one.attempts) / NANO_PER_USD
    assert one.attempts[0].cost_nusd > 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), SystemExit(3)])
def test_interrupts_are_never_retried(make_router, client, ask, error):
    router = make_router()
    client._scripts["middling"] = fails(Line(error=error, failure=PASSES))

    with pytest.raises(type(error)):
        router.complete(messages=ask())

    assert ["middling"] == asked(client)


def test_an_interrupt_between_attempts_leaves_the_first_one_in_the_log(
    make_router, client, ask, logged, monkeypatch
):
    monkeypatch.setattr("optllm_router.dispatch.course.FIRST_WAIT_S", 30.0)
    router = make_router(["middling"])
    client._scripts["middling"] = fails(Line(error=RuntimeError("down"), failure=PASSES))

    async def interrupted():
        call = asyncio.create_task(router.acomplete(messages=ask()))
        while not client.calls:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        call.cancel()
        await call

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted())

    (one,) = logged(router)
    assert [("error", "RuntimeError")] == [(a.status, a.error_class) for a in one.attempts]


def test_shadowed_calls_and_explicit_retries_are_not_repeated(make_router, client, ask):
    client._scripts = dict.fromkeys(NAMES, fails(Line(error=RuntimeError("down"), failure=PASSES)))
    with pytest.raises(RuntimeError):
        make_router(mode="shadow").complete(messages=ask())
    with pytest.raises(RuntimeError):
        make_router().complete(messages=ask(), num_retries=2)

    assert ["middling", "middling", "dear", "cheap"] == asked(client)


def test_probes_are_retried_and_answered_by_nobody_else(make_router, client):
    client._scripts["dear"] = fails(Line(error=RuntimeError("down"), failure=PASSES), Line())
    client._scripts["cheap"] = fails(DOWN)
    router = make_router()

    report = router.probe(["a"], grader=lambda _text, _reference: 1.0)

    assert (3, 1) == (report.n_calls, report.n_errors)
    assert ["cheap", "dear", "dear", "middling"] == sorted(asked(client))


def test_a_fault_of_ours_after_a_failure_leaves_the_providers_error(
    make_router, client, ask, monkeypatch, caplog
):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("optllm_router.dispatch.deciding.other_offers", broken)
    client._scripts["middling"] = fails(DOWN)
    router = make_router()

    with pytest.raises(RuntimeError, match="down"):
        router.complete(messages=ask())

    assert 1 == router._engine.desk.decider.n_faults
    assert "could not tell who else to ask" in caplog.text


# -- circuits -----------------------------------------------------------------------------------


def test_a_candidate_that_keeps_failing_is_left_alone(make_router, client, ask, logged):
    router = make_router(calls={"open_after": 3, "cooldown": "1h"})
    client._scripts["middling"] = fails(DOWN)

    for _ in range(6):
        router.complete(messages=ask())

    assert 3 == asked(client).count("middling")
    last = logged(router)[-1]
    assert ("middling", "dear") == (last.decision.chosen, last.decision.served)
    assert "; middling is left alone, its circuit is open; dear answers" in last.decision.reason
    assert [0] == [attempt.number for attempt in last.attempts]


def test_a_single_candidate_is_asked_again_by_every_call_and_back_at_once(make_router, client, ask):
    router = make_router(["middling"], calls={"open_after": 2, "cooldown": "1h", "max_attempts": 1})
    client._scripts["middling"] = fails(*[DOWN] * 5, Line(text="back"))

    for _ in range(5):
        with pytest.raises(RuntimeError, match="down"):
            router.complete(messages=ask())
    answers = [router.complete(messages=ask()).choices[0].message.content for _ in range(3)]

    assert ["back"] * 3 == answers
    assert 8 == len(client.calls)


@pytest.mark.parametrize("shell", ["sync", "async"])
def test_while_a_single_candidate_is_down_calls_share_one_trial(make_router, client, logged, shell):
    router = make_router(["middling"], calls={"open_after": 1, "cooldown": "1h", "max_attempts": 1})
    client._scripts["middling"] = fails(DOWN)
    with pytest.raises(RuntimeError):
        router.complete(messages=[{"role": "user", "content": "one"}])
    client._scripts["middling"] = fails(
        Line(error=RuntimeError("still down"), failure=ELSEWHERE, latency_s=0.5)
    )

    texts = ["many"] * 8
    if shell == "sync":
        results = router.complete_batch(texts, concurrency=8)
    else:
        results = asyncio.run(router.acomplete_batch(texts, concurrency=8))

    assert {"still down"} == {str(error) for error in results}
    assert 8 == len({id(error) for error in results})
    statuses = [a.status for one in logged(router)[1:] for a in one.attempts]
    assert (8, len(client.calls) - 1) == (len(statuses), statuses.count("error"))
    assert 1 <= statuses.count("error") < 8


def test_a_callers_own_hurry_breaks_no_circuit(make_router, client, ask):
    router = make_router(["middling"], calls={"open_after": 1, "max_attempts": 1})
    slow = Line(latency_s=0.5)
    client._scripts["middling"] = fails(slow)

    for _ in range(2):
        with pytest.raises(TimeoutError):
            router.complete(messages=ask(), timeout=0.01)

    assert not router._engine.desk.traffic._breakers["middling"].is_open


# -- limits -------------------------------------------------------------------------------------


class Counting(ScriptedClient):
    """Counts how many calls run at the same time."""

    n = most = 0

    def complete(self, candidate, arguments):
        with self._lock:
            self.n += 1
            self.most = max(self.most, self.n)
        try:
            return super().complete(candidate, arguments)
        finally:
            with self._lock:
                self.n -= 1


@pytest.mark.parametrize("stream", [False, True])
def test_no_more_calls_of_a_candidate_run_at_once_than_it_allows(make_router, stream):
    counting = Counting({"middling": Line(latency_s=0.1)}, prices={"middling": (3, 3)})
    router = make_router([{"model": "middling", "max_concurrency": 2}], client=counting)

    if stream:
        first, second = (
            router.complete(messages=[{"role": "user", "content": "q"}], stream=True)
            for _ in range(2)
        )
        assert 2 == router._engine.desk.traffic._limits["middling"]._n_inside
        list(first)
        second.close()
    else:
        results = router.complete_batch(["q"] * 12, concurrency=8)
        assert not [r for r in results if isinstance(r, Exception)]
        assert 2 == counting.most

    assert 0 == router._engine.desk.traffic._limits["middling"]._n_inside


def test_a_call_that_is_not_let_in_in_time_says_so_and_is_logged(make_router, client, ask, logged):
    router = make_router(
        [{"model": "middling", "requests_per_minute": 1}], calls={"timeout": "0.5s"}
    )
    router.complete(messages=ask())

    with pytest.raises(TimeoutError, match="its limits let no call in, in time"):
        router.complete(messages=ask())

    assert ["ok", "refused"] == [a.status for one in logged(router) for a in one.attempts]
    assert 1 == len(client.calls)


# -- money --------------------------------------------------------------------------------------


class Bank:
    """Draws what calls really cost, or how they fail, and adds up what was paid."""

    def __init__(self, router, seed):
        self._worst = {c.name: worst_case_nusd(c, QUERY) for c in router.candidates}
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self.spent = 0

    def script(self, name):
        def line(_arguments) -> Line:
            with self._lock:
                fate, latency = self._rng.random(), self._rng.random() * 0.003
                if fate < 0.5:
                    failure = PASSES if fate < 0.25 else ELSEWHERE
                    lost = self._rng.random() < 0.5
                    return Line(
                        error=RuntimeError(f"{fate}"),
                        failure=failure,
                        billed=lost,
                        latency_s=latency,
                    )
                cost = int(self._worst[name] * self._rng.random())
                self.spent += cost
            return Line(cost_nusd=cost, latency_s=latency)

        return line


@pytest.mark.timeout(90)
@pytest.mark.parametrize("shell", ["sync", "async"])
@pytest.mark.parametrize("fitted", [True, False], ids=["fitted", "not fitted"])
def test_a_batch_with_fallbacks_keeps_its_budget_exactly(
    make_router, train, client, logged, shell, fitted
):
    router = make_router(calls={"open_after": 1000})
    if fitted:
        train(router)
    bank = Bank(router, seed=f"{shell}{fitted}")
    client._scripts = {name: bank.script(name) for name in NAMES}
    texts = [f"{'easy' if i % 3 else 'hard'} number {i:03d} " for i in range(100)]
    limit = 60_000_000

    policy = Budget(usd=limit / NANO_PER_USD)
    asked = BatchAsked(items=texts, common={"max_tokens": LIMIT}, policy=policy)
    job = router._engine.batch(asked, lambda: None)
    if shell == "sync":
        results = run_batch(router._engine.desk, job, 16)
    else:
        results = asyncio.run(
            arun_batch(router._engine.desk, job, 16, router._engine.store_thread())
        )

    rows = [attempt for one in logged(router) for attempt in one.attempts]
    booked = sum(attempt.cost_nusd for attempt in rows)
    assert (limit, booked, 0) == (
        job.cap.balance.limit_nusd,
        job.cap.balance.spent_nusd,
        job.cap.balance.reserved_nusd,
    )
    assert booked <= limit
    assert bank.spent == sum(attempt.cost_nusd for attempt in rows if attempt.status == "ok")
    assert len(client.calls) == len(rows)
    assert {"ok", "error"} == {attempt.status for attempt in rows}
    assert any(len(one.attempts) > 1 and one.decision.served for one in logged(router))
    failed = [result for result in results if isinstance(result, Exception)]
    assert {BudgetExceededError, RuntimeError} >= {type(error) for error in failed}
    for error in failed:
        if isinstance(error, RuntimeError):
            assert 1 <= len(error.optllm_attempts) <= 4


def test_what_a_failed_attempt_was_billed_is_not_there_for_the_next(make_router, client, ask):
    router = make_router()
    lost = Line(error=TimeoutError("slow"), failure=ELSEWHERE, billed=True)
    client._scripts["middling"] = fails(lost)
    middling = worst_case_nusd(router.candidates[1], router._engine.read("auto", ask(), {}).query)

    router.complete(messages=ask(), policy=Budget(usd=middling / NANO_PER_USD))

    assert ["middling", "cheap"] == asked(client)  # dear comes before cheap, and would fit no more


@pytest.mark.parametrize(
    ("calls", "says"),
    [
        ({"timeout": "1s", "attempt_timeout": "2s"}, "one attempt cannot take longer than all"),
        ({"max_attempts": 0}, "greater than or equal to 1"),
        ({"timeout": 3}, "a duration is a text of a positive number and a unit"),
        ({"retries": 3}, "unknown key `calls.retries`"),
    ],
)
def test_impossible_settings_are_refused(make_router, calls, says):
    with pytest.raises(ConfigError, match=says):
        make_router(calls=calls)
