"""A report as JSON values and as tables."""

import json
import math
from dataclasses import replace

import pytest

from optllm_router.bench.figures import FIGURES, HEADLINE
from optllm_router.bench.records import Against, ExtraTable
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
        (2.1e-4, 2e-5, 6e-4, "", "0.0002 [2e-05, 0.001]"),
        (-4e-16, -1e-15, 3e-16, "+", "0 [0, 0]"),
        (0.5, 0.25, 0.75, "+", "+0.500 [+0.250, +0.750]"),
        (-0.0316, -0.05, 0.01, "+", "-0.032 [-0.050, +0.010]"),
        (0.5, math.nan, math.nan, "", "0.500"),
        (0.0, 0.0, 0.0, "", "0 [0, 0]"),
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
            ends["kind"] = row.kinds[name]
            assert ends == written["figures"][name]
        assert set(row.against_zero) == set(written["against_zero"])
    for run, written in zip(report.runs, found["runs"], strict=True):
        assert dict(run.figures) == written["figures"]
        assert run.n_test == written["n_test"]
        assert run.drawn.cost_usd.tolist() == written["drawn"]["cost_usd"]
        assert run.drawn.score.tolist() == written["drawn"]["score"]
        assert len(run.reliability) == len(written["reliability"])
        for bins, found_bins in zip(run.reliability, written["reliability"], strict=True):
            assert (bins.candidate, bins.ece, bins.brier, bins.log_loss) == tuple(
                found_bins[name] for name in ("candidate", "ece", "brier", "log_loss")
            )
            assert bins.prob.tolist() == found_bins["prob"]
            assert bins.n.tolist() == found_bins["n"]
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


def against(router, n_labelled, low=0.1):
    return Against(
        router=router,
        n_labelled=n_labelled,
        n_seeds=2,
        figures={name: Interval(mean=0.2, low=low, high=0.3) for name in HEADLINE},
        kinds=dict.fromkeys(HEADLINE, "seeds and texts"),
    )


def test_ours_against_each_other_router_is_a_compact_table_per_number_of_labels(report):
    compared = (against("zero", 20), against("ridge", 20, low=-0.1), against("zero", 30))

    tables = report_tables(replace(report, ours_against=compared))

    (table,) = (t for t in tables if t.title.startswith("Ours against"))
    expected = (
        "Ours against each other router, paired, 20 labelled, 2 seeds, 95 % intervals over seeds "
        "and test texts"
    )
    assert expected == table.title
    assert ("ours minus", "budget area", "saving at best", "highest score") == table.header
    assert ("zero", *["+0.200 [+0.100, +0.300]"] * 3) == table.rows[0]
    assert ("ridge", *["+0.200 [-0.100, +0.300]"] * 3) == table.rows[1]
    assert tables[-1] is table


def test_ours_against_each_other_router_is_json_under_a_key_of_its_own(report):
    found = json.loads(json.dumps(as_dict(replace(report, ours_against=(against("knn", 20),)))))

    (one,) = found["ours_against"]
    assert ("knn", 20, 2) == (one["router"], one["n_labelled"], one["n_seeds"])
    assert set(HEADLINE) == set(one["figures"])
    expected = {"mean": 0.2, "low": 0.1, "high": 0.3, "kind": "seeds and texts"}
    assert expected == one["figures"]["budget_area"]
    assert [] == as_dict(report)["ours_against"]


def test_figures_have_their_units_in_the_header(report):
    policies = next(t for t in report_tables(report) if t.title.startswith("Policies"))

    assert "target: saving (share)" in policies.header


def test_amounts_have_as_many_decimals_as_they_need(report):
    row = replace(
        report.rows[0],
        figures={"cost_error_per_query": Interval(mean=2.1e-5, low=1.94e-5, high=2.31e-5)},
    )

    (table,) = (
        t for t in report_tables(replace(report, rows=(row,))) if t.title.startswith("Estimates")
    )

    assert (("zero", "0.0000210 [0.0000194, 0.0000231]"),) == table.rows


def test_what_runs_say_of_themselves_stands_below_the_first_table_once(report):
    tables = [t for t in report_tables(report) if ", 20 labelled, n" in t.title]

    own = {r.note: None for r in report.runs if (r.router, r.n_labelled) == ("knn", 20)}
    assert f"knn: {'; '.join(own)}" in tables[0].note.splitlines()
    assert not any("knn: " in t.note for t in tables[1:])


def test_tables_say_what_their_intervals_are_over(report):
    kind = {
        t.title.partition(",")[0]: t.title.rpartition("seeds, ")[2] for t in report_tables(report)
    }

    assert "95 % intervals over seeds and test texts" == kind["Policies"]
    assert "95 % intervals over seeds only" == kind["Estimates"]
    mixed = replace(report.rows[0], kinds={**report.rows[0].kinds, "overspend": "none"})
    table = report_tables(replace(report, rows=(mixed, *report.rows[1:])))[1]
    assert "intervals over" not in table.title
    assert "no intervals: overspend (zero)" in table.note


def test_each_candidate_s_calibration_is_a_mean_over_the_seeds(report):
    table = next(t for t in report_tables(report) if t.title.startswith("Calibration of each"))

    runs = [run for run in report.runs if (run.router, run.n_labelled) == ("knn", 20)]
    assert ["a", "b", "c"] == [row[1] for row in table.rows]
    mean = sum(run.reliability[0].brier for run in runs) / len(runs)
    assert f"{mean:.3f}" == table.rows[0][3]


def test_tables_beside_the_figures_come_last(report):
    beside = ExtraTable(title="beside", header=("a",), rows=(("1",),), note="why")

    assert beside == report_tables(replace(report, tables=(beside,)))[-1]
