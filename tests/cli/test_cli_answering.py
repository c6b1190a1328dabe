"""`optllm run`, `plan` and `explain`."""

from __future__ import annotations

import json
import os
import signal

import pytest

from optllm_router.testing.openai_server import FakeOpenAIServer, Reply


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_writes_a_line_per_query_in_order(as_json, learned, write_queries):
    file = write_queries(learned / "ask.jsonl", 6)

    values = as_json("run", file, "--out", "answers.jsonl", "--policy", "most_accurate")

    lines = read_lines(learned / "answers.jsonl")
    assert list(range(6)) == [line["index"] for line in lines]
    assert ["0", "8", "14", "10", "28", "12"] == [line["text"] for line in lines]
    assert ["good"] * 3 == [line["candidate"] for line in lines[::2]]
    costs = {"weak": 15e-6, "good": 150e-6}
    assert [costs[line["candidate"]] for line in lines] == [line["cost_usd"] for line in lines]
    assert [1.0] * 6 == [line["score"] for line in lines]
    assert "answers.jsonl" == values["out"]
    assert (6, 6, 0, 1.0) == tuple(
        values[name] for name in ("n_queries", "n_answered", "n_failed", "mean_score")
    )
    assert sum(line["cost_usd"] for line in lines) == values["cost_usd"]
    served = as_json("history", "--decision", lines[0]["decision_id"])["served"]
    assert "good" == served


def test_the_answers_of_a_run_with_scores_are_feedback(as_json, learned, write_queries):
    as_json("run", write_queries(learned / "ask.jsonl", ["hello", "crash"]), "--out", "a.jsonl")
    lines = read_lines(learned / "a.jsonl")
    assert [None, None] == [line.get("score") for line in lines]

    write_queries(learned / "scored.jsonl", [lines[0] | {"score": 0.5}, lines[1]])

    assert {"n_given": 1, "n_changed": 1} == as_json("feedback", "--file", "scored.jsonl")


def test_a_run_without_out_puts_the_answers_on_standard_output(optllm, learned, write_queries):
    result = optllm("run", write_queries(learned / "ask.jsonl", 2), "--policy", "most_accurate")

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert ["0", "8"] == [line["text"] for line in lines]
    assert "2 of 2 queries answered for $0.000" in result.stderr


def test_a_run_shows_its_summary_as_a_table(optllm, learned, write_queries):
    file = write_queries(learned / "ask.jsonl", 4)

    result = optllm("run", file, "--policy", "cheapest", "--out", "a.jsonl")

    assert ["weak", "4", "$0.0000600", "4", "0.500"] in [
        line.split() for line in result.stdout.splitlines()
    ]
    assert "4 of 4 queries answered for $0.0000600; the answers are in a.jsonl" in result.stdout
    assert "4 answered: cheapest" in result.stderr


def test_failures_stand_in_their_place_without_keys(optllm, learned, write_queries):
    file = write_queries(learned / "ask.jsonl", ["hello", "crash"])

    result = optllm("run", file, "--out", "a.jsonl")

    answer, failure = read_lines(learned / "a.jsonl")
    assert "hello" == answer["text"]
    assert (1, "BadRequestError", 0.0) == tuple(
        failure[name] for name in ("index", "error_class", "cost_usd")
    )
    assert "sk-abc" not in failure["error"]
    assert "1 failed: BadRequestError, first at query 1: " in result.stderr
    assert "sk-abc" not in result.stderr


def test_only_a_run_whose_queries_all_failed_ends_with_1(as_json, learned, write_queries):
    file = write_queries(learned / "ask.jsonl", ["crash", "crash"])

    values = as_json("run", file, code=1)

    assert (0, 2, {"BadRequestError": 2}) == (
        values["n_answered"],
        values["n_failed"],
        values["errors"],
    )


def test_a_run_keeps_its_budget(as_json, learned, write_queries):
    values = as_json("run", write_queries(learned / "ask.jsonl", 10), "--budget", "0.006")

    assert 10 == values["n_answered"]
    assert values["cost_usd"] <= 0.006


def test_a_budget_below_the_cheapest_ends_with_1_and_spends_nothing(
    optllm, learned, server, write_queries
):
    file = write_queries(learned / "ask.jsonl", 4)
    before = len(server.requests)

    result = optllm("run", file, "--budget", "0.000001", "--out", "a.jsonl", code=1)

    assert result.stderr.startswith("error: a budget of ")
    assert "the cost of sending every query to its cheapest" in result.stderr
    assert before == len(server.requests)
    assert not (learned / "a.jsonl").exists()


def test_a_run_leaves_earlier_answers_alone_unless_forced(optllm, learned, server, write_queries):
    file = write_queries(learned / "ask.jsonl", 1)
    (learned / "a.jsonl").write_text("paid for")
    before = len(server.requests)

    result = optllm("run", file, "--out", "a.jsonl", code=2)

    assert "error: 'a.jsonl' exists, and answers cost money" in result.stderr
    assert (before, "paid for") == (len(server.requests), (learned / "a.jsonl").read_text())

    optllm("run", file, "--out", "a.jsonl", "--force", "--policy", "most_accurate")

    assert ["0"] == [line["text"] for line in read_lines(learned / "a.jsonl")]


def test_a_run_tags_its_calls(as_json, learned, write_queries):
    file = write_queries(learned / "ask.jsonl", 2)
    as_json("run", file, "--tag", "night", "--tag", "team-a")

    rows = as_json("history", "--by", "tag")["rows"]

    assert {"night": 2, "team-a": 2} == {
        row["key"]: row["n_decisions"] for row in rows if row["key"]
    }


