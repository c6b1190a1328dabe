"""Tokens times token price: exact when billed, forecast when planning, worst case when reserving.

Billed money is an exact integer of nano-USD: the ceiling of the exact decimal sum over components.
A forecast is a float in USD: prompt tokens are counted, output tokens predicted from history
(per column: level and slope in the prompt's length, and a level per task, each shrunk while its
observations are few). Columns that are billed by a table instead of by tokens have their cost
itself predicted in the same way.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.records import (
    NANO_PER_USD,
    Candidate,
    Floats,
    Ints,
    PriceTier,
    Query,
    TokenPrice,
    Usage,
)

PROMPT_MARGIN = 1.3
PROMPT_MARGIN_TOKENS = 64
DEFAULT_OUTPUT_TOKENS = 256.0
RETRIES = frozenset({"num_retries", "max_retries"})
MAX_TASKS = 256
TASK_STRENGTH = 10.0
SLOPE_STRENGTH = 10.0
_NANO_PER_PRICE = NANO_PER_USD // 1_000_000  # USD per 1M -> nano-USD per token


def cost_nusd(usage: Usage, price: TokenPrice) -> int:
    """Return what a call cost: the ceiling, in nano-USD, of the exact sum over components.

    Cached and cache-write tokens are part of the prompt's and are priced apart where the price
    says so; a tier applies to the whole call once the prompt exceeds its threshold.
    """
    rate_in, rate_out, rate_cached, rate_write = _rates(price, usage.prompt_tokens)
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    written = min(usage.cache_write_tokens, usage.prompt_tokens - cached)
    plain = usage.prompt_tokens - cached - written
    return _bill_nusd(
        (plain, rate_in),
        (cached, rate_cached),
        (written, rate_write),
        (usage.completion_tokens, rate_out),
    )


def _bill_nusd(*components: tuple[int, Decimal]) -> int:
    """The ceiling of the exact sum of tokens x rate; in integers, since Decimals round too."""
    total, denominator = 0, 1
    for tokens, rate in components:
        dividend, divisor = rate.as_integer_ratio()
        total = total * divisor + int(tokens) * dividend * denominator
        denominator *= divisor
    return -(-total * _NANO_PER_PRICE // denominator)


def usd_to_nusd(usd: float | Decimal | str) -> int:
    """Return an amount in nano-USD, rounded up from its exact decimal value.

    A float stands for its shortest decimal text: 0.1 is a tenth of a dollar.
    """
    dividend, divisor = Decimal(str(usd)).as_integer_ratio()
    return -(-dividend * NANO_PER_USD // divisor)


def worst_case_nusd(candidate: Candidate, query: Query) -> int | None:
    """Return the most that a call can cost; None when the token price is unknown.

    The prompt with a margin for foreign tokenizers, all of it at the dearest rate that a prompt
    of that size can meet, plus every choice at the output limit; all of it once per try that the
    caller's and the candidate's retries allow.
    """
    if candidate.worst_case_nusd is not None:
        return candidate.worst_case_nusd
    if candidate.price is None:
        return None
    prompt = math.ceil(query.n_prompt_tokens * PROMPT_MARGIN) + PROMPT_MARGIN_TOKENS
    output = output_limit(candidate, query) * max(query.n_choices, 1)
    met = sum(prompt > tier.above_tokens for tier in candidate.price.tiers)
    per_input, per_output, divisor = _worst_rates(candidate.price, met)
    tries = 1 + max(query.n_retries, n_retries(candidate.arguments))
    return -(-(prompt * per_input + output * per_output) * tries // divisor)


def n_retries(arguments: Mapping[str, Any]) -> int:
    """Return how often a call with these arguments may be repeated after its first try.

    LiteLLM hands `num_retries` to the SDK below it, in place of `max_retries`, and then repeats the
    call as often by itself.
    """
    by_litellm, by_sdk = arguments.get("num_retries"), arguments.get("max_retries")
    if isinstance(by_litellm, int):
        return 2 * max(by_litellm, 0)
    return max(by_sdk, 0) if isinstance(by_sdk, int) else 0


def output_limit(candidate: Candidate, query: Query) -> int:
    """Return how many output tokens one choice may have.

    The caller's limit; else the candidate's and what thinking may take, as far as the context
    window has room beside the prompt.
    """
    limit = query.max_output_tokens
    if limit is None:
        limit = candidate.max_output_tokens + query.n_thinking_tokens
        room = output_room(candidate, query)
        limit = limit if room is None else max(min(limit, room), 1)
    ceiling = candidate.capabilities.max_output_tokens
    return limit if ceiling is None else min(limit, ceiling)


def output_room(candidate: Candidate, query: Query) -> int | None:
    """Return what the window leaves beside the prompt, counted with a margin; None if unknown."""
    window = candidate.capabilities.context_window
    return None if window is None else window - math.ceil(query.n_prompt_tokens * PROMPT_MARGIN)


def expected_usd(price: TokenPrice, prompt_tokens: Floats, output_tokens: Floats) -> Floats:
    """Return the forecast cost in USD, elementwise; prompts are taken as uncached."""
    total = _at_rates(price.input_per_1m, price.output_per_1m, prompt_tokens, output_tokens)
    for tier in sorted(price.tiers, key=lambda tier: tier.above_tokens):
        dearer = _at_rates(tier.input_per_1m, tier.output_per_1m, prompt_tokens, output_tokens)
        total = np.where(prompt_tokens > tier.above_tokens, dearer, total)
    return total


def _at_rates(rate_in: Decimal, rate_out: Decimal, prompt: Floats, output: Floats) -> Floats:
    return (prompt * float(rate_in) + output * float(rate_out)) / 1e6


def _rates(price: TokenPrice, prompt_tokens: int) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """The input, output, cached and cache-write rates of the tier that a prompt falls in."""
    met: TokenPrice | PriceTier = price
    for tier in sorted(price.tiers, key=lambda tier: tier.above_tokens):
        if prompt_tokens > tier.above_tokens:
            met = tier
    cached, written = met.cached_input_per_1m, met.cache_write_per_1m
    if written is None:
        written = price.cache_write_per_1m
    return (
        met.input_per_1m,
        met.output_per_1m,
        met.input_per_1m if cached is None else cached,
        met.input_per_1m if written is None else written,
    )


@lru_cache(maxsize=1024)
def _worst_rates(price: TokenPrice, n_tiers: int) -> tuple[int, int, int]:
    """Nano-USD per token at the dearest rates, as two dividends over one divisor, all integers."""
    rate_in, rate_out = _dearest_rates(price, n_tiers)
    in_dividend, in_divisor = rate_in.as_integer_ratio()
    out_dividend, out_divisor = rate_out.as_integer_ratio()
    return (
        in_dividend * out_divisor * _NANO_PER_PRICE,
        out_dividend * in_divisor * _NANO_PER_PRICE,
        in_divisor * out_divisor,
    )


def _dearest_rates(price: TokenPrice, n_tiers: int) -> tuple[Decimal, Decimal]:
    """The highest input rate (cached, written or plain) and output rate with that many tiers."""
    rates_in = [price.input_per_1m, price.cached_input_per_1m, price.cache_write_per_1m]
    rates_out = [price.output_per_1m]
    for tier in sorted(price.tiers, key=lambda tier: tier.above_tokens)[:n_tiers]:
        rates_in += [tier.input_per_1m, tier.cached_input_per_1m, tier.cache_write_per_1m]
        rates_out.append(tier.output_per_1m)
    return max([rate for rate in rates_in if rate is not None]), max(rates_out)


@dataclass(frozen=True, slots=True)
class AmountForecast:
    """A non-negative amount per column (output tokens, or USD) from prompt length and task.

    `level` and `slope` are (n_columns,), `task_offset` is (n_tasks, n_columns) for the most
    frequent tasks, `floor` the least that is ever forecast, `n_observed` the observations per
    column.
    """

    level: Floats
    slope: Floats
    task_offset: Floats
    floor: Floats
    mean_tokens: float
    tasks: tuple[str, ...]
    n_observed: Ints

    @classmethod
    def fit(cls, amounts: Floats, prompt_tokens: Floats, tasks: Sequence[str]) -> Self:
        """Fit on amounts (n_rows, n_columns), NaN = not observed; any column may be empty.

        Level and slope are a ridge on the centred prompt length, the slope pulled to 0 with the
        weight of `SLOPE_STRENGTH` average rows; task offsets are shrunk means of what is left.
        """
        counts = Counter(task for task in tasks if task)
        names = tuple(sorted(counts, key=lambda task: (-counts[task], task))[:MAX_TASKS])
        mean_tokens = float(np.mean(prompt_tokens)) if len(prompt_tokens) else 0.0
        centred = np.asarray(prompt_tokens, dtype=np.float64) - mean_tokens
        observed = ~np.isnan(amounts)
        level, slope = _levels_and_slopes(amounts, centred)
        offsets = _task_offsets(amounts - level - centred[:, None] * slope, tasks, names)
        floor = 0.1 * np.array([_mean(column) for column in amounts.T])
        return cls(level, slope, offsets, floor, mean_tokens, names, observed.sum(axis=0))

    def predict(self, prompt_tokens: Floats, tasks: Sequence[str]) -> Floats:
        """Forecast amounts, shape (n_queries, n_columns); a never observed column is NaN."""
        if not self.n_observed.any():
            return np.full((len(tasks), self.level.size), np.nan)
        position = {task: i for i, task in enumerate(self.tasks)}
        padded = np.vstack([self.task_offset, np.zeros(self.level.size)])
        offset = padded[[position.get(task, len(self.tasks)) for task in tasks]]
        centred = np.asarray(prompt_tokens, dtype=np.float64) - self.mean_tokens
        amount = self.level + centred[:, None] * self.slope + offset
        return np.where(self.n_observed > 0, np.maximum(amount, self.floor), np.nan)

    def to_arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """Return plain arrays for an npz file."""
        return {
            f"{prefix}_level": self.level,
            f"{prefix}_slope": self.slope,
            f"{prefix}_task_offset": self.task_offset,
            f"{prefix}_floor": self.floor,
            f"{prefix}_mean_tokens": np.array(self.mean_tokens),
            f"{prefix}_tasks": np.frombuffer(json.dumps(self.tasks).encode(), dtype=np.uint8),
            f"{prefix}_n_observed": self.n_observed,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]], prefix: str) -> Self:
        """Rebuild a forecast from `to_arrays`."""
        floats = {
            name: np.asarray(arrays[f"{prefix}_{name}"], dtype=np.float64)
            for name in ("level", "slope", "task_offset", "floor")
        }
        return cls(
            **floats,
            mean_tokens=float(arrays[f"{prefix}_mean_tokens"]),
            tasks=tuple(json.loads(arrays[f"{prefix}_tasks"].tobytes())),
            n_observed=np.asarray(arrays[f"{prefix}_n_observed"], dtype=np.int64),
        )


def _mean(column: Floats) -> float:
    observed = column[~np.isnan(column)]
    return float(observed.mean()) if observed.size else 0.0


def _levels_and_slopes(amounts: Floats, centred: Floats) -> tuple[Floats, Floats]:
    """Per column: least squares on (1, centred tokens), the slope ridged towards 0."""
    n_columns = amounts.shape[1]
    level, slope = np.zeros(n_columns), np.zeros(n_columns)
    spread = float(np.mean(centred**2)) if centred.size else 0.0
    for j in range(n_columns):
        rows = ~np.isnan(amounts[:, j])
        if not rows.any():
            continue
        x, y = centred[rows], amounts[rows, j]
        x_mean, y_mean = x.mean(), y.mean()
        variance = ((x - x_mean) ** 2).sum() + SLOPE_STRENGTH * spread
        slope[j] = ((x - x_mean) * (y - y_mean)).sum() / variance if variance > 0 else 0.0
        level[j] = y_mean - slope[j] * x_mean
    return level, slope


def _task_offsets(residual: Floats, tasks: Sequence[str], names: tuple[str, ...]) -> Floats:
    """Mean residual per task and column, shrunk to 0 with the weight of `TASK_STRENGTH` rows."""
    position = {name: i for i, name in enumerate(names)}
    number = np.array([position.get(task, len(names)) for task in tasks], dtype=np.int64)
    offsets = np.zeros((len(names), residual.shape[1]))
    for j, column in enumerate(residual.T):
        seen = ~np.isnan(column) & (number < len(names))
        n = np.bincount(number[seen], minlength=len(names))
        total = np.bincount(number[seen], weights=column[seen], minlength=len(names))
        offsets[:, j] = total / (n + TASK_STRENGTH)
    return offsets


def filled_output(output_tokens: Floats) -> Floats:
    """Fill unknown forecasts (NaN), shape (n_queries, n_candidates).

    The mean of the query's other candidates stands in, 256 tokens where nothing is known.
    """
    known = ~np.isnan(output_tokens)
    n_known = known.sum(axis=1)
    total = np.where(known, output_tokens, 0.0).sum(axis=1)
    stand_in = np.where(n_known > 0, total / np.maximum(n_known, 1), DEFAULT_OUTPUT_TOKENS)
    return np.where(known, output_tokens, stand_in[:, None])


def forecast_usd(
    candidates: Sequence[Candidate],
    output_tokens: Floats,
    billed_usd: Floats,
    prompt_tokens: Floats,
) -> Floats:
    """Forecast each query's cost at each candidate in USD, shape (n_queries, n_candidates).

    Args:
        candidates: one per column.
        output_tokens: (n_queries, n_candidates) forecast output, without holes.
        billed_usd: (n_queries, n_candidates) forecast bill of candidates without a token price, at
            most their worst case; NaN stays NaN: such a candidate cannot be planned with.
        prompt_tokens: (n_queries,).
    """
    rates = np.array([_flat_rates(candidate) for candidate in candidates]).reshape(-1, 3)
    by_tokens = (prompt_tokens[:, None] * rates[:, 0] + output_tokens * rates[:, 1]) / 1e6
    cost: Floats = np.where(np.isnan(rates[:, 0]), np.minimum(billed_usd, rates[:, 2]), by_tokens)
    for j, candidate in enumerate(candidates):
        if candidate.price is not None and candidate.price.tiers:
            cost[:, j] = expected_usd(candidate.price, prompt_tokens, output_tokens[:, j])
    return cost


def _flat_rates(candidate: Candidate) -> tuple[float, float, float]:
    """Input and output rate per 1M tokens (NaN without a token price), and the highest bill."""
    worst, price = candidate.worst_case_nusd, candidate.price
    most = np.inf if worst is None else worst / NANO_PER_USD
    if price is None:
        return np.nan, np.nan, most
    return float(price.input_per_1m), float(price.output_per_1m), most
