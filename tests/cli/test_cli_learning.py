"""`optllm import`, `probe`, `feedback` and `retrain`."""

from __future__ import annotations

import json

import pytest

from optllm_router.demo.draw import usd

TABLE = """\
query,model,score,cost_usd
one,weak,0,0.001
one,good,1,0.01
two,weak,1,0.001
two,good,1,0.01
two,other,1,0.01
"""


def test_import_takes_labels_and_counts_them(as_json, fresh):
    (fresh / "table.csv").write_text(TABLE)

    values = as_json("import", "table.csv")

    assert (5, 2, 4) == (values["n_rows"], values["n_queries"], values["n_imported"])
    assert ["other"] == values["unknown_models"]
    rows = as_json("history", "--imports")["rows"]
    assert {"good": 2, "weak": 2} == {row["key"]: row["n_graded"] for row in rows}


def test_a_dry_run_judges_and_writes_nothing(as_json, fresh):
    (fresh / "table.csv").write_text(TABLE)

    values = as_json("import", "table.csv", "--dry-run")

    assert (5, 0) == (values["n_rows"], values["n_imported"])
    assert not (fresh / "log.db").exists()


def test_importing_a_folder_ends_with_2(optllm, fresh):
    assert (
        "error: '.' is a folder, not a file: name a file in it that ends in .parquet, .csv or "
        ".jsonl\n"
    ) == optllm("import", ".", code=2).stderr


@pytest.mark.parametrize("extra", [[], ["--dry-run"]])
def test_a_table_with_mistakes_is_refused_whole(optllm, as_json, fresh, extra):
    (fresh / "table.csv").write_text(TABLE + "three,weak,7,0.1\n")

    values = as_json("import", "table.csv", *extra, code=1)

    assert "line 7" in values["problems"][0]
    assert 0 == values["n_imported"]
    result = optllm("import", "table.csv", *extra, code=1)
    assert "problem: 'table.csv': " in result.stderr
    assert not (fresh / "log.db").exists()


def test_a_probe_asks_every_candidate_and_grades(as_json, fresh, write_queries):
    file = write_queries(fresh / "ask.jsonl", 4)

    values = as_json("probe", file, "--yes")

    assert (4, 8, 0, 8) == tuple(
        values[name] for name in ("n_queries", "n_calls", "n_errors", "n_graded")
    )
    assert {"weak": 0.5, "good": 1.0} == values["mean_score"]
    assert 4 * 15e-6 + 4 * 150e-6 == pytest.approx(values["cost_usd"], abs=1e-12)


def test_a_probe_of_a_sample_asks_only_so_many(as_json, fresh, write_queries):
    file = write_queries(fresh / "ask.jsonl", 8)

    values = as_json("probe", file, "--sample", 3, "--yes")

    assert (3, 6) == (values["n_queries"], values["n_calls"])


def test_a_probe_that_nobody_agreed_to_spends_nothing(
    optllm, as_json, fresh, server, write_queries
):
    file = write_queries(fresh / "ask.jsonl", ["hi", "hi"])
    worst = 2 * sum(one["worst_cost_usd"] for one in as_json("explain", "hi")["columns"])
    before = len(server.requests)

    for extra in ([], ["--json"]):
        result = optllm("probe", file, *extra, code=2)
        assert "" == result.stdout
        assert (
            f"error: Ask 2 candidates about 2 queries: 4 calls for at most {usd(worst)}? Nobody "
            "can be asked here: add `--yes` to do it.\n" == result.stderr
        )

    assert before == len(server.requests)


def test_a_probe_whose_calls_all_fail_ends_with_1(optllm, fresh, write_queries):
    file = write_queries(fresh / "ask.jsonl", ["crash", "crash again"])

    result = optllm("probe", file, "--yes", code=1)

    assert "4 of 4 calls failed at the provider" in result.stderr


