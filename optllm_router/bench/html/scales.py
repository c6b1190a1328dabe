"""From data to pixels: linear and logarithmic axes with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optllm_router.records import Floats

LOG_FROM_RATIO = 8.0
"""From this ratio of dearest to cheapest on, costs are drawn on a logarithmic axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Values from `low` to `high` on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: ArrayLike) -> Floats:
        """Return the pixels of the values, any shape; on a log scale the values are above 0."""
        low, high, shown = (
            (np.log(np.asarray(each, dtype=np.float64)) if self.log else np.asarray(each))
            for each in (self.low, self.high, values)
        )
        return np.asarray(self.start + (shown - low) / (high - low) * (self.end - self.start))

    def at(self, value: float) -> float:
        """Return the pixel of one value."""
        return float(self(value))

    @property
    def ticks(self) -> list[float]:
        """Round numbers within the scale, about one for 55 pixels."""
        n_ticks = max(int(abs(self.end - self.start) / 55), 3)
        return (log_ticks if self.log else linear_ticks)(self.low, self.high, n_ticks=n_ticks)


def extent(values: ArrayLike, *, log: bool = False, pad: float = 0.04) -> tuple[float, float]:
    """Return a range around the finite values with a margin; never empty.

    Without any finite value it is 0 to 1 (1 to 10 on a log scale); around a single value it is
    a fifth of the value to both sides, or a tenth of 1 around 0.
    """
    finite = np.asarray(values, dtype=np.float64).ravel()
    finite = finite[np.isfinite(finite) & ((finite > 0) | (not log))]
    if not finite.size:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    if math.isclose(low, high, rel_tol=1e-9):
        room = abs(low) / 5 or 0.1
        return low - room, high + room
    if log:
        margin = (high / low) ** pad
        return low / margin, high * margin
    return low - pad * (high - low), high + pad * (high - low)


def wants_log(costs: ArrayLike) -> bool:
    """Tell whether costs, any shape, are all above 0 and span `LOG_FROM_RATIO` or more."""
    finite = np.asarray(costs, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return bool(finite.size and finite.min() > 0 and finite.max() / finite.min() >= LOG_FROM_RATIO)


def linear_ticks(low: float, high: float, *, n_ticks: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten within [low, high], about `n_ticks`."""
    rough = (high - low) / n_ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    decimals = max(-math.floor(math.log10(step)), 0)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, decimals) for index in range(first, last + 1)]


def log_ticks(low: float, high: float, *, n_ticks: int) -> list[float]:
    """Return 1, 2, 5 times powers of ten within [low, high]; fewer per decade when there are many.

    A range that holds fewer than two of them gets linear ticks.
    """
    tries = (
        _powers(low, high, factors=factors, stride=stride)
        for factors, stride in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 4))
    )
    ticks = next((each for each in tries if len(each) <= max(n_ticks + 1, 3)), [])
    return ticks if len(ticks) >= 2 else linear_ticks(low, high, n_ticks=n_ticks)


def _powers(low: float, high: float, *, factors: Sequence[int], stride: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = [float(f"{f}e{power}") for power in range(first, last + 1) for f in factors]
    kept = [tick for tick in every if _exponent(tick) % stride == 0]
    return [tick for tick in kept if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


def _exponent(tick: float) -> int:
    return math.floor(math.log10(tick) + 1e-9)
