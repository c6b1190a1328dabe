"""Small tables for the evaluation's tests: texts that tell a little about what is hard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from optllm_router.bench.problem import Problem, Split
from optllm_router.core.features import hash_text

EASY = "please translate sentence {} into plain french"
HARD = "prove theorem {} on compact manifolds"


def word(number: int) -> str:
    """Spell a number in syllables: digits are all alike to the features."""
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    return "".join(syllables[(7 * number + step) // 60**step % 60] for step in range(3))


def make_problem(
    n: int = 60, m: int = 3, *, n_texts: int | None = None, seed: int = 0, **changes
) -> Problem:
    """Make n queries of `n_texts` texts; later candidates are dearer, and better at hard texts.

    `prompt_tokens` are 10, 11, 12, ...: they tell the queries apart. `changes` replace whole
    arrays.
    """
    rng = np.random.default_rng(seed)
    group = np.arange(n) % (n_texts or n)
    texts = [(EASY if g % 2 else HARD).format(word(g // 2)) for g in group.tolist()]
    chance = np.where(group[:, None] % 2, 0.8, np.linspace(0.1, 0.9, m))
    made = Problem(
        source="made.csv",
        candidates=tuple("abcdefgh"[:m]),
        texts=texts,
        tasks=["" if g % 4 == 3 else f"task {g % 4}" for g in group.tolist()],
        features=[hash_text(text) for text in texts],
        group=group,
        prompt_tokens=10.0 + np.arange(n),
        scores=(rng.random((n, m)) < chance).astype(np.float64),
        cost_usd=0.001 * 5.0 ** np.arange(m) * rng.uniform(0.5, 1.5, (n, m)),
    )
    return replace(made, **changes)


def blinded(part: Split, *, scores: bool = True, costs: bool = True) -> Split:
    """Return the split with other outcomes in its test part."""
    rng = np.random.default_rng(99)
    shape = part.test.scores.shape
    changes = {}
    if scores:
        changes["scores"] = rng.random(shape)
    if costs:
        changes["cost_usd"] = rng.uniform(0.0, 9.0, shape)
    return replace(part, test=replace(part.test, **changes))


@pytest.fixture(scope="session")
def made() -> Callable[..., Problem]:
    return make_problem


@pytest.fixture(scope="session")
def blind() -> Callable[..., Split]:
    return blinded