def test_a_probe_that_nobody_would_grade_is_a_mistake_and_spends_nothing(
    optllm, fresh, write_queries
):
    file = write_queries(fresh / "ask.jsonl", ["hello"])
    settings = (fresh / "optllm.toml").read_text()
    (fresh / "optllm.toml").write_text(settings.replace('[graders.default]\nkind = "exact"\n', ""))

    result = optllm("probe", file, "--yes", code=2)

    assert "no grader grades these queries" in result.stderr
    assert "[graders.default]" in result.stderr


def test_feedback_is_taken_for_a_decision_once(as_json, learned):
    (decision,) = as_json("history", "--limit", 1)["decisions"]
    reference = decision["decision_id"]

    assert {"n_given": 1, "n_changed": 1} == as_json("feedback", reference, 0.25)
    assert {"n_given": 1, "n_changed": 0} == as_json("feedback", reference, 0.25)
    assert 0.25 == as_json("history", "--decision", reference)["score"]


def test_feedback_is_taken_for_a_response_id_without_any_settings(as_json, learned):
    (decision,) = as_json("history", "--limit", 1)["decisions"]
    (attempt,) = decision["attempts"]
    (learned / "optllm.toml").unlink()

    values = as_json("feedback", attempt["response_id"], 0, "--db", "log.db")

    assert 1 == values["n_changed"]
    decided = as_json("history", "--db", "log.db", "--decision", decision["decision_id"])
    assert 0.0 == decided["score"]


def test_feedback_on_an_unknown_decision_ends_with_1(optllm, learned):
    result = optllm("feedback", "nobody", 1, code=1)

    assert "no decision in the log has the id or the response id 'nobody'" in result.stderr


@pytest.mark.parametrize("score", ["1.5", "nan"])
def test_feedback_outside_the_range_ends_with_2(optllm, learned, score):
    result = optllm("feedback", "any", score, code=2)

    assert f"error: score {score}: a score is a number from 0" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["only-a-reference"], ["a", "1", "--file", "b.csv"]])
def test_feedback_needs_one_way_of_giving_scores(optllm, learned, arguments):
    assert "score" in optllm("feedback", *arguments, code=2).stderr


def test_feedback_of_a_file_is_taken_whole(as_json, learned):
    newest = as_json("history", "--limit", 2)["decisions"]
    ids = [one["decision_id"] for one in newest]
    (learned / "scores.csv").write_text(f"decision_id,score\n{ids[0]},0.5\n{ids[1]},\n")

    assert {"n_given": 1, "n_changed": 1} == as_json("feedback", "--file", "scores.csv")


def test_feedback_of_a_file_with_one_stranger_changes_nothing(optllm, as_json, learned):
    (one,) = as_json("history", "--limit", 1)["decisions"]
    (learned / "scores.jsonl").write_text(
        json.dumps({"decision_id": one["decision_id"], "score": 0.5})
        + '\n{"decision_id": "nobody", "score": 1}\n'
    )

    optllm("feedback", "--file", "scores.jsonl", code=1)

    assert one["score"] == as_json("history", "--decision", one["decision_id"])["score"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("decision_id,score\na,2\nb,1\nc,x\n", "lines 2, 4: a row is a decision id and a score"),
        ("id,score\na,1\n", "has no column `decision_id`"),
        ("decision_id,score\n,1\n", "line 2: a row is a decision id and a score"),
    ],
)
def test_a_file_of_scores_with_mistakes_names_the_lines(optllm, learned, text, told):
    (learned / "scores.csv").write_text(text)

    assert told in optllm("feedback", "--file", "scores.csv", code=2).stderr


def test_retrain_says_what_it_published(as_json, learned):
    values = as_json("retrain")

    assert (True, 40) == (values["published"], values["n_labels"])
    assert values["version"] == as_json("front")["version"]


def test_retrain_without_enough_labels_publishes_nothing(as_json, optllm, fresh):
    values = as_json("retrain")

    assert (False, 0, "not fitted: 0/20 labels") == (
        values["published"],
        values["n_labels"],
        values["reason"],
    )
    assert "not fitted: 0/20 labels" in optllm("retrain").stdout
