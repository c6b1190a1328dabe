"""A whole evaluation: what runs, what is paired with what, how wide intervals are, odd tables."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optllm_router.bench.figures import FIGURES, HEADLINE, RESAMPLED
from optllm_router.bench.names import FAST_ROUTERS
from optllm_router.bench.problem import split
from optllm_router.bench.records import Drawn, Run
from optllm_router.bench.routing import Terms
from optllm_router.bench.study import Plan, evaluate, known_routers, ours_against, rows_of
from optllm_router.core.evaluation import t_interval
from optllm_router.errors import ConfigError

QUICK = ("metallm", "knn", "zero", "random", "oracle")
POINT = np.zeros(1)


def a_plan(**changes) -> Plan:
    values = {
        "n_labelled": [20],
        "n_seeds": 2,
        "routers": QUICK,
        "kind": "random",
        "terms": Terms(n_bootstraps=2),
        "n_resamples": 8,
    }
    return Plan(**{**values, **changes})


def silent(_label: str) -> None:
    pass


def a_run(router, seed, figures, resampled=None) -> Run:
    return Run(
        router=router,
        n_labelled=20,
        n_test=40,
        seed=seed,
        figures=figures,
        resampled={} if resampled is None else resampled,
        drawn=Drawn(cost_usd=POINT, score=POINT),
    )


def only_row(runs, router="ours"):
    (row,) = (row for row in rows_of(runs) if row.router == router)
    return row


def noisy(n_seeds, router="ours", *, shift=0.0, n_resamples=50, spread=0.1):
    """Runs whose seeds and resamples of texts share nothing but the draw's number."""
    rng = np.random.default_rng(4)
    shared = rng.normal(size=n_resamples)
    return [
        a_run(
            router,
            seed,
            {"budget_area": 0.5 + shift + spread * at},
            {"budget_area": 0.5 + shift + spread * at + 0.01 * shared},
        )
        for seed, at in enumerate(rng.normal(size=n_seeds))
    ]


def test_unknown_routers_are_named_with_the_nearest_and_known_ones_kept_once():
    assert ("zero", "ours") == known_routers(["zero", "ours", "zero"])
    with pytest.raises(ConfigError, match=r"`--routers metalm` .*\(did you mean 'metallm'\?\)"):
        known_routers(["zero", "metalm"])


def test_every_router_runs_on_every_split_and_says_when(made):
    labels = []
    plan = a_plan(n_labelled=[20, 30], routers=("zero", "random"))

    report = evaluate(made(60), plan, labels.append)

    assert 8 == plan.n_runs == len(labels)
    assert "zero, 20 labelled, seed 0" == labels[0]
    assert "random, 30 labelled, seed 1" == labels[-1]
    ran = [(run.n_labelled, run.seed, run.router) for run in report.runs]
    assert [(n, s, r) for n in (20, 30) for s in (0, 1) for r in ("zero", "random")] == ran
    expected = [("zero", 20, 2), ("random", 20, 2), ("zero", 30, 2), ("random", 30, 2)]
    assert expected == [(row.router, row.n_labelled, row.n_seeds) for row in report.rows]
    assert {20: 40, 30: 30} == report.n_test


def test_a_report_says_what_it_was_made_of(made):
    problem = made(60, n_texts=50)

    report = evaluate(problem, a_plan(kind="text", terms=Terms(oracle_costs=True)), silent)

    assert ("made.csv", 60, 50) == (report.source, report.n_queries, report.n_texts)
    assert ("text", "oracle", 2, 8) == (
        report.split,
        report.costs,
        report.n_seeds,
        report.n_resamples,
    )
    for j, single in enumerate(report.singles):
        assert problem.candidates[j] == single.candidate
        assert problem.scores[:, j].mean() == pytest.approx(single.score)
        assert problem.cost_usd[:, j].sum() == pytest.approx(single.cost_usd)


def test_the_same_plan_gives_the_same_figures_and_intervals(made):
    first, again = (evaluate(made(60), a_plan(), silent) for _ in range(2))

    assert [run.figures for run in first.runs] == [run.figures for run in again.runs]
    assert first.rows == again.rows


