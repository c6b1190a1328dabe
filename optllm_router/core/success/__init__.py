"""How likely each column is to answer a query well: see `predictor`."""

from optllm_router.core.success.joining import NewLabels, join
from optllm_router.core.success.labels import (
    LeftOut,
    SuccessEstimate,
    checked_scores,
    checked_tasks,
    numbered,
)
from optllm_router.core.success.predictor import SuccessPredictor
from optllm_router.core.success.traits import MAX_TASKS, TASK_SCALE

__all__ = [
    "MAX_TASKS",
    "TASK_SCALE",
    "LeftOut",
    "NewLabels",
    "SuccessEstimate",
    "SuccessPredictor",
    "checked_scores",
    "checked_tasks",
    "join",
    "numbered",
]
