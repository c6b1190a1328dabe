"""The kills of `kills.py`, fewer: the log is held against what the upstream counted by itself."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from kills import Settings, prove


def test_what_killed_processes_leave_behind_is_in_the_books(store_url):
    settings = Settings(
        rounds=2,
        n_processes=2,
        concurrency=3,
        n_items=30,
        pause_s=0.3,
        batch_lease_s=1.0,
        money_lease_s=4.0,
    )

    found = prove(store_url, settings)

    assert [] == found.misses
    assert 2 == found.figures["processes killed"]
