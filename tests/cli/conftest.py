"""A set-up for the command line: two candidates on a real loopback server, and what they taught."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from optllm_router.cli import app
from optllm_router.testing.openai_server import FakeOpenAIServer, Reply

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

SETTINGS = """\
store = "sqlite:///log.db"
default = "good"

[retrain]
enabled = false
min_labels = 20

[predictor]
n_bootstraps = 5

[graders.default]
kind = "exact"

[[candidates]]
name = "weak"
model = "openai/weak"
api_base = "{url}"
api_key_env = "OPTLLM_TEST_KEY"
arguments = {{ max_retries = 0 }}
max_output_tokens = 100
input_usd_per_1m = 1
output_usd_per_1m = 1

[[candidates]]
name = "good"
model = "openai/good"
api_base = "{url}"
api_key_env = "OPTLLM_TEST_KEY"
arguments = {{ max_retries = 0 }}
max_output_tokens = 100
input_usd_per_1m = 10
output_usd_per_1m = 10
"""


def queries(n: int, *, start: int = 0) -> list[dict[str, str]]:
    """Make sums, which both candidates can, and products, which only the good one can."""
    made = []
    for i in range(start, start + n):
        task, sign, answer = ("sum", "+", i + 7) if i % 2 else ("product", "*", i * 7)
        made.append({"query": f"{task}: {i} {sign} 7", "task": task, "reference": str(answer)})
    return made


def respond(request: dict[str, Any]) -> Reply:
    """Answer as a calculator; the weak model cannot multiply, and "crash" fails."""
    text = request["messages"][-1]["content"]
    if "crash" in text:
        return Reply(status=400, error="no such thing, says sk-abcdefghijklmnopqrstuvwx")
    if ":" not in text:
        return Reply(text=text, prompt_tokens=10, completion_tokens=5)
    left, sign, right = text.split(": ")[1].split(" ")
    number = int(left) * int(right) if sign == "*" else int(left) + int(right)
    if sign == "*" and request["model"] == "weak":
        number = -1
    return Reply(text=str(number), prompt_tokens=10, completion_tokens=5)


@pytest.fixture(scope="session", autouse=True)
def key() -> Iterator[None]:
    """Set the candidates' key, and nothing else that settings would be taken from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTLLM_TEST_KEY", "sk-test")
        for name in ("OPTLLM_STORE", "OPTLLM_DEFAULT", "OPTLLM_MODE", "OPTLLM_PROMPTS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[FakeOpenAIServer]:
    with FakeOpenAIServer(respond) as running:
        yield running


@pytest.fixture(scope="session")
def taught(server: FakeOpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings and a log that has been probed and learned from."""
    folder = tmp_path_factory.mktemp("taught")
    write_settings(folder, server)
    write_lines(folder / "sample.jsonl", queries(20))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # One call at a time: LiteLLM would make a client for each of the first calls, close none.
        probe = ["probe", "sample.jsonl", "--yes", "--concurrency", "1"]
        for arguments in (probe, ["retrain"]):
            result = CliRunner().invoke(app, arguments)
            assert 0 == result.exit_code, result.output
    return folder


@pytest.fixture
def learned(taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a fresh copy of the taught folder."""
    shutil.copytree(taught, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fresh(taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the same settings and nothing else."""
    shutil.copy(taught / "optllm.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Have processes of their own find the package, wherever they work."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.fixture(scope="session")
def console_script(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return how to run the command as an installed script runs, from a folder of its own."""
    script = tmp_path_factory.mktemp("bin") / "optllm"
    script.write_text("import sys\nfrom optllm_router.cli import main\nsys.exit(main())\n")
    return [sys.executable, str(script)]


@pytest.fixture
def optllm() -> Callable[..., Any]:
    """Run a command in this process."""

    def run(*arguments: object, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        assert code == result.exit_code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        return result

    return run


@pytest.fixture
def as_json(optllm: Callable[..., Any]) -> Callable[..., Any]:
    """Run a command with --json and return its value; standard output must hold nothing else."""

    def run(*arguments: object, code: int = 0) -> Any:
        return json.loads(optllm(*arguments, "--json", code=code).stdout)

    return run


def write_settings(folder: Path, server: FakeOpenAIServer) -> None:
    (folder / "optllm.toml").write_text(SETTINGS.format(url=server.url))


def write_lines(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path


@pytest.fixture
def write_queries() -> Callable[..., Path]:
    """Write queries, or any JSON values, as lines."""

    def write(path: Path, values: int | list[Any]) -> Path:
        return write_lines(path, queries(values) if isinstance(values, int) else values)

    return write


@pytest.fixture(autouse=True)
def width_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show tables as into a pipe, however wide the terminal says it is."""
    monkeypatch.delenv("COLUMNS", raising=False)
