"""A report as JSON values and as tables."""

import json
import math
from dataclasses import replace

import pytest

from optllm_router.bench.records import FIGURES, HEADLINE, ExtraTable
from optllm_router.bench.reporting import GROUPS, as_dict, interval_text, report_tables
from optllm_router.bench.routing import Terms
from optllm_router.bench.study import Plan, evaluate
from optllm_router.core.evaluation import Interval


@pytest.fixture(scope="module")
def report(made):
    plan = Plan(
        n_labelled=[20, 30],
        n_seeds=2,
        routers=("zero", "knn", "metallm"),
        kind="random",
        terms=Terms(),
        n_resamples=4,
    )
    return evaluate(made(60, n_texts=55), plan, lambda _: None)


@pytest.mark.parametrize(
    ("mean", "low", "high", "sign", "expected"),
    [
        (0.5, 0.25, 0.75, "", "0.500 [0.250, 0.750]"),
        (0.5, 0.25, 0.75, "+", "+0.500 [+0.250, +0.750]"),
        (-0.0316, -0.05, 0.01, "+", "-0.032 [-0.050, +0.010]"),
        (0.5, math.nan, math.nan, "", "0.500"),
        (0.0, 0.0, 0.0, "", "0 [0.000, 0.000]"),
        (0.00004, math.nan, math.nan, "", "4e-05"),
        (math.nan, math.nan, math.nan, "", "–"),
    ],
)
def test_a_figure_is_written_with_its_interval_where_it_has_one(mean, low, high, sign, expected):
    assert expected == interval_text(Interval(mean=mean, low=low, high=high), sign)


def test_a_figure_that_is_not_defined_is_a_dash():
    assert "–" == interval_text(None)


def test_every_figure_stands_in_one_group():
    grouped = [name for names in GROUPS.values() for name in names]

    assert sorted(FIGURES) == sorted(grouped)


def test_a_report_is_json_values_and_nothing_of_it_is_lost(report):
    found = json.loads(json.dumps(as_dict(report)))

    assert ("made.csv", 60, 55) == (found["source"], found["n_queries"], found["n_texts"])
    assert {"20": 40, "30": 30} == found["n_test"]
    assert [single.candidate for single in report.singles] == [
        one["candidate"] for one in found["singles"]
    ]
    assert len(report.rows) == len(found["rows"])
    assert len(report.runs) == len(found["runs"])
    for row, written in zip(report.rows, found["rows"], strict=True):
        assert (row.router, row.n_labelled, row.n_seeds) == (
            written["router"],
            written["n_labelled"],
            written["n_seeds"],
        )
        assert set(row.figures) == set(written["figures"])
        for name, interval in row.figures.items():
            ends = {"mean": interval.mean, "low": interval.low, "high": interval.high}
            assert ends == written["figures"][name]
        assert set(row.against_zero) == set(written["against_zero"])
    for run, written in zip(report.runs, found["runs"], strict=True):
        assert dict(run.figures) == written["figures"]
        assert (run.router, run.seed, run.seconds) == (
            written["router"],
            written["seed"],
            written["seconds"],
        )


def test_candidates_are_listed_from_the_best_with_n(report):
    first = report_tables(report)[0]

    assert "made.csv: 60 queries, 55 distinct texts" == first.title
    scores = {single.candidate: single.score for single in report.singles}
    assert sorted(scores, key=lambda name: -scores[name]) == [row[0] for row in first.rows]


def test_every_table_says_labels_n_split_and_costs_and_has_a_row_per_router(report):
    tables = report_tables(report)

    for n, n_test in report.n_test.items():
        for title in GROUPS:
            (table,) = (t for t in tables if t.title.startswith(f"{title}, {n} labelled"))
            assert f"n = {n_test} test, split random, forecast costs, 2 seeds" in table.title
            assert ["zero", "knn", "metallm"] == [row[0] for row in table.rows]
            assert all(len(row) == len(table.header) for row in table.rows)


def test_what_a_router_does_not_estimate_is_a_dash(report):
    estimates = next(t for t in report_tables(report) if t.title.startswith("Estimates, 20"))

    by_name = {row[0]: row[1:] for row in estimates.rows}
    assert {"–"} == set(by_name["zero"])
    assert "–" not in by_name["knn"]


def test_differences_from_the_zero_router_leave_it_out(report):
    paired = [t for t in report_tables(report) if t.title.startswith("Difference")]

    assert 2 == len(paired)
    for table in paired:
        assert ["knn", "metallm"] == [row[0] for row in table.rows]
        assert 1 + len(HEADLINE) == len(table.header)


def test_figures_have_their_units_in_the_header(report):
    policies = next(t for t in report_tables(report) if t.title.startswith("Policies"))

    assert "target: saving (share)" in policies.header


def test_tables_beside_the_figures_come_last(report):
    beside = ExtraTable(title="beside", header=("a",), rows=(("1",),), note="why")

    assert beside == report_tables(replace(report, tables=(beside,)))[-1]
