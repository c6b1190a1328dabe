"""Turns an entry of LiteLLM's model map and a candidate's own settings into a `Candidate`.

Pure: the entry is handed in. Prices become exact decimals per 1M tokens here, once; what nobody
states stays unknown, since an unknown price that turns into a number is money lost in silence.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeVar

from optllm_router.records import Candidate, Capabilities, PriceTier, TokenPrice

Entry = Mapping[str, Any]
_Price = TypeVar("_Price", Decimal, Decimal | None)

DEFAULT_MAX_OUTPUT_TOKENS = 4096

# The optional arguments that LiteLLM refuses with `UnsupportedParamsError` where a model does not
# take them; all others pass unchecked. `Query.parameters` is a caller's arguments among these.
CHECKED_PARAMETERS = frozenset(
    {
        "audio",
        "context_management",
        "frequency_penalty",
        "function_call",
        "functions",
        "include_server_side_tool_invocations",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "verbosity",
        "web_search_options",
    }
)

_INPUT, _OUTPUT = "input_cost_per_token", "output_cost_per_token"
_CACHED, _WRITTEN = "cache_read_input_token_cost", "cache_creation_input_token_cost"
_ABOVE = re.compile(rf"(?:{_INPUT}|{_OUTPUT})_above_(\d+)(k?)_tokens")
_TOKENS_PER_1M = 1_000_000


def find_entry(model_map: Mapping[str, Entry], model: str) -> Entry | None:
    """Find a model's entry: under its full name, else under its name at its provider.

    The second way takes an entry only if its provider is the one asked for (`vertex_ai` also
    matches `vertex_ai-language-models`), so that `openai/mistral-large` on a server of one's own
    does not get somebody else's price.
    """
    entry = model_map.get(model)
    if entry is not None or "/" not in model:
        return entry
    provider, name = model.split("/", 1)
    entry = model_map.get(name)
    if entry is None or not str(entry.get("litellm_provider", "")).startswith(provider):
        return None
    return entry


def build_candidate(
    model: str,
    entry: Entry | None,
    overrides: Mapping[str, Any],
    *,
    parameters: Collection[str] | None,
) -> Candidate:
    """Describe an LLM from its map entry (None: not listed) and its settings, which win."""
    settings = {key: value for key, value in overrides.items() if value is not None}
    capabilities = _capabilities(entry, settings, parameters)
    known_limit = capabilities.max_output_tokens or DEFAULT_MAX_OUTPUT_TOKENS
    arguments = dict(settings.get("arguments", {}))
    if "api_base" in settings:
        arguments["api_base"] = settings["api_base"]
    return Candidate(
        name=settings.get("name") or model,
        model=model,
        price=_price(_at_tier(entry, arguments.get("service_tier")), settings),
        capabilities=capabilities,
        max_output_tokens=settings.get(
            "max_output_tokens", min(DEFAULT_MAX_OUTPUT_TOKENS, known_limit)
        ),
        arguments=arguments,
        api_key_env=settings.get("api_key_env"),
    )


def _capabilities(
    entry: Entry | None, settings: Mapping[str, Any], parameters: Collection[str] | None
) -> Capabilities:
    """Read what a listed model can serve (absent means no); everything is unknown if unlisted."""
    listed = entry or {}

    def supports(setting: str, key: str) -> bool | None:
        if setting in settings:
            return bool(settings[setting])
        return None if entry is None else bool(listed.get(key))

    return Capabilities(
        context_window=settings.get("context_window", _limit(listed.get("max_input_tokens"))),
        # `max_tokens` is the map's older name for the output limit.
        max_output_tokens=_limit(listed.get("max_output_tokens", listed.get("max_tokens"))),
        tools=supports("tools", "supports_function_calling"),
        vision=supports("vision", "supports_vision"),
        json_schema=supports("json_schema", "supports_response_schema"),
        parameters=None if parameters is None else frozenset(parameters),
    )


def _limit(value: object) -> int | None:
    """Return a token limit, None where the map has none that makes sense."""
    return int(value) if isinstance(value, int | float) and value > 0 else None


def _price(entry: Entry | None, settings: Mapping[str, Any]) -> TokenPrice | None:
    """Join the settings' price with the map's; None unless input and output are both known.

    Settings for input or output describe another tariff than the map's, so the map's cache
    discounts and tiers are dropped with them (cached tokens then cost as much as others).
    """
    given = {key: _decimal(settings[key]) for key in _PRICE_SETTINGS if key in settings}
    listed = _listed_price(entry or {})
    if listed is not None and given.keys().isdisjoint(_TARIFF_SETTINGS):
        cached = given.get("cached_input_usd_per_1m", listed.cached_input_per_1m)
        written = given.get("cache_write_usd_per_1m", listed.cache_write_per_1m)
        return replace(listed, cached_input_per_1m=cached, cache_write_per_1m=written)
    input_price = given.get("input_usd_per_1m", listed.input_per_1m if listed else None)
    output_price = given.get("output_usd_per_1m", listed.output_per_1m if listed else None)
    if input_price is None or output_price is None:
        return None
    return TokenPrice(
        input_per_1m=input_price,
        output_per_1m=output_price,
        cached_input_per_1m=given.get("cached_input_usd_per_1m"),
        cache_write_per_1m=given.get("cache_write_usd_per_1m"),
    )


def _at_tier(entry: Entry | None, service_tier: object) -> Entry | None:
    """Return an entry with the prices of the priority tier, where a candidate always asks for it.

    Other tiers are cheaper than what the entry states, or the same.
    """
    if entry is None or service_tier != "priority":
        return entry
    suffix = "_priority"
    dearer = {k.removesuffix(suffix): entry[k] for k in entry if k.endswith(suffix)}
    return {**entry, **dearer}


_TARIFF_SETTINGS = ("input_usd_per_1m", "output_usd_per_1m")
_PRICE_SETTINGS = (*_TARIFF_SETTINGS, "cached_input_usd_per_1m", "cache_write_usd_per_1m")


def _listed_price(entry: Entry) -> TokenPrice | None:
    """Read the map's price: flat with thresholds, or a table of ranges; None where it has none."""
    ranges = entry.get("tiered_pricing")
    if ranges and all("range" in row for row in ranges):
        return _range_price(entry)
    input_price, output_price = _per_1m(entry, _INPUT), _per_1m(entry, _OUTPUT)
    if input_price is None or output_price is None:
        return None
    if input_price == output_price == 0 and entry.get("mode") != "chat":
        return None  # billed by something else than tokens
    return TokenPrice(
        input_per_1m=input_price,
        output_per_1m=output_price,
        cached_input_per_1m=_per_1m(entry, _CACHED),
        cache_write_per_1m=_per_1m(entry, _WRITTEN),
        tiers=tuple(_threshold_tiers(entry, input_price, output_price)),
    )


