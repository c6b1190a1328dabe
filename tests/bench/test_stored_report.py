"""What a log says of its own decisions: exact where it knows, silent where it does not."""

import csv
import json
import math
from collections import defaultdict
from contextlib import closing
from dataclasses import astuple
from decimal import Decimal
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from optllm_router import Router
from optllm_router.bench.stored import stored_report, stored_tables
from optllm_router.bench.stored.comparing import AS_CHOSEN
from optllm_router.bench.stored.reading import counted_score, pages
from optllm_router.bench.stored.resampling import mean_interval, ratio_interval
from optllm_router.demo.run import run_demo
from optllm_router.errors import ConfigError
from optllm_router.history import History
from optllm_router.records import NANO_PER_USD, Usage
from optllm_router.store.sql import open_store
from optllm_router.testing.scripted import Line, ScriptedClient
from optllm_router.testing.store_suite.entries import (
    NOON,
    SECOND,
    a_decision,
    an_attempt,
    an_outcome,
)

NAMES = ["cheap", "middling", "dear"]
COST_NUSD = {"cheap": 150_000, "middling": 450_000, "dear": 1_500_000}  # of 100 + 50 tokens
TEXTS = [f"question {i}" for i in range(6)]
GOLD = {"question 0": 1.0, "question 1": 0.0, "question 2": 0.5}


@pytest.fixture
def store(tmp_path):
    with closing(open_store(f"sqlite:///{tmp_path / 'log.db'}")) as opened:
        yield opened


def add(store, number, score=None, *, cost=30, attempt=None, **changes):
    """Write one answered decision; `attempt` changes its attempt."""
    decision = a_decision(number, **{"propensity": 1.0, **changes})
    candidate = decision.served or decision.chosen
    made = an_attempt(decision, candidate=candidate, cost_nusd=cost, **(attempt or {}))
    outcomes = [] if score is None else [an_outcome(decision, score)]
    store.record_many([(decision, [made])], outcomes)
    return decision


def fail(store, number, **changes):
    add(store, number, served=None, cost=0, attempt={"status": "error"}, **changes)


def group(report, name):
    (found,) = (each for each in report.groups if each.name == name)
    return found


def compared(report, name, candidate):
    (found,) = (
        each for each in report.comparisons if (each.group, each.candidate) == (name, candidate)
    )
    return found


# --- the demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A small recorded demo in which two candidates are good at different questions."""
    folder = tmp_path_factory.mktemp("demo")
    rng = np.random.default_rng(5)
    even = np.arange(90) % 2 == 0
    prob = np.column_stack([np.full(90, 0.9), np.where(even, 0.9, 0.2), np.where(even, 0.2, 0.9)])
    score = (rng.random(prob.shape) < prob).astype(int)
    cost = np.round(np.array([0.01, 0.001, 0.002]) * rng.uniform(0.8, 1.2, prob.shape), 9)
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", "task", "query", "model", "score", "cost_usd"])
        for i, j in np.ndindex(score.shape):
            task = ("even", "odd")[i % 2]
            cells = [f"q{i}", task, f"{task} question {i}", f"m{j}", score[i, j], cost[i, j]]
            writer.writerow(cells)
    path = folder / "demo.db"
    found = run_demo(
        outcomes=folder / "table.csv", seed=1, db=path, console=Console(file=StringIO())
    )
    with closing(open_store(f"sqlite:///{path}")) as store:
        return found, stored_report(store)


def test_the_two_served_batches_equal_the_demo_to_the_nano_usd(demo):
    told, report = demo
    batches = [each for each in report.groups if each.kind == "batch"][::-1]  # oldest first

    assert ["budget", "target"] == [batch.policy.split()[0] for batch in batches]
    for policy, batch in zip(told.policies, batches, strict=True):
        assert policy.n == batch.n_decisions == batch.n_graded == batch.n_answered
        assert round(policy.cost_usd * NANO_PER_USD) == Decimal(batch.cost_usd) * NANO_PER_USD
        assert batch.score.mean == pytest.approx(policy.accuracy, rel=1e-12)
        assert batch.score_least == batch.score_most == batch.score.mean
        assert batch.score.low < batch.score.mean < batch.score.high


