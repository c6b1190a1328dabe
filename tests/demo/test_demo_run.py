"""The demo's whole loop, small: through the real Router, LiteLLM and SQLite."""

from __future__ import annotations

import csv
import gc
import warnings
from contextlib import closing
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from optllm_router.demo.providers import SIMULATED_LLMS
from optllm_router.demo.run import run_demo
from optllm_router.demo.tasks import make_queries
from optllm_router.errors import ConfigError
from optllm_router.history import History
from optllm_router.store.sql import open_store

POLICY_KEYS = [
    "policy",
    "asked",
    "n",
    "cost_usd",
    "accuracy",
    "saving",
    "saving_low",
    "saving_high",
    "baseline_cost_usd",
    "baseline_accuracy",
]


def told(db, **arguments):
    console = Console(file=StringIO(), width=120)
    with warnings.catch_warnings():
        # Threads that call a new endpoint at once make LiteLLM build one HTTP client each, of which
        # it keeps one and drops the others unclosed.
        warnings.simplefilter("ignore", ResourceWarning)
        report = run_demo(db=db, console=console, **arguments)
        gc.collect()
    return report, console.file.getvalue()


def logged(db, by: str):
    with closing(open_store(f"sqlite:///{db}")) as store:
        return {row.key: row for row in History(store).summary(by=by)}


def write_table(path, score, cost) -> None:
    """Write an outcome table; `score` and `cost` are (n_queries, n_models)."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", "task", "query", "model", "score", "cost_usd"])
        for i, (scores, costs) in enumerate(zip(score, cost, strict=True)):
            for j, (one, usd) in enumerate(zip(scores, costs, strict=True)):
                task = ("even", "odd")[i % 2]
                writer.writerow([f"q{i}", task, f"{task} question {i}", f"m{j}", one, usd])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    db = tmp_path_factory.mktemp("simulated") / "demo.db"
    return db, *told(db, limit=90, seed=3)


def test_the_report_has_exactly_the_promised_keys(simulated) -> None:
    _, report, _ = simulated
    found = report.as_json()

    assert list(found) == ["probe_cost_usd", "best_single", "cheapest", "policies"]
    assert [list(policy) for policy in found["policies"]] == [POLICY_KEYS, POLICY_KEYS]
    assert [policy["policy"] for policy in found["policies"]] == ["budget", "target_accuracy"]


def test_the_probe_and_the_two_batches_share_the_queries(simulated) -> None:
    db, report, _ = simulated
    kinds = logged(db, "kind")

    assert kinds["probe"].n_decisions == 30 * len(SIMULATED_LLMS)
    assert [policy.n for policy in report.policies] == [30, 30]
    assert kinds["route"].n_decisions == 60


def test_the_report_has_the_money_and_scores_of_the_log(simulated) -> None:
    db, report, _ = simulated
    tags = logged(db, "tag")

    assert np.isclose(logged(db, "kind")["probe"].cost_usd, report.probe_cost_usd, atol=1e-10)
    for policy in report.policies:
        row = tags[f"demo:{policy.policy}"]
        assert row.n_graded == policy.n
        assert np.isclose(row.cost_usd, policy.cost_usd, rtol=0, atol=1e-10)
        assert np.isclose(row.mean_score, policy.accuracy)


def test_the_budget_is_kept(simulated) -> None:
    budget = simulated[1].policies[0]

    assert 0 < budget.cost_usd <= budget.asked


def test_the_baseline_is_always_the_best_single_one_on_the_same_queries(simulated) -> None:
    _, report, _ = simulated
    (llm,) = (llm for llm in SIMULATED_LLMS if llm.model == report.best_single)
    queries = make_queries(seed=3)[60:90]
    target = report.policies[1]

    assert np.isclose(sum(map(llm.cost_nusd, queries)) / 1e9, target.baseline_cost_usd)
    right = [llm.answers_right(query, seed=3) for query in queries]
    assert np.isclose(np.mean(right), target.baseline_accuracy)
    assert target.saving == 1 - target.cost_usd / target.baseline_cost_usd
    assert target.saving_low <= target.saving <= target.saving_high


def test_the_story_says_that_it_is_simulated_and_draws_the_front(simulated) -> None:
    _, report, story = simulated

    assert story.startswith("SIMULATED")
    assert "without calls and without money" in " ".join(story.split())
    assert "·  the front" in story
    assert f"always the best: {report.best_single}" in story
    assert f"always the cheapest: {report.cheapest}" in story


def test_the_log_holds_a_front_and_keeps_no_text(simulated) -> None:
    db, _, _ = simulated
    with closing(open_store(f"sqlite:///{db}")) as store:
        history = History(store)

        assert len(history.fronts()) == 2
        assert {each.prompt for each in history.decisions(limit=500)} == {None}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A table where m1 is good at even and m2 at odd queries, and m0 is dear and good at both."""
    folder = tmp_path_factory.mktemp("recorded")
    rng = np.random.default_rng(5)
    even = np.arange(240) % 2 == 0
    specialists = [np.where(even, 0.97, 0.1), np.where(even, 0.1, 0.97)]
    prob = np.column_stack([np.full(240, 0.85), *specialists])
    score = (rng.random(prob.shape) < prob).astype(int)
    cost = np.round(np.array([0.01, 0.001, 0.002]) * rng.uniform(0.8, 1.2, prob.shape), 7)
    write_table(folder / "table.csv", score, cost)
    report, story = told(folder / "demo.db", outcomes=folder / "table.csv", limit=200, seed=1)
    return folder, report, story, {"score": score, "cost": cost}


