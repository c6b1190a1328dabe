"""`optllm evaluate`: its options, its files, what it prints where, and its exit codes."""

from __future__ import annotations

import csv
import json
import os
import pty
import subprocess
from pathlib import Path

import numpy as np
import pytest

from optllm_router.bench.figures import FIGURES
from optllm_router.cli.evaluating import command_line
from optllm_router.cli.many_values import is_router, repeated

COLUMNS = ("query", "task", "model", "score", "cost_usd", "prompt_tokens")
QUICK = ("--routers", "zero", "random", "--resamples", "4", "--seeds", "2")


def outcomes(n=60):
    """Rows of n queries and three models; every other query only the dear one can solve."""
    rng = np.random.default_rng(0)
    return [
        {
            "query": f"{'prove theorem' if i % 2 else 'translate sentence'} {i}",
            "task": "proof" if i % 2 else "prose",
            "model": model,
            "score": float(rng.random() < chance),
            "cost_usd": round(float(usd * rng.uniform(0.5, 1.5)), 9),
            "prompt_tokens": 20 + i,
        }
        for i in range(n)
        for model, usd, chance in (
            ("small", 0.001, 0.2 if i % 2 else 0.9),
            ("medium", 0.005, 0.5 if i % 2 else 0.9),
            ("large", 0.03, 0.9),
        )
    ]


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_csv(tmp_path / "outcomes.csv", outcomes()).name


def figures_of(report):
    return [
        (run["router"], run["n_labelled"], run["seed"], run["figures"]) for run in report["runs"]
    ]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--labels 100 300 0.02 x.csv", "--labels 100 --labels 300 --labels 0.02 x.csv"),
        ("x.csv --labels 100 --seeds 2 3", "x.csv --labels 100 --seeds 2 3"),
        ("--labels 5 x.csv 7", "--labels 5 x.csv 7"),
        ("--labels 1e2 .5 -3", "--labels 1e2 --labels .5 --labels -3"),
        ("--routers ours zero ./x", "--routers ours --routers zero ./x"),
        ("--routers ours zer --fronts", "--routers ours --routers zer --fronts"),
        ("--routers ours x.csv --labels 3 4", "--routers ours x.csv --labels 3 --labels 4"),
        ("--labels=100 300 x.csv", "--labels=100 --labels 300 x.csv"),
        ("--routers=ours zero x.csv", "--routers=ours --routers zero x.csv"),
        ("--seeds=2 300 x.csv", "--seeds=2 300 x.csv"),
        ("x.csv --json", "x.csv --json -"),
        ("x.csv --json --seeds 2", "x.csv --json - --seeds 2"),
        ("x.csv --json - --seeds 2", "x.csv --json - --seeds 2"),
        ("x.csv --json out.json", "x.csv --json out.json"),
        ("", ""),
    ],
)
def test_options_take_values_in_a_row_and_leave_data_alone(given, meant):
    assert meant.split() == list(repeated(given.split()))


def test_a_word_without_a_suffix_is_meant_as_a_router():
    assert is_router("zeroo")
    assert not any(is_router(word) for word in ("x.csv", "a/b", "a\\b"))


@pytest.mark.parametrize("last", [True, False])
def test_several_labels_and_routers_are_all_run_wherever_data_stands(optllm, data, last):
    options = ["--labels", 10, 20, 0.5, "--json", "--routers", "zero", "random", "--seeds", 1]

    words = [*options, data] if last else [data, *options]
    report = json.loads(optllm("evaluate", *words, "--resamples", 2).stdout)

    expected = [(n, name) for n in (10, 20, 30) for name in ("zero", "random")]
    assert expected == [(row["n_labelled"], row["router"]) for row in report["rows"]]


def test_data_may_follow_the_labels(optllm, data):
    result = optllm("evaluate", "--seeds", 1, "--routers", "zero", "--labels", 10, 20, data)

    assert "10 labelled, n = 50 test" in result.stdout
    assert "20 labelled, n = 40 test" in result.stdout


def test_json_without_a_file_prints_json_and_nothing_else(optllm, data):
    result = optllm("evaluate", data, "--labels", 20, *QUICK, "--json")

    report = json.loads(result.stdout)
    assert ("outcomes.csv", 60, 60, 2, 4) == tuple(
        report[name] for name in ("source", "n_queries", "n_texts", "n_seeds", "n_resamples")
    )
    assert {"20": 40} == report["n_test"]
    assert {"small", "medium", "large"} == {one["candidate"] for one in report["singles"]}
    for row in report["rows"]:
        assert set(row["figures"]) <= set(FIGURES)
        assert {"mean", "low", "high"} <= set(row["figures"]["budget_area"])
    assert set(report["rows"][1]["against_zero"]) > {"saving_crossfit", "budget_area"}