def test_savings_of_the_demo_batches_are_not_estimated_from_the_log(demo):
    _, report = demo
    batches = {each.name for each in report.groups if each.kind == "batch"}
    found = [each for each in report.comparisons if each.group in batches]

    assert 2 * 3 == len(found)
    for each in found:
        assert not each.is_supported
        assert "nothing else was tried (propensity 1)" == each.reason
        assert None is each.saving is each.score is each.cost_usd is each.difference
        assert each.n_known < each.n_queries
    titles = [table.title for table in stored_tables(report)]
    assert not any("Against always" in title for title in titles)
    assert any("not support" in title for title in titles)


def test_the_probe_of_the_demo_compares_all_candidates_on_its_queries(demo):
    told, report = demo
    found = {each.candidate: each for each in report.full_information}

    assert {"m0", "m1", "m2"} == set(found)
    assert {30} == {each.n_common for each in found.values()}
    assert told.best_single == max(found, key=lambda name: found[name].common_score.mean)
    assert told.cheapest == min(found, key=lambda name: found[name].common_cost_usd)
    total = sum(Decimal(each.cost_usd) for each in found.values())
    assert round(told.probe_cost_usd * NANO_PER_USD) == total * NANO_PER_USD


def test_expectations_of_the_demo_batches_stand_beside_what_came(demo):
    _, report = demo
    assert 2 == len(report.forecasts)
    for each in report.forecasts:
        batch = group(report, each.group)
        assert (batch.n_graded, batch.n_answered) == (each.n_scored, each.n_costed)
        assert batch.cost_usd == each.actual_usd
        assert each.difference.mean == pytest.approx(each.graded_score - each.expected_score)
        assert each.cost_error == float(Decimal(each.actual_usd) / Decimal(each.expected_usd)) - 1


# --- a real router


@pytest.fixture
def routed(tmp_path):
    """A router that has probed the texts and learned nothing, so that the default answers."""
    usage = Usage(prompt_tokens=100, completion_tokens=50)

    def line(name):
        def play(arguments):
            text = arguments["messages"][-1]["content"]
            if text == "fail":
                return Line(error=RuntimeError("scripted"))
            return Line(text=f"{name}: {text}", usage=usage)

        return play

    client = ScriptedClient(
        {name: line(name) for name in NAMES} | {"other": Line()},
        prices={"cheap": (1, 1), "middling": (3, 3), "dear": (10, 10)},
    )
    url = f"sqlite:///{tmp_path / 'log.db'}"
    with Router(
        NAMES, default="middling", store=url, client=client, retrain={"enabled": False}
    ) as router:
        router.probe(TEXTS, grader=lambda text, _reference: SCORES[text])
        yield router


SCORES = {f"{name}: {text}": (7 * i + j) % 5 / 4 for j, name in enumerate(NAMES)
          for i, text in enumerate(TEXTS)}  # fmt: skip


def serve(router, texts):
    for text, answer in zip(
        texts, router.complete_batch(texts, return_exceptions=True), strict=True
    ):
        if not isinstance(answer, BaseException):
            router.feedback(answer, SCORES.get(f"middling: {text}", 0.0))
    router.flush()
    return stored_report(router._engine.store)


def test_a_batch_of_probed_queries_is_compared_exactly(routed):
    report = serve(routed, TEXTS)
    batch = report.groups[0]

    assert ("batch", 6, 6, 0) == (batch.kind, batch.n_decisions, batch.n_graded, batch.n_failed)
    own = np.mean([SCORES[f"middling: {text}"] for text in TEXTS])
    for name in NAMES:
        found = compared(report, batch.name, name)
        score = np.mean([SCORES[f"{name}: {text}"] for text in TEXTS])
        assert found.is_supported
        assert (6, 6, 6) == (found.n_queries, found.n_known, found.n_paired)
        assert Decimal(6 * COST_NUSD[name]).scaleb(-9) == Decimal(found.cost_usd)
        assert found.score.mean == pytest.approx(score)
        assert found.difference.mean == pytest.approx(own - score)
        assert found.saving.mean == pytest.approx(1 - COST_NUSD["middling"] / COST_NUSD[name])
    assert {"0.002700000"} == {batch.cost_usd, compared(report, batch.name, "middling").cost_usd}


