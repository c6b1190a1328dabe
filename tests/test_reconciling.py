"""A bill beside the log: exact, per candidate or model and day, with clear mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from optllm_router.errors import ConfigError
from optllm_router.history import History
from optllm_router.store.sql import open_store
from optllm_router.testing.store_suite import a_decision, an_attempt

MODELS = {"fast": "openai/gpt-4o-mini", "slow": "openai/gpt-4o", "slow-eu": "openai/gpt-4o"}


@pytest.fixture
def store():
    store = open_store("sqlite://")
    yield store
    store.close()


@pytest.fixture
def spend(store):
    numbers = iter(range(1000))

    def write(candidate, day, cost_nusd, *, estimated=False):
        decision = a_decision(next(numbers))
        at = datetime(2026, 11, day, 12, tzinfo=UTC)
        attempt = an_attempt(decision, candidate=candidate, started_at=at, estimated=estimated)
        store.record(decision, [replace(attempt, cost_nusd=cost_nusd)])

    return write


@pytest.fixture
def bill(tmp_path):
    def write(text, name="bill.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_rows_are_compared_to_the_last_decimal(store, spend, bill):
    spend("fast", 1, 100_000_001)
    spend("fast", 1, 200_000_001, estimated=True)
    spend("slow", 2, 5)
    path = bill(
        "candidate,day,cost_usd,n_calls,tokens\n"
        "fast,2026-11-01,0.1,1,30\n"
        "fast, 2026-11-01, 0.2000000015,,30\n"
        "other,2026-11-02,1e-3,7,\n"
    )

    report = History(store).reconcile(path)

    both, theirs, ours = report.rows
    assert ("fast", date(2026, 11, 1)) == (both.name, both.day)
    assert (Decimal("0.300000002"), Decimal("0.3000000015")) == (both.ours_usd, both.bill_usd)
    assert Decimal("0.0000000005") == both.difference_usd
    assert 200_000_001 / 300_000_002 == both.estimated_share
    assert (2, 1, 60, 60) == (both.n_calls, both.n_calls_billed, both.tokens, both.tokens_billed)
    assert ("other", None, Decimal("0.001"), 7, None) == (
        theirs.name,
        theirs.ours_usd,
        theirs.bill_usd,
        theirs.n_calls_billed,
        theirs.tokens_billed,
    )
    assert ("slow", Decimal("5e-9"), None) == (ours.name, ours.ours_usd, ours.bill_usd)
    assert (Decimal("0.300000007"), Decimal("0.3010000015")) == (report.ours_usd, report.bill_usd)
    assert Decimal("-0.0009999945") == report.difference_usd
    assert (both, theirs, ours) == report.beyond
    assert "0.0000000005" == json.loads(json.dumps(report.to_dict()))["rows"][0]["difference_usd"]


def test_only_the_days_of_the_bill_are_compared(store, spend, bill):
    for day in (1, 2, 3, 4):
        spend("fast", day, 10**9)
    path = bill("candidate,day,cost_usd\nfast,2026-11-02,1\nfast,2026-11-03,1.00\n")

    report = History(store).reconcile(path)

    assert [2, 3] == [row.day.day for row in report.rows]
    assert (date(2026, 11, 2), date(2026, 11, 3), ()) == (report.first, report.last, report.beyond)


@pytest.mark.parametrize(
    ("tolerance", "n_beyond"), [("0", 2), ("0.01", 1), ("0.02", 0), ("1%", 1), (" 2 % ", 0)]
)
def test_a_tolerance_is_an_amount_or_a_share_of_the_larger_side(
    store, spend, bill, tolerance, n_beyond
):
    spend("fast", 1, 1_010_000_000)
    spend("fast", 2, 980_000_000)
    path = bill("candidate,day,cost_usd\nfast,2026-11-01,1\nfast,2026-11-02,1\n")

    assert n_beyond == len(History(store).reconcile(path, tolerance=tolerance).beyond)


@pytest.mark.parametrize("tolerance", ["", "two", "-1", "nan", "1%%", "0.1 USD"])
def test_a_tolerance_that_is_none_is_refused(store, bill, tolerance):
    path = bill("candidate,day,cost_usd\nfast,2026-11-01,1\n")

    with pytest.raises(ConfigError, match="is neither an amount in USD"):
        History(store).reconcile(path, tolerance=tolerance)


def test_a_bill_by_model_adds_up_the_candidates_of_a_model(store, spend, bill):
    spend("slow", 1, 10**9)
    spend("slow-eu", 1, 10**9)
    spend("fast", 1, 10**9)
    path = bill("model,day,cost_usd\ngpt-4o,2026-11-01,2\nopenai/gpt-4o-mini,2026-11-01,1\n")

    report = History(store, MODELS).reconcile(path)

    assert ["openai/gpt-4o", "openai/gpt-4o-mini"] == [row.name for row in report.rows]
    assert () == report.beyond


def test_a_model_of_two_providers_has_to_say_which(store, bill):
    path = bill("model,day,cost_usd\nother,2026-11-01,2\ngpt-4o,2026-11-01,2\n")

    with pytest.raises(ConfigError, match="line 3: the model 'gpt-4o' is 'azure/gpt-4o' or '"):
        History(store, {**MODELS, "azure": "azure/gpt-4o"}).reconcile(path)


def test_one_providers_bill_is_compared_with_its_candidates_only(store, spend, bill):
    spend("fast", 1, 10**9)
    spend("elsewhere", 1, 10**9)
    path = bill("candidate,day,cost_usd\nfast,2026-11-01,1\n")

    assert () == History(store).reconcile(path, only=["fast"]).beyond
    with pytest.raises(ConfigError, match="'fats' is neither on the bill nor in the log of its"):
        History(store).reconcile(path, only=["fats"])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (",2026-11-01,1", "`candidate=''` is not a name"),
        ("fast,01.11.2026,1", "`day='01.11.2026'` is not a day such as 2026-01-31"),
        ("fast,2026-02-30,1", "`day='2026-02-30'` is not a day"),
        ("fast,20261101,1", "`day='20261101'` is not a day"),
        ("fast,2026-11-01,$1", "`cost_usd='$1'` is not an amount in USD, a plain decimal"),
        ('fast,2026-11-01,"1,000"', "`cost_usd='1,000'` is not an amount"),
        ("fast,2026-11-01,nan", "`cost_usd='nan'` is not an amount"),
        ("fast,2026-11-01,", "`cost_usd=''` is not an amount"),
        ("fast,2026-11-01,٣", "`cost_usd='٣'` is not an amount"),
    ],
)
def test_a_mistake_is_named_with_its_line_value_and_rule(store, bill, line, says):
    path = bill(f"candidate,day,cost_usd\nfast,2026-11-01,1\n{line}\n")

    with pytest.raises(ConfigError) as caught:
        History(store).reconcile(path)

    assert str(caught.value).startswith(f"'{path}' line 3: {says}")


def test_a_count_that_is_none_is_a_mistake(store, bill):
    path = bill("candidate,day,cost_usd,n_calls,tokens\nfast,2026-11-01,1,1.5,-3\n")

    with pytest.raises(ConfigError) as caught:
        History(store).reconcile(path)

    assert [
        f"'{path}' line 2: `n_calls='1.5'` is not a whole number of at least 0",
        f"'{path}' line 2: `tokens='-3'` is not a whole number of at least 0",
    ] == str(caught.value).splitlines()


def test_many_mistakes_are_listed_up_to_ten(store, bill):
    path = bill("candidate,day,cost_usd\n" + "fast,today,1\n" * 15)

    with pytest.raises(ConfigError) as caught:
        History(store).reconcile(path)

    lines = str(caught.value).splitlines()
    assert (11, "and 5 more mistakes") == (len(lines), lines[-1])


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("name,day,cost_usd", "line 1: a bill has the column `candidate`"),
        ("candidate,model,day,cost_usd", "line 1: a bill has one of the columns `candidate`"),
        ("candidate,date,cost_usd", "line 1: the column `day` is missing; the header has"),
        ("model,day,cost", "line 1: the column `cost_usd` is missing"),
    ],
)
def test_a_missing_column_is_named(store, bill, header, says):
    path = bill(f"{header}\n{','.join('x' for _ in header.split(','))}\n")

    with pytest.raises(ConfigError, match=says):
        History(store).reconcile(path)


def test_a_bill_that_is_no_csv_file_is_refused(store, bill, tmp_path):
    with pytest.raises(ConfigError, match="a bill is read from CSV"):
        History(store).reconcile(bill("{}", "bill.jsonl"))
    with pytest.raises(ConfigError, match="there is no file"):
        History(store).reconcile(tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match="has no rows"):
        History(store).reconcile(bill("candidate,day,cost_usd\n"))
    with pytest.raises(ConfigError, match="is a folder"):
        History(store).reconcile(tmp_path)
