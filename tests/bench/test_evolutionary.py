"""OptLLM's evolutionary baselines: valid allocations, within their time, again by their seed."""

import sys
import time

import numpy as np
import pytest

from optllm_router.bench import evolutionary
from optllm_router.bench.evolutionary import MAX_QUERIES, NAMES, evolve
from optllm_router.core.front import pareto_front
from optllm_router.errors import ConfigError

PROB = np.random.default_rng(0).random((8, 3))
COST = np.random.default_rng(1).uniform(0.5, 1.5, (8, 3)) * [1.0, 4.0, 16.0]


@pytest.fixture
def few_generations(monkeypatch):
    pytest.importorskip("pymoo")
    monkeypatch.setattr(evolutionary, "GENERATIONS", 8)


@pytest.mark.parametrize("name", NAMES)
def test_what_evolves_are_allocations_below_the_exact_line(few_generations, name):
    found = evolve(name, PROB, COST, seed=0)

    assert np.int64 == found.choice.dtype
    assert 8 == found.choice.shape[1]
    assert ((found.choice >= 0) & (found.choice < 3)).all()
    assert len(np.unique(found.choice, axis=0)) == len(found.choice)
    front, each = pareto_front(PROB, COST), np.arange(8)
    for choice in found.choice:
        bound = np.interp(COST[each, choice].sum(), front.cost_usd, front.accuracy)
        assert PROB[each, choice].mean() <= bound + 1e-12
    assert 8 == found.n_generations


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_evolves_the_same_again(few_generations, monkeypatch, name):
    monkeypatch.setattr(evolutionary, "GENERATIONS", 3)  # long before seeds agree
    prob, cost = np.random.default_rng(2).random((2, 30, 4))

    first, again, other = (evolve(name, prob, cost, seed=seed) for seed in (3, 3, 4))

    assert first.choice.tolist() == again.choice.tolist()
    assert first.choice.tolist() != other.choice.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_of_three_queries_both_ends_of_the_front_are_found(few_generations, name):
    prob, cost = PROB[:3], COST[:3]

    found = evolve(name, prob, cost, seed=0).choice.tolist()

    assert cost.argmin(axis=1).tolist() in found
    assert prob.argmax(axis=1).tolist() in found


def test_time_ends_a_run_between_generations():
    pytest.importorskip("pymoo")
    start = time.perf_counter()

    found = evolve("nsga2", *np.random.default_rng(0).random((2, 500, 4)), seed=0, limit_s=0.3)

    assert time.perf_counter() - start < 5.0
    assert 1 <= found.n_generations < 200


def test_importing_pymoo_is_not_counted_as_the_algorithm_s_time(few_generations, monkeypatch):
    monkeypatch.setattr(evolutionary, "GENERATIONS", 1)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pymoo"]:
        monkeypatch.delitem(sys.modules, name)
    start = time.perf_counter()

    found = evolve("nsga2", PROB, COST, seed=0)

    assert found.seconds < 0.5 * (time.perf_counter() - start)


def test_free_candidates_are_no_obstacle(few_generations):
    found = evolve("nsga2", PROB, np.zeros_like(COST), seed=0)

    assert [PROB.argmax(axis=1).tolist()] == found.choice.tolist()


def test_an_unknown_baseline_and_too_many_queries_are_refused():
    with pytest.raises(ConfigError, match=r"'nsga3' is no .* nsga2, sms_emoa, r_nsga2, moead"):
        evolve("nsga3", PROB, COST, seed=0)
    with pytest.raises(ConfigError, match=r"2001 queries are too many for moead: .* at most 2000"):
        evolve("moead", *np.zeros((2, MAX_QUERIES + 1, 2)), seed=0)


def test_without_pymoo_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymoo.optimize", None)

    with pytest.raises(ConfigError, match=r"pip install 'optllm-router\[evolutionary\]'"):
        evolve("nsga2", PROB, COST, seed=0)
