"""Policies: where on the front to stand.

A policy aims; a budget limits. `select` applies a policy to the front of a batch and refuses what
cannot be had, before any money is spent. `nearest` never refuses: live calls take the nearest
feasible point and say so. `dual_price` turns a policy into the price of money (successes per USD)
by which a single request is decided: `argmax_j prob_j - dual_price * cost_j`. `select_searched`
takes what OptLLM's search finds instead of the exact front.
"""

from optllm_router.core.policy.kinds import (
    SUPPORTED_PER,
    Budget,
    Cheapest,
    Fixed,
    Knee,
    MostAccurate,
    Policy,
    TargetAccuracy,
    WillingnessToPay,
    describe,
    policy_from_config,
)
from optllm_router.core.policy.searching import Searched, select_searched
from optllm_router.core.policy.selection import Selection, dual_price, nearest, select
from optllm_router.core.policy.wording import usd_text

__all__ = [
    "SUPPORTED_PER",
    "Budget",
    "Cheapest",
    "Fixed",
    "Knee",
    "MostAccurate",
    "Policy",
    "Searched",
    "Selection",
    "TargetAccuracy",
    "WillingnessToPay",
    "describe",
    "dual_price",
    "nearest",
    "policy_from_config",
    "select",
    "select_searched",
    "usd_text",
]