def test_one_query_that_was_not_probed_takes_the_comparison_away(routed):
    report = serve(routed, [*TEXTS, "another"])
    batch = report.groups[0]

    always_served = compared(report, batch.name, "middling")
    assert (True, 7) == (always_served.is_supported, always_served.n_known)
    assert 0.0 == always_served.saving.mean == always_served.difference.mean
    for name in ("cheap", "dear"):
        found = compared(report, batch.name, name)
        assert (False, 6, 7) == (found.is_supported, found.n_known, found.n_queries)


def test_failures_pins_and_unknown_prices_are_counted_apart(routed):
    report = serve(routed, ["question 0", "fail"])
    routed.complete(messages=[{"role": "user", "content": "x"}], model="other")
    routed.complete(messages=[{"role": "user", "content": "x"}])
    report = stored_report(routed._engine.store)
    batch, pins = report.groups[0], group(report, "pins")
    (live,) = (each for each in report.groups if each.kind == "live")

    assert (2, 1, 1, 1, 0.5) == (
        batch.n_decisions,
        batch.n_answered,
        batch.n_failed,
        batch.n_graded,
        batch.coverage,
    )
    assert (batch.score_least, batch.score_most) == (batch.score.mean / 2, batch.score.mean / 2)
    assert (1, "0.000000000", 1) == (pins.n_answered, pins.cost_usd, pins.n_unpriced)
    assert (1, 0, 0.0, None) == (live.n_decisions, live.n_graded, live.coverage, live.score)
    assert (0.0, 1.0) == (live.score_least, live.score_most)
    assert "0.000450000" == live.cost_usd
    assert "the default" not in live.policy
    assert 18 == group(report, "probes").n_graded


# --- logs made of entries


def test_an_empty_log_is_an_error_with_the_way_out(store):
    with pytest.raises(ConfigError, match=r"no decision yet.*`optllm probe`.*`optllm import`"):
        stored_report(store)


def test_a_log_without_grades_says_so_and_gives_no_scores(store):
    add(store, 1)
    report = stored_report(store)

    assert report.notes[0].startswith("No decision is graded")
    assert None is report.groups[0].score
    assert all(not each.is_supported for each in report.comparisons)
    assert ["What was asked", "Comparisons that"] == [
        " ".join(table.title.split()[:2]) if i else "What was asked"
        for i, table in enumerate(stored_tables(report))
    ]


def test_groups_are_batches_live_policies_and_kinds(store):
    add(store, 1, 1.0, kind="probe", policy="probe", batch_id="p")
    add(store, 2, 1.0, kind="import", policy="import")
    add(store, 3, 1.0, kind="shadow")
    add(store, 4, 1.0, kind="pin", policy="pin")
    add(store, 5, 1.0, policy="knee")
    add(store, 6, 0.0, policy="cheapest")
    add(store, 7, 0.0, policy="knee")
    add(store, 8, batch_id="b", policy="budget")
    add(store, 9, batch_id="b", kind="pin", policy="pin")
    add(store, 10, batch_id="b", policy="budget")
    report = stored_report(store)

    assert [
        ("batch b", 3),
        ("live calls: knee", 2),
        ("live calls: cheapest", 1),
        ("pins", 1),
        ("shadow calls", 1),
        ("imported rows", 1),
        ("probes", 1),
    ] == [(each.name, each.n_decisions) for each in report.groups]
    assert "budget; pin" == report.groups[0].policy
    assert (NOON + 8 * SECOND, NOON + 10 * SECOND) == (
        report.groups[0].first_at,
        report.groups[0].last_at,
    )


