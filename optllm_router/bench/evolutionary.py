"""OptLLM's evolutionary baselines, through pymoo: allocations as vectors of integers.

NSGA-II, SMS-EMOA, R-NSGA-II and MOEA/D with the settings that OptLLM's paper reports: a population
of 100, 200 generations, random start (arXiv 2405.15130). They are given at most `MAX_QUERIES`
queries and a time limit, since their work grows with both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from optllm_router.errors import ConfigError
from optllm_router.records import Floats, Ints

MAX_QUERIES = 2_000
POPULATION = 100
GENERATIONS = 200
NAMES = ("nsga2", "sms_emoa", "r_nsga2", "moead")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evolved:
    """What an algorithm found: allocations (n_points, n_queries), and how long it took.

    `seconds` is the run alone, without importing pymoo.
    """

    choice: Ints
    seconds: float
    n_generations: int


def evolve(
    name: str, prob: Floats, cost_usd: Floats, *, seed: int, limit_s: float = 60.0
) -> Evolved:
    """Run one algorithm on (n_queries, n_candidates) estimates, minimising cost and error.

    Raises:
        ConfigError: an unknown name, more than `MAX_QUERIES` queries, or pymoo is not installed.
    """
    if name not in NAMES:
        raise ConfigError(f"{name!r} is no evolutionary baseline: choose from {', '.join(NAMES)}")
    if len(prob) > MAX_QUERIES:
        raise ConfigError(
            f"{len(prob)} queries are too many for {name}: give it at most {MAX_QUERIES}"
        )
    found, seconds = _minimised(name, prob, cost_usd, seed, limit_s)
    choice = np.unique(np.atleast_2d(found.opt.get("X")).astype(np.int64), axis=0)
    return Evolved(choice=choice, seconds=seconds, n_generations=int(found.n_iter) - 1)


def _minimised(
    name: str, prob: Floats, cost_usd: Floats, seed: int, limit_s: float
) -> tuple[Any, float]:
    """Run pymoo; return its algorithm as it stood at the end, and the run's seconds."""
    try:
        from pymoo.core.termination import Termination
        from pymoo.optimize import minimize
    except ImportError:
        raise ConfigError(
            f"{name} needs pymoo, which is not installed: "
            "`pip install 'optllm-router[evolutionary]'`"
        ) from None

    class FirstOf(Termination):  # type: ignore[misc]  # pymoo has no types
        """Stops at the generation's or the time's limit, whichever is first."""

        def _update(self, algorithm: Any) -> float:
            done = algorithm.n_iter >= GENERATIONS
            return float(done or time.perf_counter() - start > limit_s)

    problem, algorithm = _problem(prob, cost_usd), _algorithms(prob, cost_usd)[name]()
    start = time.perf_counter()  # not before: importing pymoo is none of the algorithm's work
    result = minimize(problem, algorithm, FirstOf(), seed=seed, copy_algorithm=False)
    return result.algorithm, time.perf_counter() - start


def _problem(prob: Floats, cost_usd: Floats) -> Any:
    from pymoo.core.problem import Problem

    n_queries, n_candidates = prob.shape
    each = np.arange(n_queries)
    most_usd = float(cost_usd.max(axis=1).sum()) or 1.0

    class Allocation(Problem):  # type: ignore[misc]  # pymoo has no types
        """Total cost as a share of the dearest allocation's, and 1 - mean probability."""

        def __init__(self) -> None:
            super().__init__(n_var=n_queries, n_obj=2, xl=0, xu=n_candidates - 1, vtype=int)

        def _evaluate(self, x: Ints, out: dict[str, Any], *_: Any, **__: Any) -> None:
            choice = np.clip(x, 0, n_candidates - 1).astype(np.int64)
            cost = cost_usd[each, choice].sum(axis=1) / most_usd
            out["F"] = np.column_stack([cost, 1.0 - prob[each, choice].mean(axis=1)])

    return Allocation()


def _algorithms(prob: Floats, cost_usd: Floats) -> Mapping[str, Callable[[], Any]]:
    from pymoo.algorithms.moo.moead import MOEAD
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.algorithms.moo.rnsga2 import RNSGA2
    from pymoo.algorithms.moo.sms import SMSEMOA
    from pymoo.util.ref_dirs import get_reference_directions

    operators = _operators()
    return {
        "nsga2": lambda: NSGA2(pop_size=POPULATION, **operators),
        "sms_emoa": lambda: SMSEMOA(pop_size=POPULATION, **operators),
        "r_nsga2": lambda: RNSGA2(
            ref_points=_extremes(prob, cost_usd), pop_size=POPULATION, **operators
        ),
        "moead": lambda: MOEAD(
            get_reference_directions("uniform", 2, n_partitions=POPULATION - 1), **operators
        ),
    }


def _operators() -> dict[str, Any]:
    """Integers drawn at random, crossed over and mutated as pymoo does reals, then rounded."""
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling

    return {
        "sampling": IntegerRandomSampling(),
        "crossover": SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
        "mutation": PM(eta=20, vtype=float, repair=RoundingRepair()),
    }


def _extremes(prob: Floats, cost_usd: Floats) -> Floats:
    """The two ends of the front as reference points, in the objectives' units."""
    each, most_usd = np.arange(len(prob)), float(cost_usd.max(axis=1).sum()) or 1.0
    ends = (cost_usd.argmin(axis=1), prob.argmax(axis=1))
    return np.array(
        [[cost_usd[each, end].sum() / most_usd, 1.0 - prob[each, end].mean()] for end in ends]
    )