def test_json_with_a_file_writes_it_and_shows_tables(optllm, data, tmp_path):
    result = optllm("evaluate", data, "--labels", 20, *QUICK, "--json", "out.json")

    printed = json.loads(optllm("evaluate", data, "--labels", 20, *QUICK, "--json").stdout)
    assert figures_of(printed) == figures_of(json.loads((tmp_path / "out.json").read_text()))
    assert "wrote out.json" in result.stderr
    assert "wrote" not in result.stdout
    assert "Realised curves, 20 labelled, n = 40 test" in result.stdout


def test_html_is_written_beside_the_tables(optllm, data, tmp_path):
    result = optllm("evaluate", data, "--labels", 20, *QUICK, "--html", "report.html")

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert "<svg" in page
    assert "outcomes.csv" in page
    assert "wrote report.html" in result.stderr
    assert "Realised curves" in result.stdout


def test_html_and_json_together_leave_standard_output_to_json(optllm, data, tmp_path):
    result = optllm("evaluate", data, "--labels", 20, *QUICK, "--html", "r.html", "--json")

    assert 4 == len(json.loads(result.stdout)["runs"])
    assert (tmp_path / "r.html").exists()


def test_csv_json_lines_and_parquet_give_the_same_figures(optllm, data, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = outcomes()
    (tmp_path / "outcomes.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "outcomes.parquet")

    options = ("--labels", 20, "--routers", "knn", "zero", "--resamples", 3, "--seeds", 1, "--json")
    found = [
        json.loads(optllm("evaluate", f"outcomes.{suffix}", *options).stdout)
        for suffix in ("csv", "jsonl", "parquet")
    ]

    assert figures_of(found[0]) == figures_of(found[1]) == figures_of(found[2])
    assert found[0]["rows"] == found[1]["rows"] == found[2]["rows"]


def test_ours_runs_from_the_command_line_and_is_compared_with_zero(optllm, data):
    result = optllm(
        *("evaluate", data, "--labels", 30, "--seeds", 1, "--resamples", 2, "--json"),
        *("--routers", "ours", "zero"),
    )

    ours, zero = json.loads(result.stdout)["rows"]
    assert ("ours", "zero") == (ours["router"], zero["router"])
    assert set(FIGURES) == set(ours["figures"])
    assert ours["against_zero"]
    assert {} == zero["against_zero"]


def test_ours_is_compared_with_every_router_that_ran_beside_it(optllm, data):
    words = ("evaluate", data, "--labels", 30, "--seeds", 2, "--resamples", 2)

    result = optllm(*words, "--routers", "ours", "ridge", "zero", "--json", "found.json")

    found = json.loads(Path("found.json").read_text())
    assert ["ridge", "zero"] == [one["router"] for one in found["ours_against"]]
    assert "Ours against each other router, paired, 30 labelled, 2 seeds" in result.stdout
    assert "Ours against" not in optllm(*words, "--routers", "ours", "zero").stdout


@pytest.mark.parametrize("split", ["random", "text", "task", "time"])
def test_every_split_and_both_kinds_of_costs_are_named_in_the_report(optllm, data, split):
    words = ("evaluate", data, "--labels", 20, *QUICK, "--split", split, "--json")

    forecast = json.loads(optllm(*words).stdout)
    oracle = json.loads(optllm(*words, "--oracle-costs").stdout)

    assert (split, "forecast") == (forecast["split"], forecast["costs"])
    assert (split, "oracle") == (oracle["split"], oracle["costs"])
    assert {"20": 30 if split == "task" else 40} == forecast["n_test"]


def test_extra_comparisons_are_tables_of_the_report(optllm, data):
    report = json.loads(
        optllm("evaluate", data, "--labels", 20, *QUICK, "--regimes", "--json").stdout
    )

    assert ["MetaLLM's regimes, 20 labelled, seed 0, n = 40 test queries"] == [
        table["title"] for table in report["tables"]
    ]


def test_incomplete_queries_are_left_out_and_counted_on_standard_error(optllm, data, tmp_path):
    rows = outcomes()
    del rows[0]  # a missing pair
    rows[10]["score"] = ""  # ungraded
    rows[20]["cost_usd"] = ""  # unknown
    write_csv(tmp_path / "holes.csv", rows)

    result = optllm("evaluate", "holes.csv", "--labels", 20, *QUICK, "--json")

    assert "3 queries are left out: they lack a score or a cost of some model" in result.stderr
    assert 57 == json.loads(result.stdout)["n_queries"]
    assert "left out" not in optllm("evaluate", data, "--labels", 20, *QUICK).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--labels", "9", "--routers", "zeroo"], "no router (did you mean 'zero'?)"),
        (["--labels", "9", "--routers", "ours", "knnn"], "`--routers knnn` names no router (did"),
        (["--labels", "60"], "`--labels 60` of 60 queries: give a whole number from 2 to 59"),
        (["--labels", "1"], "`--labels 1` of 60 queries"),
        (["--labels", "20", "0.001"], "`--labels 0.001` of 60 queries"),
        (["--labels", "-5"], "`--labels -5` of 60 queries"),
        (["--labels", "nan"], "`--labels nan` of 60 queries"),
        (["--labels", "inf"], "`--labels inf` of 60 queries"),
        (["--labels", "10.5"], "`--labels 10.5` of 60 queries"),
        (["--labels", "many"], "Invalid value for '--labels'"),
        (["--labels", "40", "--split", "task"], "a split by task with 40 labelled queries"),
        (["--split", "date"], "Invalid value for '--split'"),
        (["--seeds", "0"], "Invalid value for '--seeds'"),
        (["--json", "no/such/folder.json"], "'no/such/folder.json' cannot be written"),
        (["--html", "no/such/folder.html"], "'no/such/folder.html' cannot be written"),
        (["--html", "."], "'.' cannot be written: name a file"),
        (["--json", "outcomes.csv"], "'outcomes.csv' is what is evaluated, and a report would"),
        (["--json", "r.x", "--html", "./r.x"], "`--json r.x` and `--html r.x` are one file"),
        (["--alpha", "nan"], "`--alpha nan` is no number of standard deviations"),
        (["--store", "sqlite:///log.db"], "either DATA or --store URL"),
        (["other.csv"], "other.csv"),
    ],
)
def test_mistakes_in_arguments_end_with_2_and_say_what_to_do(optllm, data, words, said):
    result = optllm("evaluate", data, *words, code=2)

    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert "" == result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "either DATA or --store URL"),
        (["missing.csv"], "missing.csv"),
        (["outcomes.txt"], "outcomes.txt"),
        (["costless.csv", "--labels", "2"], "'costless.csv' has 0 queries"),
        (["single.csv", "--labels", "2"], "2 models or more"),
        (["dear.csv", "--labels", "9"], "'dear.csv' has a `cost_usd` of 1e+300, above"),
        (["tiny.csv"], "2 queries are too few"),
    ],
)
def test_data_that_cannot_be_evaluated_ends_with_2(optllm, data, tmp_path, words, said):
    rows = outcomes()
    (tmp_path / "outcomes.txt").write_text("text")
    write_csv(tmp_path / "costless.csv", [{**row, "cost_usd": ""} for row in rows])
    write_csv(tmp_path / "single.csv", [row for row in rows if row["model"] == "small"])

    write_csv(tmp_path / "dear.csv", [{**row, "cost_usd": 1e300} for row in rows])
    write_csv(tmp_path / "tiny.csv", rows[:6])

    result = optllm("evaluate", *words, code=2)

    assert said in result.stderr
    assert "" == result.stdout