def test_money_is_exact_beyond_what_floats_hold(store):
    decision = a_decision(1, batch_id="b")
    costs = [(2**53 + 1, False), (None, False), (1, True), (0, False)]
    attempts = [
        an_attempt(decision, number, cost_nusd=cost, estimated=estimated)
        for number, (cost, estimated) in enumerate(costs)
    ]
    store.record(decision, attempts)
    batch = stored_report(store).groups[0]

    assert (2**53 + 2) == Decimal(batch.cost_usd) * NANO_PER_USD
    assert (4, 1, "0.000000001", 1) == (
        batch.n_attempts,
        batch.n_estimated,
        batch.estimated_usd,
        batch.n_unpriced,
    )


def test_open_and_abandoned_attempts_are_told_from_failures(store):
    add(store, 1, batch_id="b", attempt={"status": "open"}, served=None)
    add(store, 2, batch_id="b", attempt={"status": "abandoned"})
    add(store, 3, batch_id="b", attempt={"status": "abandoned", "completion_tokens": None})
    store.record(a_decision(4, batch_id="b", served=None), [])
    batch = stored_report(store).groups[0]

    assert (1, 1, 2) == (batch.n_answered, batch.n_failed, batch.n_unfinished)


def test_what_is_ungraded_leaves_the_mean_open_and_failures_do_not(store):
    add(store, 1, 1.0, batch_id="b")
    add(store, 2, 0.5, batch_id="b")
    add(store, 3, batch_id="b")
    fail(store, 4, batch_id="b")
    batch = stored_report(store).groups[0]

    assert (0.75, 0.5) == (batch.score.mean, batch.coverage)
    assert (1.5 / 4, 2.5 / 4) == (batch.score_least, batch.score_most)


def test_feedback_counts_before_graders_as_in_the_history(store):
    decision = add(store, 1, 0.0, batch_id="b")
    later = [
        an_outcome(decision, 1.0, source="feedback"),
        an_outcome(decision, 0.25, source="late", created_at=NOON + 99 * SECOND),
    ]
    store.add_outcomes(later)

    (logged,) = store.decisions()
    assert 1.0 == counted_score(logged.outcomes) == History(store).decisions()[0].score
    assert 1.0 == stored_report(store).groups[0].score.mean
    graders = tuple(one for one in logged.outcomes if one.source != "feedback")
    assert (2, 0.25) == (len(graders), counted_score(graders))


def test_unknown_texts_and_unpriced_probes_support_no_claim(store):
    for number, name in enumerate(("small", "large"), start=1):
        add(store, number, 1.0, kind="probe", text_key="t", chosen=name, served=name,
            cost=None if name == "large" else 7)  # fmt: skip
    add(store, 3, 0.0, text_key="t", batch_id="known", cost=10)
    add(store, 4, 0.0, text_key=None, features=None, batch_id="hidden")
    report = stored_report(store)

    large = compared(report, "batch known", "large")
    assert (True, None, None, -1.0) == (
        large.is_supported,
        large.cost_usd,
        large.saving,
        large.difference.mean,
    )
    small = compared(report, "batch known", "small")  # its own answer, not the probe's
    assert ("0.000000010", 0.0, 0.0) == (small.cost_usd, small.score.mean, small.saving.mean)
    hidden = compared(report, "batch hidden", "large")
    assert "without text keys" in hidden.reason
    assert [None, 7e-9] == sorted(
        (each.common_cost_usd for each in report.full_information), key=lambda cost: cost or 0
    )


def test_choices_drawn_by_chance_are_named_and_not_estimated_from(store):
    add(store, 1, 1.0, batch_id="b", propensity=0.5)
    add(store, 2, 1.0, batch_id="b", propensity=1.0, served="large", chosen="large")

    found = compared(stored_report(store), "batch b", "small")
    assert not found.is_supported
    assert found.reason.startswith("1 of 2 choices were drawn by chance")


def test_a_shadow_is_compared_with_what_was_chosen_and_not_held_to_its_forecast(store):
    expected = {"expected_accuracy": 0.9, "expected_cost_nusd": 10}
    for number, (score, cost) in enumerate([(1.0, 5), (0.0, 7)], start=1):
        key = {"text_key": f"t{number}"}
        add(store, number, score, kind="probe", chosen="small", cost=cost, **key)
        add(store, number + 10, 1.0, kind="shadow", chosen="small", served="large", cost=40,
            propensity=None, **key, **expected)  # fmt: skip
    report = stored_report(store)

    found = compared(report, "shadow calls", AS_CHOSEN)
    assert (True, "0.000000012", 0.5) == (found.is_supported, found.cost_usd, found.score.mean)
    assert found.saving.mean == pytest.approx(1 - 80 / 12)
    assert () == report.forecasts


