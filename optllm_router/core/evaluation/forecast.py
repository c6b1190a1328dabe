"""How far forecast costs are from the bill, in total and per query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optllm_router.core.evaluation.checks import (
    floats,
    observed,
    require_positive,
    require_range,
    same_shape,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostForecast:
    """The errors of `n` forecasts.

    `total_error` is the relative error of the total, below 0 where too little was forecast, and
    `absolute_total_error` its size, which does not cancel when it is averaged over splits;
    `mean_absolute_error_usd` is that of a single forecast.
    """

    n: int
    total_error: float
    absolute_total_error: float
    mean_absolute_error_usd: float


def cost_forecast(forecast_usd: ArrayLike, cost_usd: ArrayLike) -> CostForecast:
    """Compare forecasts f with costs c: sum f / sum c - 1, its size, and mean |f - c|.

    The first two say what a budget will feel, where single errors cancel; the last (Hyndman &
    Koehler, International Journal of Forecasting 22(4), 2006, section 2.1) what one call will.

    Args:
        forecast_usd: forecast costs in USD, any shape.
        cost_usd: realised costs in USD, of the same shape; NaN where unknown, which is ignored.

    Raises:
        ValueError: Shapes that differ, a negative or infinite cost, no known cost, or a bill of 0,
            to which nothing is relative.
    """
    forecast, cost = floats(forecast_usd), floats(cost_usd)
    same_shape(("forecast_usd", forecast), cost_usd=cost)
    known = observed("cost_usd", cost)
    forecast, cost = forecast[known], cost[known]
    require_range("forecast_usd", forecast)
    require_range("cost_usd", cost)
    require_positive("cost_usd.sum()", float(cost.sum()))
    error = float(forecast.sum() / cost.sum() - 1.0)
    return CostForecast(
        n=cost.size,
        total_error=error,
        absolute_total_error=abs(error),
        mean_absolute_error_usd=float(np.abs(forecast - cost).mean()),
    )
