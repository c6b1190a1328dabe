"""A small world for the core's tests: three candidates, two kinds of queries, logged answers."""

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import optllm_router
from optllm_router.core.features import hash_text, shape_features
from optllm_router.core.fitting import fit_snapshot
from optllm_router.core.snapshot import TrainingSet
from optllm_router.records import Candidate, Query, TokenPrice

EASY = "please translate this friendly sentence number {} into plain french"
HARD = "prove theorem {} on compact manifolds and derive every lemma it needs"


def token_price(rate_in, rate_out, **others):
    return TokenPrice(
        input_per_1m=Decimal(str(rate_in)), output_per_1m=Decimal(str(rate_out)), **others
    )


@pytest.fixture
def printed_by_threads():
    """What a program prints with one thread for numpy and with two, as a set."""

    def printed(code):
        return {
            subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "OPENBLAS_NUM_THREADS": n, "OMP_NUM_THREADS": n},
                capture_output=True,
                text=True,
                check=True,
                cwd=Path(optllm_router.__file__).parents[1],
            ).stdout
            for n in ("1", "2")
        }

    return printed


@pytest.fixture
def candidates():
    """From the cheapest to the dearest; the last one is billed by a table."""
    return (
        Candidate(name="small", model="p/small", price=token_price(0.1, 0.4)),
        Candidate(name="large", model="p/large", price=token_price(2.5, 10)),
        Candidate(name="table", model="table", price=None, worst_case_nusd=40_000_000),
    )


@pytest.fixture
def query_texts():
    """Even ones are easy, odd ones hard."""
    return [(EASY if i % 2 == 0 else HARD).format(i // 2) for i in range(160)]


@pytest.fixture
def training(query_texts):
    """160 texts asked of every candidate: all solve easy ones, of the hard ones each its share."""
    rng = np.random.default_rng(3)
    n = len(query_texts)
    hard = np.arange(n) % 2 == 1
    prompt_tokens = rng.integers(20, 200, n).astype(np.float64)
    chance = np.where(hard[:, None], [0.1, 0.7, 0.95], [0.9, 0.95, 0.95])
    unbilled = np.full((n, 2), np.nan)
    return TrainingSet(
        columns=("small", "large", "table"),
        texts=[hash_text(text) for text in query_texts],
        tasks=["prose" if i % 4 < 2 else "" for i in range(n)],
        groups=query_texts,
        shapes=shape_features(prompt_tokens, np.ones(n), np.zeros(n), np.zeros(n), np.zeros(n)),
        prompt_tokens=prompt_tokens,
        scores=(rng.random((n, 3)) < chance).astype(np.float64),
        output_tokens=np.column_stack([100 + prompt_tokens, 150 + prompt_tokens, unbilled[:, 0]]),
        cost_usd=np.column_stack([unbilled, 0.01 + 1e-5 * prompt_tokens]),
    )


@pytest.fixture
def snapshot(training, candidates):
    return fit_snapshot(training, candidates, version="v1", n_bootstraps=12)


@pytest.fixture
def queries(query_texts):
    """Forty of them, not all of the same length."""
    return [
        Query(text=text, task="prose" if i % 4 < 2 else "", n_prompt_tokens=30 + 5 * (i % 7))
        for i, text in enumerate(query_texts[:40])
    ]
