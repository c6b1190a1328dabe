"""The commands of the pages in `examples/` run, on a small table instead of the real ones."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from optllm_router.cli import app

EXAMPLES = Path(__file__).parent.parent / "examples"
PAGES = ("reproduce_papers.md", "predictor_study.md")
SMALLER = {"--labels": "24", "--seeds": "1", "--bootstraps": "2", "--resamples": "3"}
WORDS = ["add", "subtract", "invoice", "parser", "error", "kernel", "socket", "merge", "token"]


def commands(page: str) -> list[str]:
    """Return a page's commands, continued lines joined."""
    text = (EXAMPLES / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    joined = "".join(blocks).replace("\\\n", " ")
    return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def smaller(command: str, table: Path, folder: Path) -> list[str]:
    """Return a command's arguments, its table and its numbers replaced by small ones."""
    arguments: list[str] = []
    option = ""
    for word in shlex.split(command)[1:]:
        if word.startswith("--"):
            option = word
        if option in SMALLER and word != option:
            if arguments[-1] == option:
                arguments.append(SMALLER[option])
        elif word.endswith(".parquet"):
            arguments.append(str(table))
        elif word.endswith((".json", ".html")):
            arguments.append(str(folder / word))
        else:
            arguments.append(word)
    return arguments


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Sixty short queries, three candidates, skill that depends on the first word."""
    rng = np.random.default_rng(5)
    path = tmp_path / "outcomes.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", "task", "query", "model", "score", "cost_usd"])
        for i in range(60):
            words = [WORDS[i % len(WORDS)], *rng.choice(WORDS, 6)]
            for model, (skill, usd) in {"s": (0.4, 1), "m": (0.6, 4), "l": (0.8, 20)}.items():
                score = float(rng.random() < skill + 0.1 * (i % 3 - 1))
                cost = usd * 1e-5 * (1 + rng.random())
                writer.writerow([i, f"task {i % 2}", " ".join(words), model, score, cost])
    return path


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_commands_and_they_all_are_evaluations(page):
    assert 3 <= len(commands(page))
    assert {"optllm evaluate"} == {" ".join(c.split()[:2]) for c in commands(page)}


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for page in PAGES for c in commands(page)])
def test_a_command_of_a_page_runs_on_a_small_slice(command, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(app, smaller(command, table, tmp_path))

    assert 0 == result.exit_code, result.output
    for name in re.findall(r"--routers ((?:\w+ ?)+)", command):
        for router in name.split():
            assert router == "all" or router in result.output
