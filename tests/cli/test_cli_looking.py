"""`optllm front`, `history`, `forget` and `db`."""

from __future__ import annotations

import os
import pty
import subprocess

import pytest

from optllm_router.store.schema import HEAD


def test_the_front_needs_the_log_only(as_json, optllm, learned):
    (learned / "optllm.toml").unlink()

    values = as_json("front", "--db", "log.db")

    assert (20, 40) == (values["n_queries"], values["n_labels"])
    assert {"weak": 0.5, "good": 1.0} == {one["name"]: one["prob"] for one in values["candidates"]}
    costs = [point["cost_usd"] for point in values["points"]]
    assert sorted(costs) == costs
    drawn = optllm("front", "--store", "sqlite:///log.db").stdout
    assert drawn.startswith("accuracy\n")
    assert "  A  weak" in drawn


def test_a_front_before_the_first_fit_ends_with_1(optllm, fresh, write_queries):
    optllm("probe", write_queries(fresh / "ask.jsonl", 1), "--yes")

    result = optllm("front", code=1)

    assert result.stderr.startswith("error: nothing is learned yet from 2 labels")


def test_the_history_needs_the_log_only(as_json, learned):
    (learned / "optllm.toml").unlink()

    values = as_json("history", "--db", "log.db")

    assert "candidate" == values["by"]
    assert [("good", 20, 20, 1.0), ("weak", 20, 20, 0.5)] == [
        (row["key"], row["n_decisions"], row["n_graded"], row["mean_score"])
        for row in values["rows"]
    ]
    assert "decisions" not in values


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        ("task", ["product", "sum"]),
        ("kind", ["probe"]),
        ("policy", ["probe"]),
        ("tag", [""]),
    ],
)
def test_the_history_is_grouped_as_asked(as_json, learned, by, keys):
    assert keys == sorted(row["key"] for row in as_json("history", "--by", by)["rows"])


@pytest.mark.parametrize("by", ["day", "batch"])
def test_one_probe_is_one_day_and_one_batch(as_json, learned, by):
    assert [40] == [row["n_decisions"] for row in as_json("history", "--by", by)["rows"]]


def test_the_newest_decisions_are_shown_when_asked_for(as_json, optllm, learned):
    decisions = as_json("history", "--limit", 3)["decisions"]

    assert 3 == len(decisions)
    table = optllm("history", "--limit", 3).stdout
    assert all(one["decision_id"] in table for one in decisions)


def test_one_decision_is_shown_with_its_calls_and_grades(as_json, optllm, learned):
    (newest,) = as_json("history", "--limit", 1)["decisions"]

    assert newest == as_json("history", "--decision", newest["decision_id"])
    shown = optllm("history", "--decision", newest["decision_id"]).stdout
    assert "probe: every candidate is asked" in shown
    assert "probe:exact" in shown


def test_a_history_since_a_moment_leaves_out_what_was_before(as_json, learned):
    assert [] == as_json("history", "--since", "2999-01-01")["rows"]
    assert 2 == len(as_json("history", "--since", "1d")["rows"])


def test_a_history_of_imports_only_says_so_plainly(optllm, as_json, fresh):
    rows = '{"query": "%d", "model": "good", "score": 1, "cost_usd": 0.1}\n'
    (fresh / "own.jsonl").write_text("".join(rows % i for i in range(3)))
    as_json("import", "own.jsonl")

    plain, later = optllm("history"), optllm("history", "--since", "2999-01-01")

    told = "no calls yet, only 3 imported rows, which cost us nothing: `--imports` counts them\n"
    assert ("", told) == (plain.stdout, plain.stderr)
    assert later.stderr.startswith("nothing is logged since 2999-01-01 00:00:00")
    assert [] == as_json("history")["rows"]
    (imported,) = as_json("history", "--imports")["rows"]
    assert 3 == imported["n_decisions"]
    assert 3 == optllm("history", "--limit", 5).stdout.count(" import ")


def test_a_history_of_nothing_says_so(optllm, tmp_path):
    log = ("--db", tmp_path / "new.db")
    optllm("db", "upgrade", *log)

    result = optllm("history", *log)

    assert ("", "nothing is logged yet\n") == (result.stdout, result.stderr)