def test_without_labels_half_of_a_small_table_is_labelled(optllm, data):
    assert {"30": 30} == json.loads(optllm("evaluate", data, *QUICK, "--json").stdout)["n_test"]


def test_alpha_and_the_released_defects_reach_optllm(optllm, data):
    words = ("evaluate", data, "--labels", 30, "--seeds", 1, "--resamples", 0, "--json")
    words = (*words, "--routers", "optllm", "--bootstraps", 2)
    changes = ([], ["--alpha", 3], ["--as-released"])

    found = [json.loads(optllm(*words, *change).stdout)["runs"][0] for change in changes]

    notes = [run["note"] for run in found]
    assert ["alpha 0.5" in note for note in notes] == [True, False, True]
    assert "alpha 3" in notes[1]
    assert ["released" in note for note in notes] == [False, False, True]


LOG = ("--store", "sqlite:///log.db")


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_report_never_overwrites_the_log_that_it_is_about(optllm, option):
    result = optllm("evaluate", *LOG, option, "log.db", code=2)

    assert "'log.db' is what is evaluated, and a report would overwrite it" in result.stderr


@pytest.mark.usefixtures("learned")
def test_a_log_is_reported_as_tables_as_json_and_as_a_page(optllm, tmp_path):
    shown = optllm("evaluate", *LOG, "--html", "log.html", "--json", "log.json")

    page = (tmp_path / "log.html").read_text(encoding="utf-8")
    report = json.loads((tmp_path / "log.json").read_text())
    title = f"What was asked and what it cost, n = {report['n_decisions']:,} decisions"
    assert title in shown.stdout
    assert f"<strong>{title}</strong>" in page
    assert f"<title>What {report['source']} tells</title>" in page
    assert ["wrote log.html", "wrote log.json"] == shown.stderr.splitlines()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--labels", "100", "300"], "`--labels`"),
        (["--seeds", "3"], "`--seeds`"),  # its default, but given
        (["--fronts", "--split", "time"], "`--split`, `--fronts`"),
        (["--alpha", "1", "--as-released"], "`--alpha`, `--as-released`"),
        (["--resamples=9", "--oracle-costs"], "`--oracle-costs`, `--resamples`"),
        (["--routers", "ours", "--regimes", "--bootstraps", "2"], "`--routers`, `--bootstraps`, "),
    ],
)
def test_what_only_data_has_is_refused_beside_a_log(optllm, learned, words, named):
    result = optllm("evaluate", *LOG, *words, code=2)

    assert f"{named}: only an evaluation of DATA" in result.stderr.replace("`--regimes`", "")
    assert "" == result.stdout


