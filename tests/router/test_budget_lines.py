"""Which budget binds which call, in which window, at which limit; and what policies make of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from optllm_router import (
    Budget,
    BudgetExceededError,
    Cheapest,
    ConfigError,
    InfeasiblePolicyError,
    Knee,
)
from optllm_router.config import CallSettings
from optllm_router.core.cost import worst_case_nusd
from optllm_router.core.planning import live_aim
from optllm_router.ledger import LEASE_S
from optllm_router.records import NANO_PER_USD, Query
from optllm_router.router.housekeeping import POLL_S
from optllm_router.store.shares import Override
from optllm_router.testing.scripted import Line
from optllm_router.testing.store_suite import SteppedClock

LIMIT = 400  # output tokens
QUERY = Query(text="", n_prompt_tokens=3, max_output_tokens=LIMIT)  # as of all texts below
DAY = timedelta(days=1)


@pytest.fixture
def worst(client) -> int:
    """The worst case of a call of `cheap`, in nano-USD, which is what it costs."""
    found = worst_case_nusd(client.candidate("cheap"), QUERY)
    client._scripts["cheap"] = lambda _: Line(cost_nusd=found)
    return found


@pytest.fixture(params=["sync", "async"])
def shell(request) -> str:
    return request.param


@pytest.fixture
def make_cheap(make_router):
    """Build a router with one candidate, whose calls cost their worst case."""
    return lambda **settings: make_router(["cheap"], **{"default": "cheap", **settings})


def a_budget(nusd: int, name: str = "room", **changes) -> dict[str, object]:
    return {"name": name, "usd": nusd / NANO_PER_USD, "per": "day", **changes}


def call(router, shell: str = "sync", **arguments):
    messages = [{"role": "user", "content": "number 000"}]
    arguments = {"messages": messages, "max_tokens": LIMIT, **arguments}
    if shell == "sync":
        return router.complete(**arguments)
    return asyncio.run(router.acomplete(**arguments))


def n_served(router, n: int, shell: str = "sync", **arguments) -> int:
    served = 0
    for _ in range(n):
        try:
            call(router, shell, **arguments)
            served += 1
        except BudgetExceededError:
            pass
    return served


def stopped_clock(router, now: datetime) -> SteppedClock:
    clock = router._engine.store._database.clock = SteppedClock(now)
    return clock


def spent(router) -> dict[str, float]:
    return {one.name: round(one.spent_usd * NANO_PER_USD) for one in router.budgets()}


def test_nested_budgets_hold_each_for_its_own_calls(make_router, worst, shell):
    router = make_router(
        ["cheap", "middling"],
        default="cheap",
        budgets=[
            a_budget(7 * worst, "all", per="month"),
            a_budget(2 * worst, "team", match={"tag": "team-a"}),
            a_budget(3 * worst, "task", match={"task": "triage"}, rolling=True),
            a_budget(0.5 * worst, "middling", match={"candidate": "middling"}, per="total"),
        ],
    )

    assert 2 == n_served(router, 3, shell, tags=["team-a", "night"], task="triage")
    assert 1 == n_served(router, 3, shell, task="triage")
    assert 0 == n_served(router, 1, shell, model="middling")
    assert 4 == n_served(router, 6, shell)

    times = {"all": 7, "middling": 0, "task": 3, "team": 2}
    assert {name: n * worst for name, n in times.items()} == spent(router)


def test_a_refusal_is_the_most_binding_budgets(make_cheap, worst):
    router = make_cheap(
        budgets=[
            a_budget(9 * worst, "wide"),
            a_budget(worst // 2, "narrow", match={"tag": "team"}),
        ]
    )

    with pytest.raises(BudgetExceededError) as caught:
        call(router, tags=["team"])

    assert "narrow" == caught.value.budget
    assert {"narrow": 0, "wide": 0} == spent(router)


def test_every_session_has_its_own_money_and_a_call_without_one_is_its_own(
    make_cheap, worst, shell
):
    router = make_cheap(budgets=[a_budget(2 * worst, per="session")])

    assert [2, 2, 3] == [n_served(router, 3, shell, session_id=one) for one in ("a", "b", None)]
    assert 2 * worst == round(router.budgets(session_id="a")[0].spent_usd * NANO_PER_USD)


def test_a_window_turns_by_the_databases_clock(make_cheap, worst, shell):
    router = make_cheap(budgets=[a_budget(2 * worst, timezone="Europe/Berlin")])
    clock = stopped_clock(router, datetime(2026, 5, 17, 21, 59, tzinfo=UTC))

    assert 2 == n_served(router, 3, shell)
    clock.now += timedelta(minutes=1)  # midnight in Berlin

    assert 2 == n_served(router, 3, shell)


def test_an_override_replaces_the_limit_until_its_date(make_cheap, worst):
    router = make_cheap(budgets=[a_budget(worst, per="total")])
    clock = stopped_clock(router, datetime(2026, 5, 17, 12, tzinfo=UTC))
    assert 1 == n_served(router, 2)
    given = Override(
        budget="room",
        limit_nusd=3 * worst,
        until=clock.now + DAY,
        who="Ada",
        why="launch",
        created_at=clock.now,
    )

    router._engine.store.set_override(given)

    (status,) = router.budgets()
    assert ("Ada", "launch", given.until) == (
        status.overridden_by,
        status.overridden_why,
        status.overridden_until,
    )
    assert [given] == router.history.budget_overrides()
    assert 2 == n_served(router, 5)
    clock.now += DAY
    assert 0 == n_served(router, 1)


def test_of_two_routers_with_different_limits_the_lower_holds(make_cheap, worst, caplog):
    first = make_cheap(budgets=[a_budget(5 * worst)])
    second = make_cheap(budgets=[a_budget(3 * worst)])

    assert "the lowest" in caplog.text
    assert [2, 1] == [n_served(first, 2), n_served(second, 3)]
    assert 0 == n_served(first, 1)
    second.close()

    assert 2 == n_served(first, 5)


def test_a_claim_ends_with_its_router_and_the_window_stays(make_cheap, worst):
    router = make_cheap(budgets=[a_budget(2 * worst, per="total")])
    assert 1 == n_served(router, 1)
    router.close()

    again = make_cheap(budgets=[a_budget(2 * worst, per="total")])

    assert 1 == n_served(again, 3)


def test_routers_without_budgets_have_no_worker(make_cheap, worst):
    router = make_cheap()
    call(router)

    router._engine._keep_books()

    with router._engine.store._database.reading() as connection:
        assert 0 == connection.exec_driver_sql("SELECT count(*) FROM workers").scalar_one()


def test_budgets_per_call_and_per_batch_bind_in_the_process(make_cheap, worst, shell):
    router = make_cheap(
        budgets=[
            a_budget(worst - 1, "each", per="call", match={"tag": "tiny"}),
            a_budget(3 * worst, "lot", per="batch"),
        ]
    )

    with pytest.raises(BudgetExceededError) as caught:
        call(router, shell, tags=["tiny"])
    batch = router.complete_batch([f"number {i:03d}" for i in range(5)], max_tokens=LIMIT)

    assert "each" == caught.value.budget
    assert {"lot"} == {one.budget for one in batch if isinstance(one, BudgetExceededError)}
    assert 3 == sum(not isinstance(one, Exception) for one in batch)
    assert 1 == n_served(router, 1, shell)
    assert [] == router.budgets()


@pytest.mark.parametrize(("tag", "n_more"), [("team", 1), ("other", 3)])
def test_a_batch_that_goes_on_counts_what_its_caps_were_spent(
    make_cheap, client, worst, tag, n_more
):
    router = make_cheap(budgets=[a_budget(3 * worst, "lot", per="batch", match={"tag": "team"})])
    texts = [f"number {i:03d}" for i in range(5)]
    each = dict.fromkeys(texts, "team") | {texts[0]: tag, texts[1]: tag}
    items = [
        {"messages": [{"role": "user", "content": text}], "tags": [each[text]]} for text in texts
    ]
    answers, down = client._scripts["cheap"], {*texts[2:]}

    def line(arguments) -> Line:
        is_down = arguments["messages"][-1]["content"] in down
        return Line(error=RuntimeError("down")) if is_down else answers(arguments)

    client._scripts["cheap"] = line
    router.complete_batch(items, batch_id="night", max_tokens=LIMIT)
    down.clear()

    batch = router.complete_batch(items, batch_id="night", max_tokens=LIMIT)

    assert 2 + n_more == sum(not isinstance(one, Exception) for one in batch)


def test_a_budget_of_a_call_may_bind_one_candidate_only(make_router, client, worst):
    budgets = [a_budget(1, per="call", match={"candidate": "middling"})]
    router = make_router(budgets=budgets)

    response = call(router)

    assert ["dear"] == [one.candidate for one in client.calls]
    assert "middling does not fit" in response._hidden_params["optllm"]["reason"]


def test_a_policy_of_a_window_is_a_cap_of_it_whatever_a_call_asks_for(make_cheap, worst, shell):
    policy = Budget(usd=2 * worst / NANO_PER_USD, per="day")
    router = make_cheap(policy=policy)

    assert 2 == n_served(router, 3, shell, policy=Cheapest())

    (status,) = router.budgets()
    assert ("policy per day", "all") == (status.name, status.scope)


def test_a_window_that_is_asked_for_binds_the_calls_that_ask_for_it(make_cheap, worst, shell):
    router = make_cheap(budgets=[a_budget(9 * worst)])
    policy = Budget(usd=2 * worst / NANO_PER_USD, per="hour")

    assert 2 == n_served(router, 3, shell, policy=policy)
    assert 3 == n_served(router, 3, shell)

    assert [2 * worst, 5 * worst] == list(spent(router).values())


def test_a_budget_with_the_name_of_the_policys_own_is_refused(make_cheap):
    with pytest.raises(ConfigError, match="the budget 'policy per day' of"):
        make_cheap(policy=Budget(usd=1, per="day"), budgets=[a_budget(1, "policy per day")])


def test_a_batch_plans_with_what_is_left_of_the_window(trained, client, worst):
    left = 20 * worst
    router = trained(policy=Budget(usd=left / NANO_PER_USD, per="day"))
    texts = [f"{'easy' if i % 2 else 'hard'} {i:05d}" for i in range(10)]
    before = router.plan(texts, max_tokens=LIMIT)

    router.complete_batch(texts, max_tokens=LIMIT)
    after = router.plan(texts, max_tokens=LIMIT)

    (status,) = router.budgets()
    assert before.expected_cost_usd <= left / NANO_PER_USD
    assert after.expected_cost_usd <= status.left_usd < left / NANO_PER_USD
    assert status.spent_usd <= status.limit_usd


def test_a_batch_that_the_window_cannot_pay_is_refused_before_it_spends(trained, client, worst):
    router = trained(policy=Budget(usd=worst / NANO_PER_USD, per="day"))

    with pytest.raises(InfeasiblePolicyError):
        router.complete_batch([f"easy {i}" for i in range(100)], max_tokens=LIMIT)

    assert [] == client.calls


def test_live_calls_stand_at_the_knee_until_the_window_can_be_paced(trained, logged):
    router = trained(policy=Budget(usd=5, per="day"))

    call(router)

    (one,) = logged(router)
    snapshot = router._engine.state.snapshot
    assert live_aim(snapshot, Knee()).price == one.decision.dual_price
    assert "budget 5.00 USD per day: too early to pace, at the knee" == one.decision.reason


def test_live_calls_get_what_is_left_of_the_window_shared_out_over_the_rest_of_it(
    trained, client, logged, worst
):
    limit = 40 * worst
    router = trained(policy=Budget(usd=limit / NANO_PER_USD, per="day"))
    stopped_clock(router, datetime(2026, 5, 17, 12, tzinfo=UTC))
    for _ in range(20):
        call(router, policy=Cheapest())  # each at its worst case

    router._engine._keep_books()
    call(router)

    decision = logged(router)[-1].decision
    each = worst / NANO_PER_USD  # 20 calls are left for the second half of the day
    policy, snapshot = router._engine.state.policy, router._engine.state.snapshot
    assert live_aim(snapshot, policy, allowance_usd=each).price == decision.dual_price
    assert f"budget {policy.usd} USD per day: {each} USD a call" == decision.reason


def test_a_window_that_is_spent_aims_at_the_cheapest(trained, worst, logged):
    router = trained(policy=Budget(usd=20 * worst / NANO_PER_USD, per="day"))
    stopped_clock(router, datetime(2026, 5, 17, 12, tzinfo=UTC))
    for _ in range(20):
        call(router, policy=Cheapest())

    router._engine._keep_books()
    with pytest.raises(BudgetExceededError):
        call(router)

    assert "cheap" == router.explain("hard question").chosen


def test_a_new_window_is_not_paced_by_what_the_last_one_had_left(trained, worst):
    router = trained(policy=Budget(usd=20 * worst / NANO_PER_USD, per="day"))
    clock = stopped_clock(router, datetime(2026, 5, 17, 12, tzinfo=UTC))
    for _ in range(20):
        call(router, policy=Cheapest())
    router._engine._keep_books()
    assert "cheap" == router.explain("hard question").chosen

    clock.now += DAY
    router._engine._keep_books()

    snapshot, policy = router._engine.state.snapshot, router._engine.state.policy
    assert live_aim(snapshot, Knee()).price == router._engine.state.aim_of(policy).price
    assert "dear" == router.explain("hard question").chosen


def test_by_default_a_call_waits_longer_for_money_than_a_dead_process_holds_it():
    assert LEASE_S + 2 * POLL_S < CallSettings().reserve_timeout_s