def test_an_unknown_decision_ends_with_1(optllm, learned):
    assert "'nobody'" in optllm("history", "--decision", "nobody", code=1).stderr


def test_store_and_db_together_end_with_2(optllm, learned):
    result = optllm("history", "--store", "sqlite:///log.db", "--db", "log.db", code=2)

    assert "error: --store and --db both name the log: give one of them.\n" == result.stderr


def test_without_settings_and_log_the_way_out_is_named(optllm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = optllm("history", code=2)

    assert "name the log with `--db FILE` or `--store URL`" in result.stderr


def test_without_settings_the_environment_names_the_log(as_json, learned, monkeypatch):
    (learned / "optllm.toml").unlink()
    monkeypatch.setenv("OPTLLM_STORE", "sqlite:///log.db")

    assert 2 == len(as_json("history")["rows"])


def test_a_file_that_is_no_log_ends_with_1(optllm, tmp_path):
    (tmp_path / "notes.db").write_text("these are notes, not a database, and long enough to tell")

    result = optllm("history", "--db", tmp_path / "notes.db", code=1)

    assert "the file is not a SQLite database" in result.stderr


def test_what_is_forgotten_is_counted_and_gone(as_json, learned, write_queries):
    as_json("run", write_queries(learned / "ask.jsonl", 2), "--tag", "secret")

    values = as_json("forget", "--tag", "secret", "--yes")

    # The same two questions were probed: their texts stay, because others refer to them.
    counts = {"n_decisions": 2, "n_attempts": 2, "n_outcomes": 2, "n_texts": 0, "n_answers": 0}
    assert counts == values
    assert ["probe"] == [row["key"] for row in as_json("history", "--by", "kind")["rows"]]


def test_forgetting_by_age_keeps_what_is_younger(as_json, learned):
    assert 0 == as_json("forget", "--before", "1d", "--yes")["n_decisions"]
    assert 40 == as_json("forget", "--before", "2999-01-01", "--yes")["n_decisions"]
    assert [] == as_json("history")["rows"]


def test_all_conditions_of_forgetting_must_hold(as_json, learned):
    values = as_json("forget", "--before", "2999-01-01", "--session", "nobody's", "--yes")

    assert 0 == values["n_decisions"]


def test_nothing_is_forgotten_without_a_condition_or_a_yes(optllm, as_json, learned):
    assert "give --session, --tag, --before or --batch" in optllm("forget", "--yes", code=2).stderr
    assert "add `--yes`" in optllm("forget", "--before", "2999-01-01", code=2).stderr

    assert 2 == len(as_json("history")["rows"])


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
@pytest.mark.usefixtures("learned")
def test_at_a_terminal_the_user_is_asked(as_json, console_script, environment, answer, code):
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        [*console_script, "forget", "--before", "2999-01-01"],
        env=environment,
        stdin=theirs,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(ours)
    os.close(theirs)

    assert code == done.returncode
    assert done.stderr.startswith("Erase every decision from before 2999-01-01T")
    assert ("erased 40 decisions" in done.stdout) == (code == 0)
    assert 2 * code == len(as_json("history")["rows"])


def test_the_schema_is_made_checked_and_taken_back(as_json, optllm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = ("--store", "sqlite:///new.db")
    shown = {"store": "sqlite:///new.db", "head": HEAD}

    assert shown | {"revision": None} == as_json("db", "current", *log)
    assert "run `optllm db upgrade`" in optllm("db", "check", *log, code=1).stderr
    assert shown | {"revision": HEAD, "before": None} == as_json("db", "upgrade", *log)
    assert shown | {"revision": HEAD} == as_json("db", "check", *log)
    assert "add `--yes`" in optllm("db", "downgrade", "base", *log, code=2).stderr
    assert shown | {"revision": None, "before": HEAD} == as_json(
        "db", "downgrade", "base", *log, "--yes"
    )


def test_an_unknown_revision_ends_with_1(optllm, learned):
    result = optllm("db", "downgrade", "9999", "--yes", code=1)

    assert "there is no revision '9999'" in result.stderr