def _threshold_tiers(
    entry: Entry, input_price: Decimal, output_price: Decimal
) -> Iterator[PriceTier]:
    """Yield the tiers of keys like `input_cost_per_token_above_200k_tokens`, lowest first.

    A price that a tier does not state stays that of the tier below. xAI bills the higher tier
    from the threshold on, the others above it.
    """
    matches = filter(None, (_ABOVE.fullmatch(key) for key in entry))
    thresholds = {(int(number) * (1000 if k else 1), number + k) for number, k in _groups(matches)}
    from_threshold_on = entry.get("litellm_provider") == "xai"
    cached, written = _per_1m(entry, _CACHED), _per_1m(entry, _WRITTEN)
    for above, label in sorted(thresholds):
        suffix = f"_above_{label}_tokens"
        input_price = _or(_per_1m(entry, _INPUT + suffix), input_price)
        output_price = _or(_per_1m(entry, _OUTPUT + suffix), output_price)
        cached = _or(_per_1m(entry, _CACHED + suffix), cached)
        written = _or(_per_1m(entry, _WRITTEN + suffix), written)
        yield PriceTier(
            above_tokens=above - from_threshold_on,
            input_per_1m=input_price,
            output_per_1m=output_price,
            cached_input_per_1m=cached,
            cache_write_per_1m=written,
        )


def _groups(matches: Iterable[re.Match[str]]) -> Iterator[tuple[str, str]]:
    for match in matches:
        yield match[1], match[2]


def _or(value: Decimal | None, otherwise: _Price) -> Decimal | _Price:
    return otherwise if value is None else value


def _range_price(entry: Entry) -> TokenPrice | None:
    """Read `tiered_pricing`: the first range is the base, each later one a tier above its start."""
    rows = sorted(entry["tiered_pricing"], key=lambda row: float(row["range"][0]))
    priced = [(_per_1m(row, _INPUT), _per_1m({**entry, **row}, _OUTPUT), row) for row in rows]
    tiers = [
        PriceTier(
            above_tokens=int(row["range"][0]),
            input_per_1m=input_price,
            output_per_1m=output_price,
            cached_input_per_1m=_per_1m(row, _CACHED),
        )
        for input_price, output_price, row in priced
        if input_price is not None and output_price is not None
    ]
    if len(tiers) != len(rows):
        return None
    base = tiers[0]
    return TokenPrice(
        input_per_1m=base.input_per_1m,
        output_per_1m=base.output_per_1m,
        cached_input_per_1m=base.cached_input_per_1m,
        tiers=tuple(tiers[1:]),
    )


def _per_1m(entry: Entry, key: str) -> Decimal | None:
    """Return a price per token as exact decimal USD per 1M tokens, None where it is absent."""
    value = entry.get(key)
    if value is None or isinstance(value, bool):
        return None
    return _plain(_decimal(value) * _TOKENS_PER_1M)


def _decimal(value: Any) -> Decimal:
    """Take a number at the text that it shows: 0.15 is fifteen hundredths, not its binary twin."""
    return _plain(Decimal(str(value)))


def _plain(value: Decimal) -> Decimal:
    """Drop trailing zeros without going to exponents, so that equal prices have equal text."""
    return Decimal(f"{value.normalize():f}")
