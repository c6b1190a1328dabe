"""`optllm demo`: its options reach the demo, and its results are where they belong."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A recorded table of 120 queries: the dear model is right, the cheap one half of the time."""
    rng = np.random.default_rng(0)
    rows = ["query,model,score,cost_usd"]
    for i in range(120):
        kind = "easy" if i % 2 else "hard"
        rows.append(f"{kind} question {i},cheap,{i % 2},{0.001 + 0.0001 * rng.random():.6f}")
        rows.append(f"{kind} question {i},dear,1,{0.01 + 0.001 * rng.random():.6f}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    return path


def test_the_demo_on_a_recorded_table_leaves_a_log_to_read(as_json, optllm, table):
    values = as_json("demo", "--outcomes", table, "--limit", 100, "--seed", 3, "--db", "left.db")

    assert ("dear", "cheap") == (values["best_single"], values["cheapest"])
    budget, target = values["policies"]
    assert ("budget", "target_accuracy") == (budget["policy"], target["policy"])
    assert budget["cost_usd"] <= budget["asked"]
    rows = as_json("history", "--db", "left.db", "--by", "kind")["rows"]
    assert {"probe", "route"} == {row["key"] for row in rows}
    assert "·" in optllm("front", "--db", "left.db").stdout


def test_the_demo_tells_its_story_on_standard_output(optllm, table):
    result = optllm("demo", "--outcomes", table, "--limit", 100)

    assert "1. Probe: " in result.stdout
    assert "always dear" in result.stdout
    assert (table.parent / "optllm-demo.db").exists()


def test_a_demo_of_too_few_queries_ends_with_2(optllm, table):
    result = optllm("demo", "--limit", 10, code=2)

    assert "error: 10 queries are too few" in result.stderr
