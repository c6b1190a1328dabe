"""A hard budget under concurrency: never crossed, nothing stuck, refused only what cannot fit."""

import asyncio
import random
import threading

import pytest

from optllm_router import Budget, BudgetExceededError
from optllm_router.core.cost import worst_case_nusd
from optllm_router.ledger import Cap
from optllm_router.records import NANO_PER_USD, Query
from optllm_router.testing.scripted import Line

LIMIT = 400  # output tokens
QUERY = Query(text="", n_prompt_tokens=4, max_output_tokens=LIMIT)  # as all of the texts below


class Bank:
    """Draws what calls really cost, up to their worst case, and adds it up."""

    def __init__(self, router, seed, skew):
        self._worst = {
            candidate.name: worst_case_nusd(candidate, QUERY) for candidate in router.candidates
        }
        self._rng = random.Random(seed)
        self._skew = skew
        self._lock = threading.Lock()
        self.spent = 0

    def script(self, name):
        def line(_arguments) -> Line:
            with self._lock:
                share = self._rng.random() ** self._skew
                cost = int(self._worst[name] * share)
                self.spent += cost
                latency = self._rng.random() * 0.004
            return Line(cost_nusd=cost, latency_s=latency)

        return line


def run(router, shell, texts, policy):
    arguments = {"policy": policy, "concurrency": 16, "max_tokens": LIMIT}
    if shell == "sync":
        return router.complete_batch(texts, **arguments)
    return asyncio.run(router.acomplete_batch(texts, **arguments))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("shell", ["sync", "async"])
@pytest.mark.parametrize("skew", [0.0, 1.0, 5.0], ids=["always the worst", "any", "mostly little"])
@pytest.mark.parametrize("fitted", [True, False], ids=["fitted", "not fitted"])
def test_the_budget_is_kept_exactly_and_nothing_is_refused_that_would_fit(
    make_router, train, client, logged, shell, skew, fitted
):
    router = make_router()
    if fitted:
        train(router)
    bank = Bank(router, seed=f"{shell}{skew}{fitted}", skew=skew)
    client._scripts = {name: bank.script(name) for name in ("cheap", "middling", "dear")}
    texts = [f"{'easy' if i % 3 else 'hard'} number {i:03d} " for i in range(120)]
    limit_usd = 0.06

    results = run(router, shell, texts, Budget(usd=limit_usd))

    limit = round(limit_usd * NANO_PER_USD)
    assert bank.spent <= limit
    assert bank.spent == sum(a.cost_nusd for one in logged(router) for a in one.attempts)
    refused = [result for result in results if isinstance(result, Exception)]
    assert {BudgetExceededError} >= {type(error) for error in refused}
    assert 120 == len(client.calls) + len(refused)
    if refused:  # then not even the cheapest worst case was left
        assert limit - bank.spent < worst_case_nusd(router.candidates[0], QUERY)


def test_a_refusal_says_what_was_left(trained, client):
    router = trained()
    client._scripts["cheap"] = lambda _: Line(cost_nusd=400_000)

    results = router.complete_batch(
        ["easy number 1", "easy number 2", "easy number 3"],
        policy=Budget(usd=0.0010),
        max_tokens=LIMIT,
        concurrency=1,
    )

    assert isinstance(results[2], BudgetExceededError)
    assert (0.001, 0.0002) == (results[2].limit_usd, pytest.approx(results[2].left_usd))
    assert "batch" == results[2].budget


def test_failed_calls_give_their_reserve_back(trained, client):
    router = trained()
    lines = iter([Line(error=RuntimeError("down"))] * 20 + [Line()])
    client._scripts = dict.fromkeys(client._scripts, lambda _arguments: next(lines))

    results = router.complete_batch(
        [f"easy number {i}" for i in range(21)],
        policy=Budget(usd=0.005),
        max_tokens=LIMIT,
        concurrency=1,
    )

    assert "ok" == results[20].choices[0].message.content


def test_calls_that_may_have_been_billed_are_booked_at_their_forecast(trained, client, logged):
    router = trained()
    gone = Line(error=TimeoutError("gone"), billed=True)
    client._scripts = dict.fromkeys(client._scripts, lambda _arguments: gone)

    router.complete_batch(
        ["easy number 1"], policy=Budget(usd=0.005), max_tokens=LIMIT, concurrency=1
    )

    (one,) = logged(router)
    (attempt,) = one.attempts
    assert ("error", True) == (attempt.status, attempt.estimated)
    assert one.decision.expected_cost_nusd == attempt.cost_nusd > 0


def test_a_cap_waits_for_calls_in_flight_and_refuses_what_could_not_fit_without_them():
    cap = Cap("batch", 100)

    assert "reserved" == cap.reserve(70)
    assert "wait" == cap.reserve(40)
    assert "refused" == cap.reserve(101)
    cap.settle(70, 65)
    assert "refused" == cap.reserve(40)
    assert "reserved" == cap.reserve(35)
    cap.settle(35, 40)  # an overshoot is booked in full
    assert -5 == cap.balance.left_nusd
    assert "refused" == cap.reserve(0)


def test_a_cap_is_exact_under_threads():
    cap = Cap("batch", 1_000)
    crossed = []

    def work(seed):
        rng = random.Random(seed)
        for _ in range(300):
            amount = rng.randint(1, 60)
            if cap.reserve(amount) == "reserved":
                balance = cap.balance
                if balance.spent_nusd + balance.reserved_nusd > 1_000:
                    crossed.append(balance)
                cap.settle(amount, rng.randint(0, min(amount, 2)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == crossed
    assert 0 == cap.balance.reserved_nusd
    assert cap.balance.spent_nusd <= 1_000