def test_forecasts_leave_out_what_was_no_bill(store):
    expected = {"batch_id": "b", "expected_accuracy": 0.5, "expected_cost_nusd": 100}
    add(store, 1, 1.0, cost=120, **expected)
    add(store, 2, 0.0, cost=100, attempt={"estimated": True}, **expected)
    add(store, 3, 1.0, cost=0, attempt={"cache_hit": True}, **expected)
    add(store, 4, 1.0, cost=None, **expected)
    fail(store, 5, **expected)
    add(store, 6, 1.0, cost=9, batch_id="b")
    (found,) = stored_report(store).forecasts

    assert (4, 0.5, 0.75, 0.25) == (
        found.n_scored,
        found.expected_score,
        found.graded_score,
        found.difference.mean,
    )
    assert (1, "0.000000100", "0.000000120") == (
        found.n_costed,
        found.expected_usd,
        found.actual_usd,
    )
    assert found.cost_error == pytest.approx(0.2)


@pytest.mark.parametrize("page", [1, 2, 3, 7, 1000])
def test_every_decision_is_read_once_whatever_shares_its_moment(store, page):
    moments = [1, 1, 1, 2, 3, 3, 3, 3, 3, 4, 5, 5]
    entries = [
        (a_decision(i, created_at=NOON + moment * SECOND), []) for i, moment in enumerate(moments)
    ]
    store.record_many(entries)

    read = [one.decision.id for some in pages(store, page) for one in some]
    assert [one.decision.id for one in store.decisions(limit=1000)] == read


def random_log(store, rng):
    """Probes of some texts, and batches of these and others, with gaps of every kind."""
    names, number = ["a", "b", "c"], 0
    entries, outcomes = [], []
    for kind, n in (("probe", 25), ("import", 10), ("batch", 30), ("batch", 3)):
        for _ in range(n):
            number += 1
            name = names[rng.integers(3)]
            text = None if rng.random() < 0.05 else f"t{rng.integers(5)}"
            decision = a_decision(
                number, kind="route" if kind == "batch" else kind, chosen=name, served=name,
                text_key=text, features=None, batch_id=f"b{rng.integers(6)}", propensity=1.0,
            )  # fmt: skip
            cost = None if rng.random() < 0.02 else int(rng.integers(1, 10**9))
            entries.append((decision, [an_attempt(decision, candidate=name, cost_nusd=cost)]))
            if rng.random() < 0.95:
                outcomes.append(an_outcome(decision, float(rng.integers(5) / 4)))
    store.record_many(entries, outcomes)


@pytest.mark.parametrize("seed", range(4))
def test_comparisons_agree_with_a_loop_over_the_whole_log(store, seed):
    random_log(store, np.random.default_rng(seed))
    logged = store.decisions(limit=1000)
    report = stored_report(store)

    answers, batches = defaultdict(list), defaultdict(list)
    for one in logged:
        decision, cost = one.decision, one.attempts[0].cost_nusd
        answer = (decision, one.outcomes[0].score if one.outcomes else None, cost)
        if decision.kind == "route":
            batches[f"batch {decision.batch_id}"].append(answer)
        elif answer[1] is not None and decision.text_key is not None:
            answers[decision.text_key, decision.served].append(answer[1:])
    assert {each.name for each in report.groups if each.kind == "batch"} == set(batches)
    for found in report.comparisons:
        rows = []
        for decision, score, cost in batches[found.group]:
            is_own = decision.served == found.candidate and score is not None
            rows.append([(score, cost)] if is_own else answers[decision.text_key, found.candidate])
        assert sum(map(bool, rows)) == found.n_known
        assert all(rows) == found.is_supported
        if not found.is_supported:
            continue
        means = [np.mean([score for score, _ in row]) for row in rows]
        assert found.score.mean == pytest.approx(np.mean(means))
        costs = [[cost for _, cost in row] for row in rows]
        if any(None in row for row in costs):
            assert None is found.cost_usd
        else:
            total = sum(map(np.mean, costs))
            assert float(found.cost_usd) * 1e9 == pytest.approx(total, abs=0.51)
    assert any(each.is_supported for each in report.comparisons)
    assert not all(each.is_supported for each in report.comparisons)


