"""Every example runs as a user would run it, offline, and prints what it promises."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SAYS = {
    "quickstart": ["openai/simulated-frontier: 4 answers for $", "not fitted: 0/50 labels"],
    "batch_budget": ["Probe: 420 calls", "Fit: published True", "spent, 0."],
    "async_calls": ["8 calls at once", "a batch: 15 of 15 answered", "24 calls, $"],
    "own_grader": ["task 'sums': 10 of 10 answers graded, mean score 0.", "probe: openai/"],
    "embedder": ["Brier score with hashed features only: 0.", "embeddings beside them: 0."],
    "langchain_chain": ["served by openai/simulated-large", "score in the log: 1.0"],
    "privacy": [
        "prompt in the log: None",
        "database's files: True",
        "erased 1 decisions",
        "database's files: False",
    ],
}


def run(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run an example in an empty folder, LiteLLM's call home not switched off by the caller."""
    unset = ("LITELLM_LOCAL_MODEL_COST_MAP", "OPTLLM_FEATURE_KEY", "OPTLLM_STORE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_example_is_tested() -> None:
    assert sorted(SAYS) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_is_short_and_says_that_its_llms_are_simulated(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text()

    assert len(source.splitlines()) <= 60
    assert "The LLMs here are SIMULATED" in (ast.get_docstring(ast.parse(source)) or "")
    assert 2 == source.count("# real: ")


@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_runs_and_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    if name == "langchain_chain":
        pytest.importorskip("langchain_core")

    done = run(name, tmp_path)

    assert (0, "") == (done.returncode, done.stderr)
    assert [] == [said for said in SAYS[name] if said not in done.stdout]
    assert [] == list(tmp_path.iterdir())
