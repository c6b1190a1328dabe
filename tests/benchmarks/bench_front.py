"""The front's time against one `np.argsort` of the same floats, and its peak memory.

Bars (DESIGN section 7): time at most 3 x the sort in the same run, peak at most 6 x the input of
n x m floats. Times are processor times, so that other work on the machine counts less.
Run it: `python tests/benchmarks/bench_front.py [--sizes 10000 1000000]`.
"""

import argparse
import statistics
import time
import tracemalloc

import numpy as np

from optllm_router.core.front import pareto_front

N_COLUMNS = 12
TIME_BAR, MEMORY_BAR = 3.0, 6.0


def independent(rng, n):
    """Costs and probabilities without any relation: hulls of about three vertices."""
    return rng.random((n, N_COLUMNS)), rng.random((n, N_COLUMNS))


def priced(rng, n):
    """A price ladder from 1 to 400 with lengths that vary by query, and skill that follows it."""
    ladder = np.geomspace(1e-5, 4e-3, N_COLUMNS)
    cost = ladder * rng.lognormal(0, 0.5, (n, 1)) * rng.lognormal(0, 0.1, (n, N_COLUMNS))
    skill = np.linspace(-1, 2, N_COLUMNS) + rng.normal(0, 1, (n, N_COLUMNS))
    return 1 / (1 + np.exp(rng.normal(0, 1.5, (n, 1)) - skill)), cost


def concave(rng, n):
    """The worst case: every column of every query is a vertex of its hull."""
    cost = np.cumsum(rng.random((n, N_COLUMNS)) + 0.1, axis=1)
    return np.sqrt(cost / cost[:, -1:]), cost


def seconds(act, repeats):
    """Return the median processor time of some runs."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        act()
        times.append(time.process_time() - began)
    return statistics.median(times)


def peak_over_input(prob, cost):
    """Return the peak of memory allocated during a call, in units of one n x m matrix."""
    tracemalloc.start()
    front = pareto_front(prob, cost)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / prob.nbytes, front


def report(name, prob, cost):
    """Print one line of figures; the sort and the front take turns, so that both see the load."""
    repeats = 31 if prob.size < 1e6 else 3
    pairs = [
        (
            seconds(lambda: np.argsort(prob, axis=None), 1),
            seconds(lambda: pareto_front(prob, cost), 1),
        )
        for _ in range(repeats)
    ]
    ratio = statistics.median(front / sort for sort, front in pairs)
    sort, whole = (statistics.median(times) for times in zip(*pairs, strict=True))
    peak, front = peak_over_input(prob, cost)
    usd = float(np.median(front.cost_usd)) * 1.0001
    filled = seconds(lambda: front.fill(usd), 3)
    print(
        f"{len(prob):>9,} x {N_COLUMNS} {name:<12} {front.n_points:>10,} points  "
        f"sort {sort * 1e3:8.1f} ms  front {whole * 1e3:8.1f} ms  ratio {ratio:.2f} "
        f"(bar {TIME_BAR:g})  peak {peak:.2f} x input (bar {MEMORY_BAR:g})  "
        f"fill {filled * 1e3:7.1f} ms"
    )


def main():
    """Measure every kind of batch at every size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000])
    sizes = parser.parse_args().sizes
    for n in sizes:
        for make in (independent, priced, concave):
            prob, cost = make(np.random.default_rng(0), n)
            report(make.__name__, prob, cost)


if __name__ == "__main__":
    main()
