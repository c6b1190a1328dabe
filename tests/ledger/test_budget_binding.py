"""Which budget binds which call, and what a refusal says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from optllm_router.core.budgets import Standing, Window, window_at
from optllm_router.ledger import binding, forecast_nusd, refusal, unpriced_refusal
from optllm_router.records import BudgetLine
from optllm_router.store.shares import BudgetStatus

NOON = datetime(2026, 5, 17, 12, tzinfo=UTC)


def a_line(scope: str, value: str = "") -> BudgetLine:
    return BudgetLine(name=f"{scope} {value}", limit_nusd=1, per="day", scope=scope, value=value)


def test_a_call_is_bound_by_what_it_carries_in_the_order_given():
    everything, team, other = a_line("all"), a_line("tag", "team"), a_line("tag", "other")
    task, candidate, dear = (
        a_line("task", "x"),
        a_line("candidate", "a"),
        a_line("candidate", "b"),
    )

    found = binding(
        [everything, team, other, task, candidate, dear],
        tags=("team", "night"),
        task="x",
        candidate="a",
    )

    assert (everything, team, task, candidate) == found
    assert (everything,) == binding([everything, team, task], tags=(), task="", candidate="a")


def test_a_refusal_gives_the_value_the_rule_and_the_way_out():
    line = BudgetLine(name="team-a", limit_nusd=1, per="day")
    window = window_at(line, NOON, "")
    error = refusal(Standing("team-a", window, 10**9, 7 * 10**8, 10**8), 3 * 10**8)

    assert (
        "the budget 'team-a' of 1.00 USD has 0.20 USD left (0.70 USD spent, 0.10 USD reserved by "
        "calls under way), less than 0.30 USD, the worst case of the cheapest candidate that may "
        "serve this request; no money was spent on it. Raise the budget (`optllm budget set`), "
        "lower `max_output_tokens`, which bounds the worst case, or wait until 2026-05-18 00:00 UTC"
    ) == str(error)
    assert ("team-a", 1.0, 0.2) == (error.budget, error.limit_usd, error.left_usd)


def test_a_refusal_of_a_total_knows_no_later():
    window = Window("total", "total", "total")

    assert "wait until" not in str(refusal(Standing("all", window, 1, 1, 0), 1))


def test_a_pin_of_unknown_price_is_refused_by_name():
    error = unpriced_refusal(BudgetLine(name="all", limit_nusd=10**9, per="day"), "mine/llm")

    assert "'mine/llm' has no known token price and the hard budget 'all' of 1.00 USD" in str(error)


def test_a_forecast_carries_on_as_the_window_began():
    line = BudgetLine(name="day", limit_nusd=100, per="day")
    status = BudgetStatus(
        line=line,
        window=window_at(line, NOON, ""),
        spent_nusd=30,
        reserved_nusd=0,
        overshoot_nusd=0,
        n_calls=3,
        elapsed=0.25,
        claims_nusd=(100,),
        override=None,
    )

    assert 120 == forecast_nusd(status)
    assert forecast_nusd(replace(status, elapsed=0.0)) is None
    assert forecast_nusd(replace(status, elapsed=None)) is None