def test_before_anything_is_learned_a_run_asks_the_default(as_json, fresh, write_queries):
    values = as_json("run", write_queries(fresh / "ask.jsonl", 2))

    assert ["good", "good"] == [line["candidate"] for line in values["answers"]]
    assert ["2 answered: not fitted: 0/20 labels"] == values["remarks"]


def test_an_interrupted_run_ends_with_130_and_says_what_is_logged(
    optllm, as_json, learned, write_queries
):
    def interrupting(_request):
        if len(server.requests) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return Reply(text="ok", prompt_tokens=10, completion_tokens=5, delay_s=0.1)

    with FakeOpenAIServer(interrupting) as server:
        text = (learned / "optllm.toml").read_text()
        url = next(line for line in text.splitlines() if line.startswith("api_base"))
        (learned / "optllm.toml").write_text(text.replace(url, f'api_base = "{server.url}"'))
        file = write_queries(learned / "ask.jsonl", 30)
        result = optllm(
            "run", file, "--concurrency", 1, "--policy", "cheapest", "--out", "a.jsonl", code=130
        )
        n_asked = len(server.requests)

    assert 3 <= n_asked < 30
    assert "" == result.stdout
    assert f"interrupted: nothing more is asked. {n_asked} calls of this run, $0.0000" in (
        result.stderr
    )
    assert 40 + n_asked == sum(row["n_attempts"] for row in as_json("history")["rows"])
    assert not (learned / "a.jsonl").exists()


@pytest.mark.parametrize("command", [["run", "ask.jsonl"], ["plan", "ask.jsonl"], ["explain", "a"]])
def test_two_policies_at_once_end_with_2(optllm, learned, write_queries, command):
    write_queries(learned / "ask.jsonl", 1)

    result = optllm(*command, "--budget", 1, "--target", 0.9, code=2)

    assert (
        "error: --budget and --target each ask for another policy: give one of them.\n"
        == result.stderr
    )


@pytest.mark.parametrize("given", [["--budget", "-1"], ["--target", "90"], ["--wtp", "nan"]])
def test_a_policy_that_breaks_a_rule_ends_with_2(optllm, learned, write_queries, given):
    file = write_queries(learned / "ask.jsonl", 1)

    assert optllm("plan", file, *given, code=2).stderr.startswith("error: `")


@pytest.mark.parametrize("content", ["", "\n\n", '{"question": "hi"}\n'])
def test_a_file_without_queries_ends_with_2(optllm, learned, content):
    (learned / "ask.jsonl").write_text(content)

    assert "error: 'ask.jsonl'" in optllm("run", "ask.jsonl", code=2).stderr


def test_a_plan_spends_nothing(as_json, learned, server, write_queries):
    file = write_queries(learned / "ask.jsonl", 6)
    before = len(server.requests)

    values = as_json("plan", file, "--policy", "most_accurate")

    assert before == len(server.requests)
    assert ("most accurate", 6) == (values["policy"], values["n_queries"])
    assert values["choice"].count("good") == values["candidates"][1]["n_queries"]
    costs = [point["cost_usd"] for point in values["front"]]
    assert sorted(costs) == costs
    planned = sum(one["expected_cost_usd"] for one in values["candidates"])
    assert values["expected_cost_usd"] == pytest.approx(planned, rel=1e-12)
    low, high = values["cost_range_usd"]
    assert 0.0 < low <= high < values["worst_cost_usd"]


def test_a_plan_is_drawn(optllm, learned, write_queries):
    result = optllm("plan", write_queries(learned / "ask.jsonl", 6), "--wtp", "0.01")

    assert "◆" in result.stdout
    assert "willingness to pay 0.01 USD per success: 6 queries for about $" in result.stdout
    assert " if all answers are short together, $" in result.stdout
    assert " if all are long (10 and 90 %), $" in result.stdout
    assert result.stdout.endswith(" at worst\n")


def test_a_plan_before_the_first_fit_ends_with_1(optllm, fresh, write_queries):
    result = optllm("plan", write_queries(fresh / "ask.jsonl", 2), code=1)

    assert result.stderr.startswith("error: not fitted: 0/20 labels")


def test_explain_lays_a_decision_open(as_json, learned, server):
    before = len(server.requests)

    values = as_json("explain", "product: 4 * 7", "--task", "product", "--policy", "most_accurate")

    assert before == len(server.requests)
    assert ("good", "most accurate", "product") == tuple(
        values[name] for name in ("chosen", "policy", "task")
    )
    assert [("weak", "possible", 20), ("good", "chosen", 20)] == [
        (one["name"], one["status"], one["n_labels"]) for one in values["columns"]
    ]
    for one in values["columns"]:
        assert 0.0 < one["low_cost_usd"] <= one["high_cost_usd"] < one["worst_cost_usd"]


def test_explain_reads_a_long_question_from_standard_input(learned):
    from typer.testing import CliRunner

    from optllm_router.cli import app

    result = CliRunner().invoke(app, ["explain", "-", "--json"], input="hello " * 50_000)

    assert 0 == result.exit_code
    assert json.loads(result.stdout)["n_prompt_tokens"] > 40_000


def test_the_budget_of_a_question_is_described_as_one(optllm):
    assert "Spend no more than this on the question." in optllm("explain", "--help").stdout
    for command in ("run", "plan"):
        shown = optllm(command, "--help").stdout
        assert "Spend no more than this on the whole file." in shown


def test_explain_shows_a_table(optllm, learned):
    result = optllm("explain", "sum: 1 + 7", "--policy", "cheapest")

    assert ["chosen", "weak"] in [line.split() for line in result.stdout.splitlines()]
    headers = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "candidate status success ± labels" in headers
    assert "candidate expected cost 10 % 90 % worst case" in headers
