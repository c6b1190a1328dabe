"""The crowd of `crowd.py`, smaller: the upstream's own bill says how many calls were served."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from crowd import main
from crowd_ours import CASES, crowd_of_ours
from crowd_upstream import Upstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.mark.parametrize("case", CASES, ids=["worst-is-actual", "worst-is-20-times-actual"])
def test_eight_processes_are_served_exactly_as_often_as_fits(upstream, store_url, case):
    found = crowd_of_ours(upstream, lambda: store_url, "processes", case, n_calls=160)

    assert [] == found.misses
    assert case.fits == found.n_billed == found.outcomes["served"]


def test_one_process_is_served_exactly_as_often_as_fits(capsys):
    small = ["--repeats", "1", "--calls", "100", "--store-kinds", "sqlite"]

    assert 0 == main([*small, "--shapes", "asyncio"])

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    crowds = [line for line in lines if line[0] == "sqlite"]
    assert [["50", "50"], ["31", "69"]] == [line[5:7] for line in crowds]
    assert ["0", "misses"] == lines[-1]