def test_a_recorded_table_is_replayed_and_said_so(recorded) -> None:
    _, report, story, _ = recorded

    assert story.startswith("RECORDED: 200 queries")
    assert (report.best_single, report.cheapest) == ("m0", "m1")
    assert report.policies[0].cost_usd <= report.policies[0].asked


def test_specialists_are_found_in_a_recorded_table(recorded) -> None:
    _, report, _, _ = recorded

    for policy in report.policies:
        assert policy.saving > 0.5
        assert policy.accuracy > policy.baseline_accuracy - 0.05


def test_a_replay_is_billed_and_graded_as_recorded(recorded) -> None:
    folder, report, _, table = recorded
    row_of = {f"q{i}": i for i in range(240)}
    with closing(open_store(f"sqlite:///{folder / 'demo.db'}")) as store:
        served = History(store).decisions(tag="demo:target_accuracy", limit=500)

    assert len(served) == report.policies[1].n
    for decision in served:
        (attempt,) = decision.attempts
        row = row_of[attempt.response_id.split("-")[1]]
        column = int(decision.served[1:])
        assert np.isclose(table["cost"][row, column], decision.cost_usd, atol=1e-9)
        assert table["score"][row, column] == decision.score


def test_the_same_seed_draws_the_same_queries(recorded, tmp_path) -> None:
    folder, report, _, _ = recorded
    again, _ = told(tmp_path / "again.db", outcomes=folder / "table.csv", limit=200, seed=1)

    assert report.probe_cost_usd == again.probe_cost_usd
    assert report.policies[1].baseline_cost_usd == again.policies[1].baseline_cost_usd


def test_a_target_that_cannot_be_promised_is_said_and_lowered(tmp_path) -> None:
    score = (np.random.default_rng(7).random((240, 3)) < 0.3).astype(int)
    probed = np.random.default_rng(0).permutation(240)[:45]
    score[probed, 0] = 1  # lucky in the probe, as the first batch will show
    write_table(tmp_path / "lucky.csv", score, np.full(score.shape, 0.001) * np.arange(1, 4))
    report, story = told(tmp_path / "demo.db", outcomes=tmp_path / "lucky.csv", seed=0)

    assert any("cannot promise" in note for note in report.notes)
    assert "cannot promise" in story
    assert report.policies[1].n > 0


def test_too_few_queries_are_an_error_before_anything_is_made(tmp_path) -> None:
    with pytest.raises(ConfigError, match="at least 30"):
        run_demo(limit=10, db=tmp_path / "demo.db")
    assert not (tmp_path / "demo.db").exists()


def test_a_table_without_complete_queries_is_refused(tmp_path) -> None:
    score = np.array([[1, ""], ["", 1]] * 30, dtype=object)
    write_table(tmp_path / "holes.csv", score, np.full(score.shape, 0.001))

    with pytest.raises(ConfigError, match=r"holes\.csv"):
        run_demo(outcomes=tmp_path / "holes.csv", db=tmp_path / "demo.db")