def test_candidates_are_compared_on_the_texts_that_all_were_asked(store):
    asked = {"a": {"t1": [(1.0, 10), (0.0, 30)], "t2": [(1.0, 50)], "t3": [(0.0, 7)]},
             "b": {"t1": [(1.0, 100)], "t2": [(0.0, 200)]}}  # fmt: skip
    number = 0
    for name, texts in asked.items():
        for text, answers in texts.items():
            for score, cost in answers:
                number += 1
                add(store, number, score, kind="probe", chosen=name, served=name, text_key=text,
                    cost=cost)  # fmt: skip
    first, second = stored_report(store).full_information

    assert (4, 4, 0.5, "0.000000097") == (
        first.n_calls,
        first.n_graded,
        first.score.mean,
        first.cost_usd,
    )
    assert (2, 0.75, 35e-9) == (first.n_common, first.common_score.mean, first.common_cost_usd)
    assert (2, 0.5, 150e-9) == (second.n_common, second.common_score.mean, second.common_cost_usd)


def test_the_report_is_plain_json_and_its_tables_are_square(demo):
    _, report = demo
    as_json = json.loads(json.dumps(report.to_dict(), allow_nan=False))

    assert report.groups[0].cost_usd == as_json["groups"][0]["cost_usd"]
    assert report.groups[0].first_at.isoformat() == as_json["groups"][0]["first_at"]
    for table in stored_tables(report):
        assert {len(table.header)} == {len(row) for row in table.rows}
        assert all(isinstance(cell, str) for row in table.rows for cell in row)


def test_a_table_says_not_supported_with_reason_counts_and_way_out(store):
    add(store, 1, 1.0, batch_id="b", allowed=("small", "large"))
    table = stored_tables(stored_report(store))[3]

    assert (
        ("batch b", "large (0)", "not supported: nothing else was tried (propensity 1)", "1"),
    ) == table.rows
    assert "optllm probe" in table.note
    assert "shadow mode" in table.note


def test_many_groups_are_shown_in_part_and_said_so(store):
    store.record_many([(a_decision(i, batch_id=f"b{i}"), []) for i in range(50)])
    report = stored_report(store)
    money = stored_tables(report)[0]

    assert (50, 40) == (len(report.groups), len(money.rows))
    assert "10 further groups" in money.note


# --- intervals


def test_copies_of_a_text_make_an_interval_no_narrower():
    rng = np.random.default_rng(0)
    text, values = np.arange(30), rng.random(30)

    once = mean_interval(text, values)
    copied = mean_interval(np.repeat(text, 50), np.repeat(values, 50))
    assert astuple(once) == pytest.approx(astuple(copied))


def test_intervals_of_one_and_two_texts_are_what_can_be_known():
    two = mean_interval(np.array([3, 9]), np.array([0.0, 1.0]))
    one = mean_interval(np.array([3, 3]), np.array([0.0, 1.0]))

    assert (0.5, 0.0, 1.0) == (two.mean, two.low, two.high)
    assert one.mean == 0.5
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert None is mean_interval(np.array([], np.int64), np.array([]))


def test_an_interval_of_a_mean_is_near_the_normal_one():
    values = np.random.default_rng(1).random(400)
    found = mean_interval(np.arange(400), values)
    half = 1.96 * values.std() / 20

    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert (found.high + found.low) / 2 == pytest.approx(values.mean(), abs=half / 10)


def test_a_ratio_of_proportional_sums_has_no_spread():
    bottom = np.random.default_rng(2).random(50)
    found = ratio_interval(np.arange(50), 3 * bottom, bottom)

    assert [3.0] * 3 == pytest.approx([found.mean, found.low, found.high])
