"""Tokens times token price: exact when billed, forecast when planning, worst case when reserving.

Billed money is an exact integer of nano-USD: the ceiling of the exact decimal sum over components.
A forecast is a float in USD: prompt tokens are counted, output tokens predicted (`amounts`).
Columns that are billed by a table instead of by tokens have their cost itself predicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np

from optllm_router.records import (
    NANO_PER_USD,
    Candidate,
    Floats,
    PriceTier,
    Query,
    TokenPrice,
    Usage,
)

PROMPT_MARGIN = 1.3
PROMPT_MARGIN_TOKENS = 64
RETRIES = frozenset({"num_retries", "max_retries"})
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

    See `Tariff.worst_nusd`.
    """
    prompt, limit = longest_prompt(query), output_limit(candidate, query)
    return Tariff(candidate).worst_nusd(query, prompt, limit)


def output_limit(candidate: Candidate, query: Query) -> int:
    """Return how many output tokens one choice may have.

    The caller's limit; else the candidate's and what thinking may take, as far as the context
    window has room beside the prompt.
    """
    limit, can = query.max_output_tokens, candidate.capabilities
    if limit is None:
        limit = candidate.max_output_tokens + query.n_thinking_tokens
        if can.context_window is not None:
            limit = max(min(limit, can.context_window - with_margin(query.n_prompt_tokens)), 1)
    return limit if can.max_output_tokens is None else min(limit, can.max_output_tokens)


def n_retries(arguments: Mapping[str, Any]) -> int:
    """Return how often a call with these arguments may be repeated after its first try.

    LiteLLM hands `num_retries` to the SDK below it, in place of `max_retries`, and then repeats the
    call as often by itself.
    """
    by_litellm, by_sdk = arguments.get("num_retries"), arguments.get("max_retries")
    if isinstance(by_litellm, int):
        return 2 * max(by_litellm, 0)
    return max(by_sdk, 0) if isinstance(by_sdk, int) else 0


def with_margin(n_prompt_tokens: int) -> int:
    """Return how many tokens a prompt may have by another tokenizer than the one that counted."""
    return math.ceil(n_prompt_tokens * PROMPT_MARGIN)


def longest_prompt(query: Query) -> int:
    """Return the most tokens that a provider may count in a prompt."""
    return with_margin(query.n_prompt_tokens) + PROMPT_MARGIN_TOKENS


class Tariff:
    """What a candidate's calls cost at worst, worked out once: its retries and dearest rates."""

    __slots__ = ("_fixed_nusd", "_n_retries", "_rates")

    def __init__(self, candidate: Candidate) -> None:
        self._n_retries = n_retries(candidate.arguments)
        self._fixed_nusd = candidate.worst_case_nusd
        self._rates = () if candidate.price is None else _worst_rates(candidate.price)

    def worst_nusd(self, query: Query, prompt: int, output_limit: int) -> int | None:
        """Return the most that a call can cost; None when the token price is unknown.

        The prompt with a margin for foreign tokenizers (`prompt` tokens, its `longest_prompt`), all
        of it at the dearest rate that a prompt of that size can meet, plus every choice at the
        output limit; all of it once per try that the caller's and the candidate's retries allow.
        """
        if self._fixed_nusd is not None:
            return self._fixed_nusd
        output = output_limit * max(query.n_choices, 1)
        tries = 1 + max(query.n_retries, self._n_retries)
        for above_tokens, per_input, per_output, divisor in self._rates:
            if prompt > above_tokens:
                return -(-(prompt * per_input + output * per_output) * tries // divisor)
        return None


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
def _worst_rates(price: TokenPrice) -> tuple[tuple[int, int, int, int], ...]:
    """Nano-USD per token at the dearest rates, by how long the prompt is, the longest first.

    Each is the tokens above which it applies and two dividends over one divisor, all integers.
    """
    starts = [-1, *sorted(tier.above_tokens for tier in price.tiers)]
    return tuple((starts[n], *_dearest_ratio(price, n)) for n in reversed(range(len(starts))))


def _dearest_ratio(price: TokenPrice, n_tiers: int) -> tuple[int, int, int]:
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


class Rates:
    """The rates of some candidates as arrays, worked out once, to forecast costs with.

    `has_bills` says whether any candidate has no token price, so that its bill itself is forecast.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        rates = np.array([_flat_rates(candidate) for candidate in candidates]).reshape(-1, 3)
        self._input, self._output, self._most_usd = rates.T
        self._is_billed = np.isnan(self._input)
        self.has_bills = bool(self._is_billed.any())
        prices = [(j, candidate.price) for j, candidate in enumerate(candidates)]
        self._tiered = [(j, price) for j, price in prices if price is not None and price.tiers]

    def forecast_usd(
        self, output_tokens: Floats, billed_usd: Floats, prompt_tokens: Floats
    ) -> Floats:
        """Forecast each query's cost at each candidate in USD, shape (n_queries, n_candidates).

        Args:
            output_tokens: (n_queries, n_candidates) forecast output, without holes.
            billed_usd: (n_queries, n_candidates) forecast bill of candidates without a token price,
                at most their worst case; NaN stays NaN: such a candidate cannot be planned with.
            prompt_tokens: (n_queries,).
        """
        cost: Floats = (prompt_tokens[:, None] * self._input + output_tokens * self._output) / 1e6
        if self.has_bills:
            cost = np.where(self._is_billed, np.minimum(billed_usd, self._most_usd), cost)
        for j, price in self._tiered:
            cost[:, j] = expected_usd(price, prompt_tokens, output_tokens[:, j])
        return cost


def _flat_rates(candidate: Candidate) -> tuple[float, float, float]:
    """Input and output rate per 1M tokens (NaN without a token price), and the highest bill."""
    worst, price = candidate.worst_case_nusd, candidate.price
    most = np.inf if worst is None else worst / NANO_PER_USD
    if price is None:
        return np.nan, np.nan, most
    return float(price.input_per_1m), float(price.output_per_1m), most
