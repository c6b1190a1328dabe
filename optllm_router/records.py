"""What travels between the rooms: frozen, slotted, keyword-only records without behaviour.

Money is an exact integer of nano-USD (`_nusd`) inside; floats in USD appear only at the face.
Times are timezone-aware UTC. A *column* is what the front, the policies, the ledger and the log
speak of: a single call to a candidate is the simplest column, so `Column.candidates` has one name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NANO_PER_USD = 1_000_000_000

Kind = Literal["route", "pin", "shadow", "probe", "import"]
AttemptStatus = Literal["open", "ok", "error", "abandoned", "refused"]
PredictorKind = Literal["ridge", "forest"]
SearchKind = Literal["exact", "destroy_repair"]
Prompts = Literal["none", "hash", "features", "full"]
BudgetScope = Literal["all", "tag", "task", "candidate"]
BudgetPer = Literal["session", "hour", "day", "week", "month", "total"]
CapPer = Literal["call", "batch"]
AtCap = Literal["degrade", "cheapest_free", "refuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTier:
    """Token prices that apply to the whole call once its prompt exceeds `above_tokens`."""

    above_tokens: int
    input_per_1m: Decimal
    output_per_1m: Decimal
    cached_input_per_1m: Decimal | None = None
    cache_write_per_1m: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPrice:
    """What a provider charges, in USD per 1M tokens, exact decimals.

    `cached_input_per_1m` prices prompt tokens read from the provider's cache, `cache_write_per_1m`
    those written to it; None means that they cost as much as other prompt tokens.
    """

    input_per_1m: Decimal
    output_per_1m: Decimal
    cached_input_per_1m: Decimal | None = None
    cache_write_per_1m: Decimal | None = None
    tiers: tuple[PriceTier, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a candidate can serve; None means unknown, and unknown does not filter."""

    context_window: int | None = None
    max_output_tokens: int | None = None
    tools: bool | None = None
    vision: bool | None = None
    json_schema: bool | None = None
    parameters: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An LLM that we may call.

    `name` is what log, front and policy say; `model` is what LiteLLM is asked for; `arguments` go
    with every call (endpoint, headers). `max_output_tokens` is sent when the caller gave no limit,
    so that worst cases are true. `worst_case_nusd` replaces the computed worst case where the
    client bills by a table instead of by tokens (then `price` is None).
    """

    name: str
    model: str
    price: TokenPrice | None
    price_version: str = ""
    capabilities: Capabilities = field(default_factory=Capabilities)
    max_output_tokens: int = 4096
    arguments: Mapping[str, object] = field(default_factory=dict)
    api_key_env: str | None = None
    worst_case_nusd: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """A line of money that calls of all processes share: how much, of what, per which window.

    `name` identifies it. `value` is the tag, task or candidate that `scope` speaks of, "" for all.
    Calendar windows turn in `timezone`; rolling ones (hour, day, week, month of 30 days) have no
    edge. `warn_at` is the share of the limit whose spending is worth a warning, None for none.
    """

    name: str
    limit_nusd: int
    per: BudgetPer
    scope: BudgetScope = "all"
    value: str = ""
    rolling: bool = False
    timezone: str = "UTC"
    warn_at: float | None = 0.8
    at_cap: AtCap = "degrade"


@dataclass(frozen=True, slots=True, kw_only=True)
class CapLine:
    """A line of money for each call, or each batch, by itself; kept by the process it is in."""

    name: str
    limit_nusd: int
    per: CapPer
    scope: BudgetScope = "all"
    value: str = ""
    at_cap: AtCap = "degrade"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One way to answer a query: the candidates that it asks, in order."""

    name: str
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One request to answer, as the core sees it.

    `text` is what is routed: the last user message, its first and last 1,000 characters.
    `n_prompt_tokens` counts everything that is sent. `max_output_tokens` is the caller's own
    limit, `n_thinking_tokens` what it grants to thinking beside. `parameters` names the optional
    arguments that a candidate must support. `n_retries` is how often the caller lets LiteLLM and
    the SDKs below it repeat the call.
    """

    text: str
    task: str = ""
    n_prompt_tokens: int = 0
    n_turns: int = 1
    n_tools: int = 0
    n_images: int = 0
    n_choices: int = 1
    wants_json: bool = False
    wants_json_schema: bool = False
    max_output_tokens: int | None = None
    n_thinking_tokens: int = 0
    parameters: frozenset[str] = frozenset()
    n_retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one attempt as the provider counted them; cached ones are part of the prompt's."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was chosen for one query, why, and with what probability.

    `chosen` is the policy's column, `served` the candidate that answered (they differ after a
    fallback, under a reserve, and in shadow mode); `requested` is the model name of the call.
    `propensity` is None where no choice was made (pins, probes, imports). `text_key`, `features`
    and `prompt` are filled as far as the privacy level allows.
    """

    id: str
    created_at: datetime
    kind: Kind
    requested: str
    chosen: str
    served: str | None
    policy: str
    reason: str
    task: str = ""
    tags: tuple[str, ...] = ()
    session_id: str | None = None
    batch_id: str | None = None
    predictor_version: str | None = None
    price_version: str | None = None
    propensity: float | None = None
    dual_price: float | None = None
    epsilon: float = 0.0
    allowed: tuple[str, ...] = ()
    expected_accuracy: float | None = None
    expected_cost_nusd: int | None = None
    text_key: str | None = None
    features: bytes | None = None
    prompt: str | None = None
    n_prompt_tokens: int = 0
    n_turns: int = 1
    n_tools: int = 0
    n_images: int = 0
    wants_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call to one candidate: how it went, its tokens and its exact cost.

    `cost_nusd` is None only where the price is unknown (an unpriced pin). `estimated` marks a cost
    that was forecast or counted here because the provider reported no usage.
    """

    id: str
    decision_id: str
    number: int
    candidate: str
    status: AttemptStatus
    started_at: datetime
    latency_s: float = 0.0
    error_class: str | None = None
    error_text: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cost_nusd: int | None = 0
    estimated: bool = False
    streamed: bool = False
    cache_hit: bool = False
    response_id: str | None = None
    price_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened: the quality of one decision's answer, a score in [0, 1].

    `source` says who graded, e.g. "feedback", "grader:exact", "probe:exact", "import". One
    decision holds one score per source; a different score from the same source replaces it.
    """

    decision_id: str
    score: float
    source: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """One served answer as learning sees it; `score` is None while nobody graded it.

    Where several sources graded one decision, "feedback" wins, then the newest; `scored_at` is when
    that score came, which may be long after the answer. `completion_tokens` is None where the
    reader left, so that nobody knows how long the answer would have been.
    """

    decision_id: str
    kind: Kind
    created_at: datetime
    task: str
    served: str
    text_key: str | None
    features: bytes | None
    n_prompt_tokens: int
    n_turns: int
    n_tools: int
    n_images: int
    wants_json: bool
    completion_tokens: int | None
    cost_nusd: int | None
    cost_estimated: bool
    score: float | None
    scored_at: datetime | None = None
