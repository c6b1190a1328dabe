"""Caps that calls are not held to are refused at the start, never soft."""

from __future__ import annotations

import pytest

from optllm_router import Router
from optllm_router.errors import ConfigError


def test_a_router_does_not_start_with_budgets_that_it_would_not_hold(tmp_path):
    budget = {"name": "team-a", "usd": 5, "per": "day"}

    with pytest.raises(ConfigError, match=r"the caps 'team-a' of \[\[budgets\]\] are not held"):
        Router(
            candidates=["openai/gpt-4o-mini"],
            budgets=[budget],
            store=f"sqlite:///{tmp_path / 'log.db'}",
        )

    assert not (tmp_path / "log.db").exists()