def test_a_row_is_the_mean_over_the_seeds_within_its_interval(made):
    report = evaluate(made(60), a_plan(n_seeds=3), silent)

    for row in report.rows:
        own = [run for run in report.runs if run.router == row.router]
        for name, interval in row.figures.items():
            assert np.mean([run.figures[name] for run in own]) == pytest.approx(interval.mean)
            assert interval.low - 1e-12 <= interval.mean <= interval.high + 1e-12


def test_differences_from_the_zero_router_are_paired_seed_by_seed(made):
    report = evaluate(made(60), a_plan(n_seeds=3), silent)

    by_name = {row.router: row for row in report.rows}
    assert {} == by_name["zero"].against_zero
    for name in ("knn", "oracle"):
        assert set(HEADLINE) == set(by_name[name].against_zero)
        for figure, interval in by_name[name].against_zero.items():
            expected = by_name[name].figures[figure].mean - by_name["zero"].figures[figure].mean
            assert expected == pytest.approx(interval.mean)


def test_pairing_takes_away_what_both_routers_have_in_common():
    runs = noisy(5, "zero") + noisy(5, "ours", shift=0.02)

    row = only_row(runs)

    width = row.figures["budget_area"].high - row.figures["budget_area"].low
    against = row.against_zero["budget_area"]
    assert 0.02 == pytest.approx(against.mean)
    assert (0.02, 0.02) == pytest.approx((against.low, against.high))
    assert width > 0.05


def test_nothing_is_compared_with_a_zero_router_that_did_not_run():
    assert {} == only_row(noisy(3)).against_zero


def test_ours_is_compared_with_every_other_router_paired_as_with_zero(made):
    plan = a_plan(n_labelled=[20, 30], n_seeds=3, routers=("zero", "ours", "knn", "oracle"))

    report = evaluate(made(60, n_texts=50), plan, silent)

    pairs = [(one.n_labelled, one.router) for one in report.ours_against]
    assert [(n, name) for n in (20, 30) for name in ("zero", "knn", "oracle")] == pairs
    rows = {(row.n_labelled, row.router): row for row in report.rows}
    for one in report.ours_against:
        ours, other = rows[one.n_labelled, "ours"], rows[one.n_labelled, one.router]
        assert 3 == one.n_seeds
        assert set(HEADLINE) == set(one.figures) == set(one.kinds)
        for name, interval in one.figures.items():
            expected = ours.figures[name].mean - other.figures[name].mean
            assert expected == pytest.approx(interval.mean)
        if one.router == "zero":
            assert ours.against_zero == one.figures
            assert ours.against_kinds == one.kinds


def test_ours_and_another_router_are_paired_seed_by_seed_and_text_by_text():
    runs = noisy(5, "ours", shift=0.02) + noisy(5, "ridge")

    (found,) = ours_against(runs)

    assert "ridge" == found.router
    interval = found.figures["budget_area"]
    assert (0.02, 0.02, 0.02) == pytest.approx((interval.mean, interval.low, interval.high))
    assert {"budget_area": "seeds and texts"} == found.kinds


def test_nothing_is_compared_with_ours_where_it_did_not_run():
    assert [] == list(ours_against(noisy(3, "zero") + noisy(3, "knn")))


@pytest.mark.parametrize(
    ("others", "shown"),
    [
        ((), ()),
        (("zero",), ()),
        (("oracle", "zero"), ()),
        (("zero", "random", "oracle"), ("zero", "random", "oracle")),
    ],
)
def test_only_where_another_router_than_the_bounds_ran_there_are_rivals(made, others, shown):
    report = evaluate(made(60), a_plan(routers=("ours", *others), n_resamples=0), silent)

    assert shown == tuple(one.router for one in report.rivals(20))
    assert () == report.rivals(30)


@pytest.mark.parametrize("n_seeds", [2, 3, 9])
def test_below_ten_seeds_an_interval_is_at_least_as_wide_as_student_s(n_seeds):
    runs = noisy(n_seeds)

    found = only_row(runs).figures["budget_area"]

    student = t_interval([run.figures["budget_area"] for run in runs])
    assert found.low <= student.low
    assert found.high >= student.high


def test_from_ten_seeds_on_the_bootstrap_stands_alone():
    runs = noisy(10)

    found = only_row(runs).figures["budget_area"]

    student = t_interval([run.figures["budget_area"] for run in runs])
    assert student.low < found.low < found.mean < found.high < student.high


