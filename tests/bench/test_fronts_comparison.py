"""Every way to a front on identical estimates: none above the line, all judged by one front."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from optllm_router.bench import fronts
from optllm_router.bench.fronts import (
    GRIDS,
    N_RUNS,
    ROUNDING,
    compare_fronts,
    fronts_table,
    written,
)
from optllm_router.bench.problem import split
from optllm_router.bench.routers import ours
from optllm_router.bench.routing import Terms
from optllm_router.core.front import pareto_front
from optllm_router.core.search import destroy_repair


def some_estimates(n=40, m=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, m)), rng.uniform(0.5, 1.5, (n, m)) * 3.0 ** np.arange(m)


def rows_of(prob, cost, **options):
    found = compare_fronts(prob, cost, seed=0, **{"evolutionary": False, **options})
    return {row.name: row for row in found}


@pytest.mark.parametrize("seed", range(3))
def test_no_search_finds_a_point_above_the_exact_line(seed):
    rows = rows_of(*some_estimates(seed=seed))

    names = ["exact front", *(f"destroy and repair, GN {grid}" for grid in GRIDS)]
    assert names == list(rows)
    assert 0.0 == rows["exact front"].above
    assert all(row.above <= 1e-12 for row in rows.values())
    assert all(row.seconds > 0.0 for row in rows.values())


def test_the_exact_front_is_at_no_distance_from_itself_and_dominates_most():
    prob, cost = some_estimates()

    rows = rows_of(prob, cost)

    exact = rows["exact front"]
    assert pareto_front(prob, cost).n_points == exact.n_points
    assert (0.0, 0.0) == (exact.igd, exact.igd_plus)
    for row in rows.values():
        assert row.hypervolume <= exact.hypervolume + 1e-12
        assert row.igd >= row.igd_plus >= 0.0


def test_a_finer_grid_comes_nearer():
    rows = rows_of(*some_estimates(120))

    igd = [rows[f"destroy and repair, GN {grid}"].igd for grid in GRIDS]
    assert igd[0] > igd[1] >= igd[2]
    points = [rows[f"destroy and repair, GN {grid}"].n_points for grid in GRIDS]
    assert points[0] < points[1] <= points[2]


def test_evolutionary_baselines_are_judged_alike_and_stay_below_the_line():
    pytest.importorskip("pymoo")

    rows = rows_of(*some_estimates(12, 3), evolutionary=True, limit_s=0.2)

    names = [name for name in rows if "generations" in name]
    assert ["nsga2", "sms_emoa", "r_nsga2", "moead"] == [name.split(",")[0] for name in names]
    assert all(rows[name].above <= 1e-12 for name in names)
    assert all(rows[name].seconds < 5.0 for name in names)


def test_where_all_candidates_are_alike_a_front_is_a_point_and_has_no_quality():
    rows = rows_of(np.full((10, 3), 0.5), np.full((10, 3), 2.0))

    for row in rows.values():
        assert (1, 0.0) == (row.n_points, row.above)
        assert all(
            math.isnan(value) for value in (row.igd, row.igd_plus, row.spread, row.hypervolume)
        )


def test_the_table_compares_on_the_test_part_and_says_how_much_slower_a_search_is(made):
    part = split(made(60), "random", 30, 0)

    tables = list(fronts_table(part, Terms(), limit_s=0.1))

    (table,) = tables
    assert "n = 30 queries" in table.title
    assert all(len(row) == len(table.header) for row in table.rows)
    assert "exact front" == table.rows[0][0]
    at = table.header.index("IGD")
    assert ("0.0000", "0.0000") == table.rows[0][at : at + 2]
    runs = [row[table.header.index("runs")] for row in table.rows]
    assert [str(N_RUNS)] * (1 + len(GRIDS)) == runs[: 1 + len(GRIDS)]
    assert all("1" == one for one in runs[1 + len(GRIDS) :])
    assert "times as long" in table.note
    assert "drawn at random" not in table.title


def test_the_exact_front_and_a_search_are_timed_alike_and_the_first_run_is_not_all(monkeypatch):
    """A first run that is slow, as a cold one is, counts in no time."""
    slow = {pareto_front, destroy_repair}

    def cold(compute):
        def computed(*args, **options):
            if compute in slow:
                slow.discard(compute)
                time.sleep(0.3)
            return compute(*args, **options)

        return computed

    monkeypatch.setattr(fronts, "pareto_front", cold(pareto_front))
    monkeypatch.setattr(fronts, "destroy_repair", cold(destroy_repair))

    rows = rows_of(*some_estimates(10, 2))

    assert not slow
    assert all(row.seconds < 0.3 and N_RUNS == row.n_runs for row in rows.values())


def test_what_is_slow_is_not_run_again(monkeypatch):
    monkeypatch.setattr(fronts, "REPEAT_S", 0.0)

    assert {1} == {row.n_runs for row in rows_of(*some_estimates(10, 2)).values()}


def test_the_note_says_how_far_above_the_line_a_point_is():
    rows = compare_fronts(*some_estimates(), seed=0, evolutionary=False)
    rounded = [*rows[:2], replace(rows[2], above=3.2e-13), *rows[3:]]

    assert "more than 3.2e-13 above the exact front's line" in written(rounded, "40 queries").note


def test_the_note_is_loud_about_a_point_above_the_line():
    rows = compare_fronts(*some_estimates(), seed=0, evolutionary=False)
    wrong = [*rows[:2], replace(rows[2], above=2 * ROUNDING), *rows[3:]]

    note = written(wrong, "40 queries").note
    assert note.startswith("THE EXACT FRONT IS REFUTED: destroy and repair, GN 50 is 2.0e-09 above")


def test_more_queries_than_the_baselines_take_are_compared_without_them(made, monkeypatch):
    pytest.importorskip("pymoo")
    monkeypatch.setattr(fronts, "MAX_QUERIES", 100)
    part = split(made(140, 2), "random", 30, 0)

    small, large = fronts_table(part, Terms(), limit_s=0.01)

    assert "n = 100 queries drawn at random from 110 (seed 0)" in small.title
    assert "n = 110 queries" in large.title
    assert 4 == sum("generations" in row[0] for row in small.rows)
    assert not any("generations" in row[0] for row in large.rows)


def test_the_few_queries_are_drawn_by_the_seed_and_not_the_first_ones(made, monkeypatch):
    monkeypatch.setattr(fronts, "MAX_QUERIES", 10)
    monkeypatch.setattr(fronts, "find_spec", lambda _name: None)
    part = split(made(90), "random", 30, 4)
    routed = ours(part, Terms())

    small, again = (next(fronts_table(part, Terms())) for _ in range(2))

    of_rng = np.sort(np.random.default_rng(4).choice(60, 10, replace=False))
    assert of_rng.tolist() != list(range(10))
    (exact, *_) = compare_fronts(
        routed.prob[of_rng], routed.cost_usd[of_rng], seed=4, evolutionary=False
    )
    shown = small.rows[0][small.header.index("hypervolume")]
    assert (f"{exact.n_points}", f"{exact.hypervolume:.4f}") == (small.rows[0][1], shown)
    assert [row[1] for row in small.rows] == [row[1] for row in again.rows]
    assert small.title.endswith("10 queries drawn at random from 60 (seed 4)")
