"""Candidates from LiteLLM's local model map and from settings."""

from dataclasses import replace
from decimal import Decimal

import litellm
import pytest

from optllm_router.completion import modelmap
from optllm_router.records import Capabilities, PriceTier, TokenPrice


def price_of(entry, **settings):
    return modelmap.build_candidate("x/y", entry, settings, parameters=None).price


def test_a_listed_model_has_its_price_limits_and_abilities(client):
    candidate = client.candidate("openai/gpt-4o-mini")

    assert candidate.name == candidate.model == "openai/gpt-4o-mini"
    assert candidate.price == TokenPrice(
        input_per_1m=Decimal("0.15"),
        output_per_1m=Decimal("0.6"),
        cached_input_per_1m=Decimal("0.075"),
    )
    capabilities = candidate.capabilities
    assert (capabilities.context_window, capabilities.max_output_tokens) == (128_000, 16_384)
    assert capabilities.tools is capabilities.vision is capabilities.json_schema is True
    assert {"temperature", "tools", "response_format", "logprobs"} <= capabilities.parameters
    assert candidate.max_output_tokens == 4096
    assert candidate.worst_case_nusd is None


def test_prices_are_exact_decimal_text(client):
    prices = [client.candidate(name).price for name in ("gpt-4o-mini", "claude-sonnet-4-5")]

    assert [str(price.input_per_1m) for price in prices] == ["0.15", "3"]
    assert [str(price.output_per_1m) for price in prices] == ["0.6", "15"]
    assert str(prices[1].cache_write_per_1m) == "3.75"


def test_every_priced_model_of_the_map_agrees_with_litellms_own_floats(client):
    checked = 0
    for name, entry in litellm.model_cost.items():
        flat = "tiered_pricing" not in entry and entry.get("input_cost_per_token")
        price = modelmap.build_candidate(name, entry, {}, parameters=None).price
        if flat and price is not None:
            assert float(price.input_per_1m) == pytest.approx(
                entry["input_cost_per_token"] * 1e6, rel=1e-12
            )
            checked += 1

    assert checked > 2_000


def test_a_model_nobody_listed_is_unknown_not_free(client):
    candidate = client.candidate("openai/house-blend", {"api_base": "http://127.0.0.1:1/v1"})

    assert candidate.price is None
    assert candidate.arguments == {"api_base": "http://127.0.0.1:1/v1"}
    assert candidate.max_output_tokens == 4096
    unknown = candidate.capabilities
    assert (unknown.context_window, unknown.max_output_tokens) == (None, None)
    assert (unknown.tools, unknown.vision, unknown.json_schema) == (None, None, None)
    assert "temperature" in unknown.parameters
    assert client.candidate("no-such-model").capabilities == Capabilities()


def test_settings_win(client):
    candidate = client.candidate(
        "openai/gpt-4o-mini",
        {
            "name": "mini",
            "model": "openai/gpt-4o-mini",
            "api_key_env": "MINI_KEY",
            "api_base": "http://127.0.0.1:1/v1",
            "arguments": {"seed": 1},
            "max_output_tokens": 20_000,
            "context_window": 8_000,
            "tools": False,
            "vision": None,
            "json_schema": False,
            "input_usd_per_1m": 0.1,
            "output_usd_per_1m": Decimal("0.40"),
            "cached_input_usd_per_1m": None,
            "cache_write_usd_per_1m": "0.2",
        },
    )

    assert (candidate.name, candidate.api_key_env) == ("mini", "MINI_KEY")
    assert candidate.arguments == {"seed": 1, "api_base": "http://127.0.0.1:1/v1"}
    assert candidate.max_output_tokens == 20_000
    assert candidate.capabilities.context_window == 8_000
    assert candidate.capabilities.tools is candidate.capabilities.json_schema is False
    assert candidate.capabilities.vision is True
    assert candidate.price == TokenPrice(
        input_per_1m=Decimal("0.1"),
        output_per_1m=Decimal("0.4"),
        cache_write_per_1m=Decimal("0.2"),
    )


def test_given_prices_work_for_models_nobody_listed(client):
    candidate = client.candidate(
        "openai/house-blend", {"input_usd_per_1m": 0, "output_usd_per_1m": 1e-7}
    )

    assert candidate.price == TokenPrice(
        input_per_1m=Decimal(0), output_per_1m=Decimal("0.0000001")
    )


def test_a_given_cache_price_keeps_the_listed_tariff(client):
    listed = client.candidate("gemini/gemini-2.5-pro").price

    price = client.candidate("gemini/gemini-2.5-pro", {"cached_input_usd_per_1m": 0.5}).price

    assert (price.input_per_1m, price.tiers) == (listed.input_per_1m, listed.tiers)
    assert price.cached_input_per_1m == Decimal("0.5")


def test_the_default_limit_does_not_exceed_what_the_model_can_say():
    entry = {"max_output_tokens": 1_000, "max_tokens": 5_000}

    candidate = modelmap.build_candidate("x/y", entry, {}, parameters=["temperature"])

    assert candidate.max_output_tokens == 1_000
    assert candidate.capabilities.parameters == frozenset({"temperature"})