def test_where_seeds_agree_the_interval_is_that_of_the_texts():
    runs = noisy(4, spread=0.0, n_resamples=2_000)

    found = only_row(runs).figures["budget_area"]

    drawn = np.quantile(runs[0].resampled["budget_area"], [0.025, 0.975])
    assert drawn == pytest.approx([found.low, found.high], abs=1e-3)


def test_a_single_seed_has_intervals_over_texts_only():
    (run,) = noisy(1)
    figures = {**run.figures, "ece": 0.1}

    row = only_row([a_run("ours", 0, figures, run.resampled)])

    area, ece = row.figures["budget_area"], row.figures["ece"]
    assert area.low < area.mean < area.high
    assert 0.1 == ece.mean
    assert math.isnan(ece.low)
    assert math.isnan(ece.high)


def test_without_resamples_seeds_alone_give_the_intervals_paired_ones_too():
    runs = [
        a_run(name, seed, {"budget_area": value})
        for name, values in {"zero": (0.1, 0.5, 0.3), "ours": (0.2, 0.61, 0.4)}.items()
        for seed, value in enumerate(values)
    ]

    row = only_row(runs)

    assert t_interval([0.2, 0.61, 0.4]) == row.figures["budget_area"]
    expected = t_interval([0.1, 0.11, 0.1])
    found = row.against_zero["budget_area"]
    assert (expected.mean, expected.low) == pytest.approx((found.mean, found.low))


def test_resamples_in_which_a_figure_is_not_defined_leave_it_to_the_seeds():
    resampled = {"budget_area": np.array([0.1, math.nan, math.nan])}
    runs = [a_run("ours", seed, {"budget_area": 0.1 * seed}, resampled) for seed in range(3)]

    row = only_row(runs)

    assert t_interval([0.0, 0.1, 0.2]) == row.figures["budget_area"]
    assert {"budget_area": "seeds"} == row.kinds


def test_a_few_resamples_in_which_a_figure_is_not_defined_do_not_count():
    defined = np.arange(9.0)
    runs = [
        a_run("ours", 0, {"budget_area": 4.0}, {"budget_area": values})
        for values in (defined, np.append(defined, math.nan))
    ]

    alone, among = (only_row([one]) for one in runs)

    assert alone.figures == among.figures
    assert {"budget_area": "seeds and texts"} == among.kinds


def test_an_interval_says_what_it_is_over_the_policies_too(made):
    several, single = (evaluate(made(60), a_plan(n_seeds=n), silent) for n in (2, 1))

    for report, rest in ((several, "seeds"), (single, "none")):
        for row in report.rows:
            assert set(row.figures) == set(row.kinds)
            for name, kind in row.kinds.items():
                assert ("seeds and texts" if name in RESAMPLED else rest) == kind
            assert {"seeds and texts"} >= set(row.against_kinds.values())
            assert set(row.against_zero) == set(row.against_kinds)
    assert any(note.startswith("Below 10 seeds") for note in several.notes)
    assert any(note.startswith("With 1 seed") for note in single.notes)


def test_a_split_by_time_runs_one_seed_and_says_so(made):
    plan, labels = a_plan(kind="time", n_seeds=3), []

    report = evaluate(made(60), plan, labels.append)

    assert len(QUICK) == plan.n_runs == len(labels) == len(report.runs)
    assert 1 == report.n_seeds
    assert "A split by time is the same for every seed: 1 of 3 seeds ran." in report.notes


def test_the_test_parts_are_told_as_means_over_the_seeds(made):
    problem, plan = made(60, n_texts=45), a_plan(kind="text", n_seeds=5, routers=("zero",))

    report = evaluate(problem, plan, silent)

    parts = [split(problem, "text", 20, seed).test for seed in range(5)]
    sizes = [part.n_queries for part in parts]
    assert len(set(sizes)) > 1
    assert sizes == [run.n_test for run in report.runs]
    assert {20: round(sum(sizes) / 5)} == report.n_test
    for j, single in enumerate(report.test_singles[20]):
        assert problem.candidates[j] == single.candidate
        score = np.mean([part.scores[:, j].mean() for part in parts])
        cost = np.mean([part.cost_usd[:, j].sum() for part in parts])
        assert (score, cost) == pytest.approx((single.score, single.cost_usd))