def test_the_command_to_rerun_keeps_its_words_and_hides_a_password():
    url, shown = "postgresql://me:secret@db/log", "postgresql://me:***@db/log"

    assert "optllm evaluate 'my data.csv' --seeds 2" == command_line(
        ["evaluate", "my data.csv", "--seeds", "2"]
    )
    for words in (["--store", url], [f"--store={url}"]):
        line = command_line(["evaluate", *words], url=url, shown=shown)
        assert "secret" not in line
        assert shown in line


def at_a_terminal(command, *, until=None, **rest):
    """Run a command whose standard error is a terminal; return what it shows, or that `until`."""
    ours, theirs = pty.openpty()
    shown = ""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, **rest) as running:
        os.close(theirs)
        try:
            while until is None or until not in shown:
                shown += os.read(ours, 4096).decode(errors="replace")
        except OSError:  # Linux says so when the last writer is gone
            assert 0 == running.wait(), shown
        running.terminate()
    os.close(ours)
    return shown


@pytest.mark.parametrize(
    ("option", "label"),
    [("--regimes", "MetaLLM's regimes, 20 labelled"), ("--fronts", "searches compared, 20 lab")],
)
def test_a_bar_names_every_run_and_a_further_comparison(
    console_script, environment, data, tmp_path, option, label
):
    words = ["evaluate", data, "--labels", "20", *QUICK, option]

    shown = at_a_terminal([*console_script, *words], until=label, cwd=tmp_path, env=environment)

    assert "zero, 20 labelled, seed 1" in shown
    assert "4/5" in shown  # two routers, two seeds, one comparison that now starts
    assert label in shown


@pytest.mark.usefixtures("learned")
def test_a_bar_counts_the_decisions_that_were_read(console_script, environment, tmp_path):
    command = [*console_script, "evaluate", *LOG]

    shown = at_a_terminal(command, cwd=tmp_path, env=environment)

    assert "40/?" in shown
    assert "decisions read" in shown


def test_a_report_that_cannot_be_written_after_all_ends_with_1(optllm, data, tmp_path):
    (tmp_path / "gone").symlink_to(tmp_path / "no" / "such" / "file.json")

    result = optllm("evaluate", data, "--labels", 20, *QUICK, "--json", "gone", code=1)

    assert "error: 'gone': No such file or directory" in result.stderr


def test_all_scores_equal_and_everything_free_ends_well(optllm, data, tmp_path):
    rows = [{**row, "score": 1.0, "cost_usd": 0.0} for row in outcomes()]
    write_csv(tmp_path / "free.csv", rows)

    result = optllm("evaluate", "free.csv", "--labels", 20, *QUICK)

    assert "Realised curves" in result.stdout
    assert "highest score" in result.stdout
    assert "saving at best" not in result.stdout  # nothing is paid that could be saved


def test_help_lists_the_routers_and_the_options(optllm):
    shown = optllm("evaluate", "--help").stdout

    for word in ("--labels", "--seeds", "--routers", "--split", "--oracle-costs", "--json"):
        assert word in shown
    assert "metallm" in shown


def test_the_installed_command_prints_json_only_and_shows_no_bar_in_a_pipe(
    console_script, environment, data, tmp_path
):
    done = subprocess.run(
        [*console_script, "evaluate", data, "--labels", "20", *QUICK, "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert 4 == len(json.loads(done.stdout)["runs"])
