"""`optllm budget`: what is left, and other limits for a while."""

from __future__ import annotations

import getpass

import pytest

from optllm_router import Budget, Router
from optllm_router.testing.scripted import Line, ScriptedClient

NO_END = "2099-01-01"


@pytest.fixture
def spent(tmp_path, monkeypatch) -> str:
    """A log in which 0.0125 USD of two budgets are spent; return its file."""
    monkeypatch.chdir(tmp_path)
    client = ScriptedClient({"m": Line(cost_nusd=12_500_000)}, prices={"m": (5, 5)})
    team = {"name": "team-a", "usd": 1, "per": "total", "match": {"tag": "a"}, "at_cap": "refuse"}
    policy = Budget(usd=0.05, per="month")
    with Router(["m"], store="sqlite:///log.db", client=client, policy=policy, budgets=[team]) as r:
        r.complete(messages=[{"role": "user", "content": "how many?"}], tags=["a"])
    return "log.db"


def test_it_shows_what_is_spent_and_left_and_where_it_is_heading(as_json, optllm, spent):
    month, team = as_json("budget", "--db", spent)

    assert ("policy per month", "month", 1) == (month["name"], month["per"], month["n_calls"])
    assert (0.05, 0.0125, 0.0, 0.0375) == tuple(
        month[key] for key in ("limit_usd", "spent_usd", "reserved_usd", "left_usd")
    )
    assert month["forecast_usd"] >= 0.0125
    assert month["ends_at"].endswith("+00:00")
    assert ("tag", "a", "refuse", None) == (
        team["scope"],
        team["value"],
        team["at_cap"],
        team["forecast_usd"],
    )
    lines = optllm("budget", "--db", spent).stdout.splitlines()
    (row,) = [line.split() for line in lines if "team-a" in line]
    assert ["team-a", "tag", "a", "total", "$1.00", "$0.0125", "$0", "$0.988", "-", "1"] == row


def test_another_limit_holds_until_a_date_and_says_who_and_why(as_json, optllm, spent):
    given = ("--until", NO_END, "--why", "the launch")

    set_here = as_json("budget", "set", "team-a", "2.5", *given, "--who", "Ada", "--db", spent)

    assert (2.5, 2.4875, "Ada", "the launch") == tuple(
        set_here[key] for key in ("limit_usd", "left_usd", "overridden_by", "overridden_why")
    )
    assert set_here == as_json("budget", "--db", spent)[1]
    assert "team-a: Ada set $2.50 until 2099-01-01 " in optllm("budget", "--db", spent).stdout
    shown = as_json("budget", "set", "team-a", "0", *given, "--db", spent)
    assert (0.0, getpass.getuser()) == (shown["limit_usd"], shown["overridden_by"])


@pytest.mark.parametrize("limit", ["much", "-1", "nan", "inf", "1e10"])
def test_what_is_no_limit_ends_with_2(optllm, spent, limit):
    given = ("--until", NO_END, "--why", "x", "--db", spent)

    result = optllm("budget", "set", *given, "--", "team-a", limit, code=2)

    assert "is no limit: write an amount in USD from 0 to 1,000,000,000" in result.stderr


def test_an_unknown_budget_and_a_date_that_has_passed_end_with_2(optllm, spent):
    given = ("--why", "x", "--db", spent)

    unknown = optllm("budget", "set", "nobody", "1", "--until", NO_END, *given, code=2)
    late = optllm("budget", "set", "team-a", "1", "--until", "2020-01-01", *given, code=2)

    assert "there is no budget 'nobody' in the log" in unknown.stderr
    assert "has passed" in late.stderr


def test_without_budgets_it_says_how_there_are_some(optllm, as_json, learned):
    result = optllm("budget")

    assert "" == result.stdout
    assert "there are no shared budgets: [[budgets]] in the settings" in result.stderr
    assert [] == as_json("budget")
