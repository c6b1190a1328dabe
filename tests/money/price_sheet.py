"""What the provider of the money tests publishes: its LLMs, their prices, and how it rounds.

The written rule, which both sides follow with code of their own: a request costs its plain prompt
tokens, cached prompt tokens, prompt tokens written to the cache and completion tokens, each times
its price per 1M tokens; the exact sum is rounded up, once per request, to a whole nano-USD. Cached
and written tokens are part of the prompt's, and cost what plain ones cost where no price is stated.
Reasoning is part of the completion. All choices of `n` are billed. A prompt of more tokens than
`above_tokens` has the whole request billed at the long prices. An error costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Prices:
    """USD per 1M tokens as decimal text; None where the sheet states no price."""

    plain: str
    output: str
    cached: str | None = None
    written: str | None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """An LLM on the sheet, and how it behaves: lengths are medians of tokens per choice."""

    prices: Prices
    above_tokens: int | None = None
    long: Prices | None = None
    answer_tokens: int = 40
    reasoning_tokens: int = 0
    quality: float = 0.5


SHEET = {
    "thrifty": Model(
        prices=Prices(plain="0.07375", output="0.30125", cached="0.018437"),
        answer_tokens=30,
        quality=0.45,
    ),
    "caching": Model(
        prices=Prices(plain="0.5", output="1.5", cached="0.0625", written="0.62505"),
        answer_tokens=50,
        quality=0.6,
    ),
    "tiered": Model(
        prices=Prices(plain="1.25", output="10.0", cached="0.3125"),
        above_tokens=512,
        long=Prices(plain="2.5", output="15.0", cached="0.62501"),
        answer_tokens=40,
        quality=0.7,
    ),
    "thinking": Model(
        prices=Prices(plain="1.1", output="4.4"),
        answer_tokens=40,
        reasoning_tokens=60,
        quality=0.85,
    ),
}
