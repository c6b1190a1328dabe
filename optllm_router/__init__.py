"""Put a `Router` where `litellm.completion` was.

    request ─► features ─► estimate ─► front / dual price ─► policy ─► plan ─► reserve ─► dispatch
                   ▲                                                                         │
                   │                                                                   settle + log
                   └── publish predictor and front ◄── validate ◄── refit ◄── outcomes ◄── grade

For every query the router predicts how likely each candidate LLM is to succeed and what it will
cost, computes the exact Pareto front of cost against accuracy, spends the budget where it buys the
most, logs every decision, token and cent into SQL, and learns from the outcomes.

Importing this package loads nothing heavy: every name below is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optllm_router.config import CandidateSettings, Config, load_config
    from optllm_router.core.embedding import Embedder
    from optllm_router.core.front import ParetoFront, pareto_front
    from optllm_router.core.planning import Plan
    from optllm_router.core.policy import (
        Budget,
        Cheapest,
        Fixed,
        Knee,
        MostAccurate,
        TargetAccuracy,
        WillingnessToPay,
    )
    from optllm_router.core.success import SuccessEstimate, SuccessPredictor
    from optllm_router.errors import (
        BatchBusyError,
        BudgetExceededError,
        ConfigError,
        InfeasiblePolicyError,
        ItemInterruptedError,
        NoCandidateError,
        NotTrainedError,
        PolicyError,
        RouterError,
        SchemaVersionError,
        StoreError,
        UnknownDecisionError,
        UnpricedCandidateError,
    )
    from optllm_router.grading import Contains, Exact, JsonSchema, Regex
    from optllm_router.router import Router

__version__ = "0.1.0"

_HOMES = {
    "BatchBusyError": "errors",
    "BudgetExceededError": "errors",
    "Budget": "core.policy",
    "CandidateSettings": "config",
    "Cheapest": "core.policy",
    "Config": "config",
    "ConfigError": "errors",
    "Contains": "grading",
    "Embedder": "core.embedding",
    "Exact": "grading",
    "Fixed": "core.policy",
    "InfeasiblePolicyError": "errors",
    "ItemInterruptedError": "errors",
    "JsonSchema": "grading",
    "Knee": "core.policy",
    "MostAccurate": "core.policy",
    "NoCandidateError": "errors",
    "NotTrainedError": "errors",
    "ParetoFront": "core.front",
    "Plan": "core.planning",
    "PolicyError": "errors",
    "Regex": "grading",
    "Router": "router",
    "RouterError": "errors",
    "SchemaVersionError": "errors",
    "StoreError": "errors",
    "SuccessEstimate": "core.success",
    "SuccessPredictor": "core.success",
    "TargetAccuracy": "core.policy",
    "UnknownDecisionError": "errors",
    "UnpricedCandidateError": "errors",
    "WillingnessToPay": "core.policy",
    "load_config": "config",
    "pareto_front": "core.front",
}

__all__ = [
    "BatchBusyError",
    "Budget",
    "BudgetExceededError",
    "CandidateSettings",
    "Cheapest",
    "Config",
    "ConfigError",
    "Contains",
    "Embedder",
    "Exact",
    "Fixed",
    "InfeasiblePolicyError",
    "ItemInterruptedError",
    "JsonSchema",
    "Knee",
    "MostAccurate",
    "NoCandidateError",
    "NotTrainedError",
    "ParetoFront",
    "Plan",
    "PolicyError",
    "Regex",
    "Router",
    "RouterError",
    "SchemaVersionError",
    "StoreError",
    "SuccessEstimate",
    "SuccessPredictor",
    "TargetAccuracy",
    "UnknownDecisionError",
    "UnpricedCandidateError",
    "WillingnessToPay",
    "__version__",
    "load_config",
    "pareto_front",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
