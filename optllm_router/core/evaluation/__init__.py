"""What a router is worth on queries whose outcomes are known, each figure with its formula.

Arrays in, numbers out; which queries were fitted on and which are tested is the caller's business.
The rooms:

    checks        the numbers at the edge, once
    calibration   whether probabilities mean what they say: ECE, Brier, log loss, reliability
    forecast      how far forecast costs are from the bill
    curve         the realised curve of a walk along a front: savings, budgets, overspending
    deferral      the curve's areas in the literature: AIQ, AUDC, QNC
    arena         RouterArena's score and its distance to the oracle's choices
    two_models    a weak and a strong candidate: PGR, APGR, CPT
    intervals     how sure a figure is: bootstrap over distinct texts, over seeds, over both
"""

from optllm_router.core.evaluation.arena import Optimality, arena_score, optimality
from optllm_router.core.evaluation.calibration import (
    Calibration,
    Reliability,
    brier,
    calibration,
    calibration_by_column,
    ece,
    log_loss,
    reliability,
)
from optllm_router.core.evaluation.curve import (
    BestSingle,
    CrossfitSaving,
    Curve,
    best_single,
    budget_area,
    max_accuracy,
    overspend,
    saving_at_best,
    saving_crossfit,
)
from optllm_router.core.evaluation.deferral import aiq, audc, qnc
from optllm_router.core.evaluation.forecast import CostForecast, cost_forecast
from optllm_router.core.evaluation.intervals import (
    Interval,
    bootstrap_weights,
    interval,
    paired_interval,
    t_interval,
)
from optllm_router.core.evaluation.two_models import apgr, cpt, pgr

__all__ = [
    "BestSingle",
    "Calibration",
    "CostForecast",
    "CrossfitSaving",
    "Curve",
    "Interval",
    "Optimality",
    "Reliability",
    "aiq",
    "apgr",
    "arena_score",
    "audc",
    "best_single",
    "bootstrap_weights",
    "brier",
    "budget_area",
    "calibration",
    "calibration_by_column",
    "cost_forecast",
    "cpt",
    "ece",
    "interval",
    "log_loss",
    "max_accuracy",
    "optimality",
    "overspend",
    "paired_interval",
    "pgr",
    "qnc",
    "reliability",
    "saving_at_best",
    "saving_crossfit",
    "t_interval",
]
