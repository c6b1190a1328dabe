"""The command itself: its help, what it imports, its exit codes, and where it writes."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from optllm_router import __version__

HELP = """\
Usage: optllm [OPTIONS] COMMAND [ARGS]...

  Send every query to the LLM that is worth its price.

Options:
  --version      Print it.
  -v, --verbose  Log more than warnings.
  --debug        Show the traceback of an error.
  -h, --help     Show this message and exit.

Commands:
  demo      Watch the whole loop: probe, fit, front, batches.
  init      Write a first optllm.toml.
  check     Judge settings, prices, keys, labels and privacy.
  import    Take your own graded answers into the log.
  probe     Ask every candidate about a sample, grade and log.
  run       Answer a file of queries, under a policy or budget.
  plan      Decide a file of queries and spend nothing.
  front     Draw the front that is published now.
  history   Show where the money went, and recent decisions.
  explain   Say what would be done with a question, and why.
  feedback  Say how good an answer was, also days later.
  retrain   Refit on the log; publish unless it is worse.
  forget    Erase decisions by session, tag, age or batch.
  evaluate  Measure the routing against baselines, on your data.
  budget    Show and set budgets; check a provider's bill.
  db        Look at the log's schema, or move it.

  Results go to standard output, as JSON with --json; progress and remarks to
  standard error. Exit codes: 0 done, 1 failed, 2 a mistake in arguments or
  settings, 130 interrupted.
"""
COMMANDS = re.findall(r"^  ([a-z]+)  +[A-Z]", HELP, re.MULTILINE)
GROUPS = {"budget", "db"}


def test_the_help_names_every_command_in_the_order_of_the_loop(optllm):
    assert HELP == optllm("--help").stdout


def test_the_help_is_the_same_in_a_wide_terminal(optllm, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    assert HELP == optllm("--help").stdout


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in GROUPS])
def test_every_command_has_json_and_a_help_of_its_own(optllm, command):
    help_text = optllm(command, "--help").stdout

    assert help_text.startswith(f"Usage: optllm {command} ")
    assert "--json" in help_text


@pytest.mark.parametrize(
    ("group", "command"),
    [
        ("budget", "reconcile"),
        ("db", "upgrade"),
        ("db", "downgrade"),
        ("db", "current"),
        ("db", "check"),
    ],
)
def test_every_command_of_a_group_has_json(optllm, group, command):
    assert "--json" in optllm(group, command, "--help").stdout


def test_the_help_loads_nothing_heavy(tmp_path, environment):
    code = (
        "import sys\n"
        "from optllm_router.cli import main\n"
        "sys.argv = ['optllm', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'litellm', 'sklearn', 'sqlalchemy', 'scipy', 'numpy', 'pydantic', 'alembic'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert (HELP, "[]\n") == (done.stdout, done.stderr)


def test_the_version_is_the_package_s(optllm):
    assert f"optllm-router {__version__}\n" == optllm("--version").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["polish"],
        ["history", "--by", "mood"],
        ["history", "--limit", "0"],
        ["history", "--frobnicate"],
        ["history", "--since", "whenever"],
        ["run"],
        ["feedback", "some-id", "good"],
        ["run", "a.txt", "--concurrency", "0"],
    ],
)
def test_what_typer_refuses_ends_with_2(optllm, fresh, arguments):
    result = optllm(*arguments, code=2)

    assert "" == result.stdout
    assert "Error: " in result.stderr


def test_no_settings_file_ends_with_2_and_names_the_way_out(optllm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = optllm("retrain", code=2)

    assert "" == result.stdout
    assert (
        "error: there is no config file 'optllm.toml': `optllm init` writes one, or give the path "
        "of yours\n" == result.stderr
    )


def test_every_mistake_in_the_settings_is_a_line_of_its_own(optllm, fresh):
    text = (fresh / "optllm.toml").read_text()
    (fresh / "optllm.toml").write_text(f'modus = "route"\nprompts = "some"\n{text}')

    result = optllm("retrain", code=2)

    lines = result.stderr.splitlines()
    assert ["error: optllm.toml:1", "error: optllm.toml:2"] == [line[:20] for line in lines]


def test_a_failure_is_one_line_without_a_traceback(optllm, fresh):
    result = optllm("history", code=1)

    assert "" == result.stdout
    assert (
        "error: there is no log at 'sqlite:///log.db' yet: it is made by the first call, `optllm "
        "probe` or `optllm import`; `--store` or `--db` name another one.\n" == result.stderr
    )
    assert not (fresh / "log.db").exists()


def test_debug_shows_the_traceback_too(optllm, fresh):
    result = optllm("--debug", "history", code=1)

    assert result.stderr.startswith("Traceback (most recent call last):")
    assert "error: there is no log" in result.stderr.splitlines()[-1]


def test_a_file_that_cannot_be_written_is_one_line(optllm, learned, write_queries):
    file = write_queries(learned / "ask.jsonl", 2)

    result = optllm("run", file, "--out", learned / "no" / "folder.jsonl", code=1)

    assert f"error: '{learned}/no/folder.jsonl': No such file or directory\n" == result.stderr


def test_standard_output_is_json_even_when_a_grader_of_the_user_prints(
    learned, write_queries, console_script, environment
):
    (learned / "own_grader.py").write_text(
        "def grade(text, reference):\n    print('LOUD')\n    return float(text == reference)\n"
    )
    settings = (learned / "optllm.toml").read_text()
    (learned / "optllm.toml").write_text(
        settings.replace('kind = "exact"', 'kind = "callable"\nfunction = "own_grader:grade"')
    )
    file = write_queries(
        learned / "ask.jsonl", [{"query": "sum: 1 + 7", "reference": "8"}, "crash"]
    )

    done = subprocess.run(
        [*console_script, "run", file, "--policy", "cheapest", "--json"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    values = json.loads(done.stdout)
    assert (2, 1, 1, 1.0) == tuple(
        values[name] for name in ("n_queries", "n_answered", "n_graded", "mean_score")
    )
    assert {"BadRequestError": 1} == values["errors"]
    assert "LOUD" in done.stderr
    assert "Traceback" not in done.stderr
