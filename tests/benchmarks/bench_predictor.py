"""The predictor's time and memory: fit, predict a thousand queries and one.

Bars (DESIGN section 7, two cores): fit 10,000 outcomes x 12 columns x 50 bootstraps within 5 s,
predict 1,000 queries within 150 ms; one live query within 0.3 ms beyond the projection of its
text, which counts as features. Processor time is shown beside the clock's: it says what a
busy machine would show when idle. Run it: `python tests/benchmarks/bench_predictor.py`.
"""

import argparse
import statistics
import time
import tracemalloc
from functools import partial

import numpy as np

from optllm_router.core.features import hash_text
from optllm_router.core.success import SuccessPredictor

N_COLUMNS, N_BOOTSTRAPS, N_TASKS, N_TOPICS = 12, 50, 8, 20
FIT_BAR_S, PREDICT_BAR_S, BEYOND_BAR_S = 5.0, 0.150, 0.0003
N_LIVE = 3_000


def some_texts(rng, n, n_characters):
    """Texts of Zipf-distributed made-up words, every other one from the text's topic."""
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    frequency = 1 / np.arange(1, 27)
    words = [
        "".join(rng.choice(letters, length, p=frequency / frequency.sum()))
        for length in rng.integers(2, 11, 8_000)
    ]
    zipf = 1 / np.arange(1, len(words) + 1)
    topics = [rng.permutation(len(words)) for _ in range(N_TOPICS)]
    topic = rng.integers(N_TOPICS, size=n)
    texts = []
    for t in topic:
        drawn = rng.choice(len(words), n_characters // 4, p=zipf / zipf.sum())
        drawn[::2] = topics[t][drawn[::2]]
        texts.append(" ".join(words[i] for i in drawn)[:n_characters])
    return texts, topic


def some_scores(rng, topic, hidden):
    """Scores that depend on column, topic and luck; a share of them is not observed."""
    skill = np.linspace(-1, 2, N_COLUMNS) + rng.normal(0, 1, (N_TOPICS, N_COLUMNS))[topic]
    chance = 1 / (1 + np.exp(-skill - rng.normal(0, 1, (topic.size, 1))))
    scores = (rng.random(chance.shape) < chance).astype(np.float64)
    scores[rng.random(scores.shape) < hidden] = np.nan
    return scores


def timed(act, repeats):
    """Return the median clock and processor seconds of some runs, and the last result."""
    clocks, cpus = [], []
    for _ in range(repeats):
        clock, cpu = time.perf_counter(), time.process_time()
        result = act()
        clocks.append(time.perf_counter() - clock)
        cpus.append(time.process_time() - cpu)
    return statistics.median(clocks), statistics.median(cpus), result


def show(what, clock, cpu, note=""):
    print(f"{what:<44} {clock * 1e3:10.2f} ms   processor {cpu * 1e3:10.2f} ms   {note}")


def judged(seconds, bar):
    return f"bar {bar * 1e3:g} ms: {'kept' if seconds <= bar else 'MISSED'}"


def bench_fit(texts, scores, tasks, label):
    clock, cpu, predictor = timed(
        lambda: SuccessPredictor(N_BOOTSTRAPS).fit_features(texts, scores, tasks=tasks), 3
    )
    show(
        f"fit {len(texts)} x {N_COLUMNS} x {N_BOOTSTRAPS}, {label}",
        clock,
        cpu,
        judged(clock, FIT_BAR_S),
    )
    return predictor


def bench_predict(predictor, texts, tasks):
    thousand = min(1_000, len(texts))
    clock, cpu, _ = timed(
        lambda: predictor.predict_features(texts[:thousand], tasks=tasks[:thousand]), 7
    )
    show(f"predict {thousand} hashed texts", clock, cpu, judged(clock, PREDICT_BAR_S))
    rows = iter(range(10**9))

    def one():
        i = next(rows) % len(texts)
        return predictor.predict_features(texts[i : i + 1], tasks=tasks[i : i + 1])

    show("predict 1 hashed text", *timed(one, 500)[:2])


def bench_live(predictor, texts, tasks):
    """Predict as a live decision does, in turn with the projection of other texts."""
    serving = predictor._serving
    tables = serving.per_bucket, serving.projection.axes

    def live(i):
        return predictor.predict_features(texts[i : i + 1], tasks=tasks[i : i + 1], spread=False)

    def project(i):
        return serving.projection.times(texts[i : i + 1], *tables)

    runs = [
        [timed(partial(live, i), 1)[:2], timed(partial(project, -2 - i), 1)[:2]]
        for i in (np.arange(N_LIVE) % (len(texts) - 1)).tolist()
    ]
    (whole, of_text), quiet = np.median(runs, axis=0), np.quantile(runs, 0.1, axis=0)
    show("predict 1 hashed text, live", *whole)
    show("of it the text's projection", *of_text)
    beyond = whole - of_text
    lowest = f"tenth percentiles' {(quiet[0, 0] - quiet[1, 0]) * 1e3:.2f} ms"
    show("one query beyond features", *beyond, f"{judged(beyond[0], BEYOND_BAR_S)}, {lowest}")


def bench_memory(texts, scores, tasks):
    tracemalloc.start()
    predictor = SuccessPredictor(N_BOOTSTRAPS).fit_features(texts, scores, tasks=tasks)
    peak = tracemalloc.get_traced_memory()[1]
    predictor.oob_ = None  # a served predictor is a stored one: it has none
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    stored = sum(array.nbytes for array in predictor.to_arrays().values())
    print(f"memory: peak of a fit {peak / 2**20:.0f} MiB, kept {kept / 2**20:.0f} MiB, ", end="")
    print(f"stored {stored / 2**20:.1f} MiB before compression")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--characters", type=int, default=400)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    queries, topic = some_texts(rng, asked.queries, asked.characters)
    tasks = [f"task {i % N_TASKS}" for i in range(asked.queries)]
    hash_text("builds the tables")
    clock, cpu, texts = timed(lambda: [hash_text(query) for query in queries], 1)
    show(f"hash one text of {asked.characters} characters", clock / len(texts), cpu / len(texts))
    scores = some_scores(rng, topic, 0.0)
    predictor = bench_fit(texts, scores, tasks, "all observed")
    baseline = np.mean((scores.mean(axis=0) - scores) ** 2)
    brier = np.mean((predictor.oob_.prob - scores) ** 2)
    print(f"out-of-bag Brier score {brier:.4f}, of the columns' means {baseline:.4f}")
    bench_fit(texts, some_scores(rng, topic, 0.1), tasks, "a tenth hidden")
    bench_predict(predictor, texts, tasks)
    bench_live(predictor, texts, tasks)
    bench_memory(texts, scores, tasks)


if __name__ == "__main__":
    main()