def test_a_figure_that_a_seed_does_not_have_is_no_figure_of_the_row():
    runs = [a_run("ours", 0, {"aiq": 0.5, "qnc": 1.0}), a_run("ours", 1, {"qnc": 0.5})]

    assert ["qnc"] == list(only_row(runs).figures)


@pytest.mark.parametrize(("kind", "n_texts", "n"), [("text", 1, 20), ("task", 60, 50)])
def test_an_impossible_split_is_refused_before_anything_runs(made, kind, n_texts, n):
    labels = []

    with pytest.raises(ConfigError, match="no test query"):
        evaluate(
            made(60, n_texts=n_texts), a_plan(kind=kind, n_labelled=[5, n][-1:]), labels.append
        )

    assert [] == labels


def dear_and_free(n, m, free):
    cost = np.random.default_rng(1).uniform(0.5, 1.5, (n, m)) * 10.0 ** np.arange(m)
    cost[:, free] = 0.0
    return cost


SHAPE = (60, 3)
CROSSFIT = {"saving_crossfit", "shortfall_crossfit"}
FRONT = {"igd", "igd_plus", "hypervolume", "spread"}
BUDGETS = {"budget_area", "overspend"}
RELATIVE = {"saving_at_best", "qnc", "target_saving", *CROSSFIT, *BUDGETS}
COSTS = {"cost_error", "cost_error_per_query"}
ESTIMATES = {"ece", "ece_pooled", "brier", "log_loss", *COSTS}
TARGETS = {"target_shortfall", "target_missed", "target_saving"}
ODD = {
    "two candidates": ({"m": 2}, 20, set()),
    "all right": ({"scores": np.ones(SHAPE)}, 20, FRONT),
    "all wrong": ({"scores": np.zeros(SHAPE)}, 20, FRONT | TARGETS),
    "all half right": ({"scores": np.full(SHAPE, 0.5)}, 20, FRONT),
    "the cheapest free": ({"cost_usd": dear_and_free(60, 3, 0)}, 20, BUDGETS),
    "the best free": ({"cost_usd": dear_and_free(60, 3, 2)}, 20, RELATIVE),
    "all free": ({"cost_usd": np.zeros(SHAPE)}, 20, RELATIVE | FRONT | COSTS),
    "equally dear": ({"cost_usd": np.full(SHAPE, 0.1)}, 20, FRONT),
    "hardly any cost": ({"cost_usd": np.full(SHAPE, 1e-15) * np.arange(1, 4)}, 20, set()),
    "costs without order": (
        {"cost_usd": np.random.default_rng(3).uniform(0.5, 1.5, SHAPE)},
        20,
        set(),
    ),
    "one test query": ({}, 59, CROSSFIT | FRONT),
    "two labels": ({}, 2, set()),
    "one text": ({"n_texts": 1}, 20, CROSSFIT),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_tables_have_figures_that_are_defined_and_no_others(made, case):
    changes, n_labelled, absent = ODD[case]
    plan = a_plan(n_labelled=[n_labelled], n_resamples=4, n_seeds=1)

    report = evaluate(made(**changes), plan, silent)

    for run in report.runs:
        assert all(math.isfinite(value) for value in run.figures.values()), run.router
        assert not absent & set(run.figures), run.router
        unasked = (ESTIMATES if run.router != "knn" else set()) | (
            TARGETS if run.router in {"metallm", "oracle"} else set()
        )
        assert set(FIGURES) <= absent | unasked | set(run.figures) | FRONT, run.router


@pytest.mark.parametrize("case", ["all right", "all wrong", "all free", "one text", "two labels"])
def test_ours_bears_odd_tables_too(made, case):
    changes, n_labelled, absent = ODD[case]

    report = evaluate(
        made(**changes),
        a_plan(n_labelled=[n_labelled], routers=("ours",), n_seeds=1, n_resamples=2),
        silent,
    )

    assert all(math.isfinite(value) for value in report.runs[0].figures.values())
    assert not absent & set(report.runs[0].figures)


def test_all_fast_routers_are_compared_on_the_same_curve_figures(made):
    report = evaluate(made(60), a_plan(routers=FAST_ROUTERS, n_seeds=1), silent)

    always = set(FIGURES) - ESTIMATES - TARGETS
    assert all(always <= set(row.figures) for row in report.rows)
    area = {row.router: row.figures["budget_area"].mean for row in report.rows}
    assert max(area, key=lambda name: area[name]) == "oracle"
