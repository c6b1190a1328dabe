"""Savings with a paired bootstrap interval."""

from __future__ import annotations

import numpy as np

from optllm_router.demo.savings import Saving, paired_saving


def test_a_constant_share_is_known_exactly() -> None:
    baseline = np.arange(1.0, 51.0)
    saving = paired_saving(0.25 * baseline, baseline, groups=list(map(str, range(50))), seed=0)

    assert np.allclose([0.75, 0.75, 0.75], [saving.saving, saving.low, saving.high])


def test_the_interval_holds_the_saving_and_is_reproducible() -> None:
    rng = np.random.default_rng(0)
    cost, baseline = rng.random(200), 2 * rng.random(200)
    groups = [str(i) for i in range(200)]
    saving = paired_saving(cost, baseline, groups=groups, seed=1)

    assert saving.low < saving.saving < saving.high
    assert saving == paired_saving(cost, baseline, groups=groups, seed=1)
    assert saving.saving == 1 - cost.sum() / baseline.sum()


def test_the_interval_has_the_width_that_theory_gives() -> None:
    rng = np.random.default_rng(3)
    cost, baseline = rng.random(4_000), 1 + rng.random(4_000)
    ratio = cost.sum() / baseline.sum()
    sd = np.std(cost - ratio * baseline) / baseline.mean() / np.sqrt(4_000)  # delta method
    saving = paired_saving(cost, baseline, groups=[str(i) for i in range(4_000)], seed=0)

    assert np.isclose(2 * 1.96 * sd, saving.high - saving.low, rtol=0.08)


def test_repeated_texts_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    cost, baseline = np.repeat(rng.random(20), 10), np.ones(200)
    alone = paired_saving(cost, baseline, groups=[str(i) for i in range(200)], seed=0)
    grouped = paired_saving(cost, baseline, groups=[str(i // 10) for i in range(200)], seed=0)

    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_a_free_baseline_leaves_nothing_to_save() -> None:
    saving = paired_saving(np.ones(3), np.zeros(3), groups=["a", "b", "c"], seed=0)

    assert Saving(saving=0.0, low=0.0, high=0.0) == saving
