"""`optllm run` that goes on, and what `optllm forget` and `optllm budget reconcile` say of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from optllm_router.store.sql import open_store
from optllm_router.testing.openai_server import FakeOpenAIServer, Reply


@pytest.fixture
def upstream():
    """A server whose failures and delays a test sets, and that counts what it was asked."""

    class Upstream:
        def __init__(self) -> None:
            self.fails: set[str] = set()
            self.delay_s = 0.0

        def __call__(self, request):
            text = request["messages"][-1]["content"]
            if text in self.fails:
                return Reply(status=400, error="no")
            return Reply(text=text, prompt_tokens=10, completion_tokens=5, delay_s=self.delay_s)

        @property
        def asked(self):
            return [one.body["messages"][-1]["content"] for one in self.server.requests]

    made = Upstream()
    with FakeOpenAIServer(made) as made.server:
        yield made


@pytest.fixture
def run(optllm):
    """Run a file one call at a time: of the first calls, LiteLLM would leave clients open."""

    def run_file(*arguments, code=0):
        return optllm("run", *arguments, "--concurrency", 1, code=code)

    return run_file


@pytest.fixture
def work(fresh, upstream):
    """A folder whose candidates answer there."""
    text = (fresh / "optllm.toml").read_text()
    old = next(line for line in text.splitlines() if line.startswith("api_base"))
    (fresh / "optllm.toml").write_text(text.replace(old, f'api_base = "{upstream.server.url}"'))
    return fresh


def texts(path):
    return [json.loads(line).get("text") for line in path.read_text().splitlines()]


def in_log(work, batch_id):
    store = open_store(f"sqlite:///{work / 'log.db'}")
    try:
        return store.batch(batch_id)
    finally:
        store.close()


def test_a_run_that_was_killed_goes_on_when_it_is_run_again(
    as_json, work, upstream, write_queries, console_script, environment
):
    file = write_queries(work / "ask.jsonl", [f"q{i}" for i in range(30)])
    command = ["run", str(file), "--out", "a.jsonl", "--concurrency", "2"]
    upstream.delay_s = 0.05
    child = subprocess.Popen(
        [*console_script, *command], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while len(upstream.asked) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    upstream.delay_s = 0.0
    left = in_log(work, f"run {work / 'a.jsonl'}")
    assert 0 < left.n_answered < 30
    n_asked = len(upstream.asked)

    result = subprocess.run(
        [*console_script, *command], env=environment, capture_output=True, text=True, check=True
    )

    assert f"resumed: {left.n_answered} of 30 were answered before\n" in result.stderr
    assert f"{left.n_open} were being asked when the run before ended: their calls are" in (
        result.stderr
    )
    assert [f"q{i}" for i in range(30)] == texts(work / "a.jsonl")
    assert 30 - left.n_answered == len(upstream.asked) - n_asked
    assert " more went to calls of this batch that brought no answer" in result.stderr
    assert in_log(work, f"run {work / 'a.jsonl'}") is None  # the file holds the answers now
    rows = as_json("history")["rows"]
    assert 30 + left.n_open == sum(row["n_decisions"] for row in rows)


def test_a_run_with_failures_asks_only_those_again(run, work, upstream, write_queries):
    file = write_queries(work / "ask.jsonl", ["a", "b", "c"])
    upstream.fails = {"b"}
    assert 1 == json.loads(run(file, "--out", "a.jsonl", "--json").stdout)["n_failed"]
    assert ["a", None, "c"] == texts(work / "a.jsonl")
    upstream.fails = set()

    result = run(file, "--out", "a.jsonl")

    assert "resumed: 2 of 3 were answered before" in result.stderr
    assert ["a", "b", "c"] == texts(work / "a.jsonl")
    assert ["a", "b", "b", "c"] == sorted(upstream.asked)
    assert "'a.jsonl' exists" in run(file, "--out", "a.jsonl", code=2).stderr


def test_force_begins_anew(run, work, upstream, write_queries):
    file = write_queries(work / "ask.jsonl", ["a", "b"])
    upstream.fails = {"b"}
    run(file, "--out", "a.jsonl")
    upstream.fails = set()

    result = run(file, "--out", "a.jsonl", "--force")

    assert "resumed" not in result.stderr
    assert ["a", "a", "b", "b"] == sorted(upstream.asked)
    assert ["a", "b"] == texts(work / "a.jsonl")


def test_other_queries_for_the_same_file_end_with_2(run, work, upstream, write_queries):
    upstream.fails = {"b"}
    run(write_queries(work / "ask.jsonl", ["a", "b"]), "--out", "a.jsonl")

    result = run(write_queries(work / "ask.jsonl", ["a", "c"]), "--out", "a.jsonl", code=2)

    assert "cannot go on: item 1 is not the request that stood there" in result.stderr
    assert 2 == len(upstream.asked)


def test_a_named_run_keeps_its_answers_until_they_are_forgotten(
    optllm, run, as_json, work, upstream, write_queries
):
    file = write_queries(work / "ask.jsonl", ["a", "b"])
    first = json.loads(run(file, "--batch-id", "nightly", "--json").stdout)

    again = json.loads(run(file, "--batch-id", "nightly", "--json").stdout)

    assert first["answers"] == again["answers"]
    assert 2 == len(upstream.asked)
    assert ["nightly"] == [row["key"] for row in as_json("history", "--by", "batch")["rows"]]
    values = as_json("forget", "--batch", "nightly", "--yes")
    assert (2, 2) == (values["n_decisions"], values["n_answers"])
    run(file, "--batch-id", "nightly")
    assert 4 == len(upstream.asked)


def test_a_named_run_leaves_a_strangers_file_alone(run, work, upstream, write_queries):
    file = write_queries(work / "ask.jsonl", ["a"])
    run(file, "--batch-id", "nightly")
    (work / "a.jsonl").write_text("paid for")

    run(file, "--batch-id", "nightly", "--out", "a.jsonl", code=2)

    assert "paid for" == (work / "a.jsonl").read_text()
    run(file, "--batch-id", "nightly", "--out", "a.jsonl", "--force")
    assert ["a"] == texts(work / "a.jsonl")
    assert 1 == len(upstream.asked)


def test_an_interrupted_run_says_how_to_go_on(optllm, work, upstream, write_queries):
    def interrupting(request):
        if len(server.requests) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return upstream(request)

    upstream.delay_s = 0.1
    with FakeOpenAIServer(interrupting) as server:
        text = (work / "optllm.toml").read_text()
        (work / "optllm.toml").write_text(text.replace(upstream.server.url, server.url))
        file = write_queries(work / "ask.jsonl", [f"q{i}" for i in range(20)])
        command = ["run", file, "--out", "a.jsonl", "--concurrency", 1]
        result = optllm(*command, code=130)
        n_asked = len(server.requests)

        assert "the same command goes on from here" in result.stderr
        assert f"resumed: {n_asked} of 20 were answered before" in optllm(*command).stderr
        assert 20 == len(server.requests)


def test_a_bill_that_agrees_ends_with_0_and_another_with_1(
    optllm, run, as_json, work, upstream, write_queries
):
    run(write_queries(work / "ask.jsonl", ["a", "b"]))
    (row,) = as_json("history", "--by", "day")["rows"]
    today = row["key"]
    (work / "bill.csv").write_text(f"model,day,cost_usd,n_calls\ngood,{today},0.0003,2\n")

    values = as_json("budget", "reconcile", "bill.csv")

    (row,) = values["rows"]
    assert ("openai/good", today, "0.0003", "0.0003", "0", False) == tuple(
        row[name] for name in ("name", "day", "ours_usd", "bill_usd", "difference_usd", "is_beyond")
    )
    (work / "bill.csv").write_text(f"candidate,day,cost_usd\ngood,{today},0.0004\nx,{today},1\n")
    result = optllm("budget", "reconcile", "bill.csv", code=1)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["good", today, "differs", "$0.0003", "$0.0004", "-$0.0001"] in [
        line[:6] for line in lines
    ]
    assert ["x", today, "only", "on", "the", "bill", "-", "$1.00", "-$1.00"] in [
        line[:9] for line in lines
    ]
    assert "ours $0.0003, bill $1.0004, difference -$1.0001; 2 of 2 rows differ" in result.stdout
    optllm("budget", "reconcile", "bill.csv", "--only", "good", "--tolerance", "25%")


def test_a_bill_with_mistakes_ends_with_2(optllm, run, work, write_queries):
    run(write_queries(work / "ask.jsonl", ["a"]))
    (work / "bill.csv").write_text("candidate,day,cost_usd\na,today,1\nb,2026-11-01,much\n")

    result = optllm("budget", "reconcile", "bill.csv", code=2)

    first, second = result.stderr.splitlines()
    assert "error: 'bill.csv' line 2: `day='today'` is not a day such as 2026-01-31" == first
    assert second.startswith("error: 'bill.csv' line 3: `cost_usd='much'` is not an amount in USD")
