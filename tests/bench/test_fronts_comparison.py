"""Every way to a front on identical estimates: none above the line, all judged by one front."""

import math

import numpy as np
import pytest

from optllm_router.bench.evolutionary import MAX_QUERIES
from optllm_router.bench.fronts import GRIDS, compare_fronts, fronts_table
from optllm_router.bench.problem import split
from optllm_router.bench.routing import Terms
from optllm_router.core.front import pareto_front


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
    assert ("0.0000", "0.0000") == table.rows[0][3:5]
    assert "times as long" in table.note


def test_more_queries_than_the_baselines_take_are_compared_without_them(made):
    pytest.importorskip("pymoo")
    part = split(made(MAX_QUERIES + 40, 2), "random", 30, 0)

    small, large = fronts_table(part, Terms(), limit_s=0.01)

    assert f"n = {MAX_QUERIES:,} queries" in small.title
    assert f"n = {MAX_QUERIES + 10:,} queries" in large.title
    assert 4 == sum("generations" in row[0] for row in small.rows)
    assert not any("generations" in row[0] for row in large.rows)
