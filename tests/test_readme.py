"""What the README says is run here: its example, its settings, its command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from optllm_router.config import load_config
from optllm_router.testing.openai_server import FakeOpenAIServer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_it_fits_on_150_lines_and_opens_with_exactly_two_commands():
    assert len(README.splitlines()) <= 150

    commands = blocks("sh")[0].splitlines()

    assert len(commands) == 2
    assert all(command.startswith("python3 -m venv .venv && ") for command in commands)
    assert commands[0].endswith("optllm demo")
    assert commands[1].endswith("-m pytest -n auto")


def test_the_command_line_shown_is_the_real_one():
    shown = next(block for block in blocks("text") if block.startswith("Usage: optllm"))

    help_text = subprocess.run(
        [sys.executable, "-m", "optllm_router.cli", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert help_text.strip() == shown.strip()


def test_the_settings_shown_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "optllm.toml"
    path.write_text(blocks("toml")[0], encoding="utf-8")

    config = load_config(path)

    assert [c.model for c in config.candidates] == ["openai/gpt-4o-mini", "openai/gpt-4o"]
    assert config.default == "openai/gpt-4o"
    assert config.policy.kind == "target_accuracy"


def test_the_drop_in_example_and_the_batch_run_as_shown(tmp_path: Path):
    example, batch = blocks("python")[:2]
    batch = batch.replace("plan = router.plan", "#").replace("print(plan.", "#")
    asked = "questions = ['Is 9 prime?', 'Is 11 prime?']"
    told = "print([a.choices[0].message.content for a in answers]); router.close()"
    script = f"{example}\n{asked}\n{batch}\n{told}"
    with FakeOpenAIServer() as server:
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OPENAI_API_KEY": "sk-example",
                "OPENAI_API_BASE": server.url,
                "OPENAI_BASE_URL": server.url,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    assert done.returncode == 0, done.stderr
    assert "not fitted: 0/50 labels" in done.stdout
    assert len(server.requests) == 3