def test_a_price_above_a_prompt_length_is_a_tier():
    entry = {
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 4e-06,
        "cache_read_input_token_cost": 1e-07,
        "input_cost_per_token_above_128k_tokens": 2e-06,
        "output_cost_per_token_above_200k_tokens": 9e-06,
        "cache_read_input_token_cost_above_200k_tokens": 0.0,
        "input_cost_per_token_above_200k_tokens_priority": 1.0,
    }

    assert price_of(entry).tiers == (
        PriceTier(
            above_tokens=128_000,
            input_per_1m=Decimal(2),
            output_per_1m=Decimal(4),
            cached_input_per_1m=Decimal("0.1"),
        ),
        PriceTier(
            above_tokens=200_000,
            input_per_1m=Decimal(2),
            output_per_1m=Decimal(9),
            cached_input_per_1m=Decimal(0),
        ),
    )


def test_xai_bills_the_higher_tier_from_the_threshold_on():
    entry = {
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 4e-06,
        "input_cost_per_token_above_128k_tokens": 2e-06,
        "litellm_provider": "xai",
    }

    assert [tier.above_tokens for tier in price_of(entry).tiers] == [127_999]


def test_a_table_of_ranges_is_a_base_and_tiers():
    entry = {
        "tiered_pricing": [
            {
                "input_cost_per_token": 2e-07,
                "output_cost_per_token": 1e-06,
                "range": [256_000.0, 1_000_000.0],
            },
            {
                "input_cost_per_token": 5e-08,
                "output_cost_per_token": 4e-07,
                "range": [0, 256_000.0],
            },
        ]
    }

    assert price_of(entry) == TokenPrice(
        input_per_1m=Decimal("0.05"),
        output_per_1m=Decimal("0.4"),
        tiers=(
            PriceTier(above_tokens=256_000, input_per_1m=Decimal("0.2"), output_per_1m=Decimal(1)),
        ),
    )


@pytest.mark.parametrize(
    "entry",
    [
        {"mode": "chat"},
        {"mode": "chat", "input_cost_per_token": 0.0},
        {"mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": None},
        {"mode": "image_generation", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
        {"mode": "chat", "tiered_pricing": [{"input_cost_per_token": 1e-6, "range": [0, 9]}]},
        {"mode": "search", "tiered_pricing": [{"input_cost_per_query": 1e-3}]},
    ],
)
def test_a_missing_price_is_unknown(entry):
    assert price_of(entry) is None


def test_a_chat_model_that_states_zero_twice_is_free():
    entry = {"mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0}

    assert price_of(entry) == TokenPrice(input_per_1m=Decimal(0), output_per_1m=Decimal(0))


def test_an_entry_of_another_provider_is_not_taken():
    model_map = {
        "big": {"litellm_provider": "mistral"},
        "pro": {"litellm_provider": "vertex_ai-language-models"},
        "azure/big": {"litellm_provider": "azure"},
    }

    assert modelmap.find_entry(model_map, "openai/big") is None
    assert modelmap.find_entry(model_map, "mistral/big") == model_map["big"]
    assert modelmap.find_entry(model_map, "vertex_ai/pro") == model_map["pro"]
    assert modelmap.find_entry(model_map, "azure/big") == model_map["azure/big"]
    assert modelmap.find_entry(model_map, "nothing") is None


def test_dropped_parameters_do_not_limit_a_candidate(client):
    dropping = client.candidate("openai/gpt-4o-mini", {"arguments": {"drop_params": True}})
    widened = client.candidate(
        "openai/gpt-4o-mini", {"arguments": {"allowed_openai_params": ["thinking"]}}
    )

    assert dropping.capabilities.parameters is None
    assert "thinking" in widened.capabilities.parameters


def test_the_checked_parameters_are_those_that_litellm_refuses(client):
    from litellm.constants import DEFAULT_CHAT_COMPLETION_PARAM_VALUES

    unchecked = {
        *("model", "messages", "custom_llm_provider", "api_version", "extra_headers", "metadata"),
        *("user", "stream", "stream_options", "max_retries", "prompt_cache_retention"),
        *("drop_params", "allowed_openai_params", "additional_drop_params"),
    }

    assert set(DEFAULT_CHAT_COMPLETION_PARAM_VALUES) - unchecked == modelmap.CHECKED_PARAMETERS
    with pytest.raises(litellm.UnsupportedParamsError):
        client.complete(
            client.candidate("nlp_cloud/dolphin"),
            {"messages": [], "mock_response": "ok", "logprobs": True},
        )


def test_a_candidate_that_asks_for_the_priority_tier_has_its_prices():
    entry = {
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 2e-06,
        "cache_read_input_token_cost": 1e-07,
        "input_cost_per_token_priority": 3e-06,
        "output_cost_per_token_priority": 5e-06,
    }

    def price(arguments):
        return modelmap.build_candidate("m", entry, {"arguments": arguments}, parameters=None).price

    base = TokenPrice(
        input_per_1m=Decimal(1), output_per_1m=Decimal(2), cached_input_per_1m=Decimal("0.1")
    )
    assert base == price({}) == price({"service_tier": "flex"})
    assert replace(base, input_per_1m=Decimal(3), output_per_1m=Decimal(5)) == price(
        {"service_tier": "priority"}
    )
