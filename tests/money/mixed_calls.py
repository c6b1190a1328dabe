"""Calls of every kind through a real Router and the real LiteLLM, drawn from seeded dice.

Every call has a key, which its prompt begins with: the log keeps prompts here, so that its rows can
be laid beside the provider's bill. What a caller did with an answer (read it, left it) is noted.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
import litellm
import openai
from callers import ASYNC, SYNC, Call
from price_sheet import SHEET, Model, Prices
from what_was_done import BUDGETS, Made

from optllm_router import (
    Budget,
    BudgetExceededError,
    Cheapest,
    MostAccurate,
    Router,
    StoreError,
    WillingnessToPay,
)

N_THREADS, N_TASKS = 8, 16
N_FIRST = 16  # queries of the first probe: it takes 50 labels to fit
POLICIES = (None, Cheapest(), MostAccurate(), WillingnessToPay(1e-4), Budget(usd=1.0))
DEAD = {"model": "openai/nobody", "api_base": "http://127.0.0.1:9/v1", "api_key": "sk-test"}
FAILURES = (BudgetExceededError, StoreError, openai.OpenAIError)
LIMITS = {"timeout": "20s", "attempt_timeout": "4s"}
_NOUNS = (
    "rivers bridges letters gardens markets engines stories maps clocks mountains harbours songs "
    "windows recipes planets taxes lessons horses theatres winters"
)
_VERBS = "compare describe explain list summarise translate rank defend question rewrite"


def open_router(port: int, store: str) -> Router:
    """Open a router over the provider at a port, one candidate's price from LiteLLM's map."""
    url = f"http://127.0.0.1:{port}/v1"
    litellm.model_cost["openai/tiered"] = _map_entry(SHEET["tiered"])
    litellm.cache = litellm.Cache(type="local", mode="default_off")
    litellm.suppress_debug_info = True
    litellm.model_cost[DEAD["model"]] = _map_entry(SHEET["tiered"])
    return Router(
        [_candidate(name, url) for name in SHEET],
        default="caching",
        store=store,
        prompts="full",
        budgets=BUDGETS,
        calls=LIMITS,
        predictor={"n_bootstraps": 10},
        retrain={"enabled": False},
    )


def learn(router: Router, n_queries: int) -> list[Made]:
    """Have a router probe its candidates and fit; a few queries first, so that it knows costs."""
    dice = random.Random(n_queries)
    queries = [_prompt(dice, f"p{i:05d}") for i in range(n_queries)]
    for part in filter(None, (queries[:N_FIRST], queries[N_FIRST:])):
        router.probe(part, grader=lambda text, _reference: float(text.startswith("sure")))
        router.retrain()
    router.front()  # raises where nothing was learned
    return [Made(f"p{i:05d}", "probe", "", is_left=False) for i in range(n_queries)]


def make(router: Router, n_calls: int, seed: int) -> list[Made]:
    """Make so many calls: a fifth in batches, the rest one by one on threads and on a loop."""
    n_items = n_calls // 10
    calls = [_call(f"c{i:06d}", seed) for i in range(n_calls - 2 * n_items)]
    sync = [call for call in calls if call.kind in SYNC]
    awaited = [call for call in calls if call.kind in ASYNC]
    with ThreadPoolExecutor(N_THREADS + 1) as threads:
        looped = threads.submit(asyncio.run, _on_a_loop(router, awaited))
        made = list(threads.map(lambda call: _made_sync(router, call), sync))
        made += looped.result()
    made += _batch(router, "batch", f"b{seed}", n_items)
    made += _batch(router, "async batch", f"a{seed}", n_items)
    gc.collect()
    return made


def _call(key: str, seed: int) -> Call:
    dice = random.Random(f"{seed}|{key}")
    kinds = {**{kind: weight for kind, (weight, _) in SYNC.items()}}
    kinds |= {kind: weight for kind, (weight, _) in ASYNC.items()}
    kind = dice.choices(list(kinds), list(kinds.values()))[0]
    tags = [tag for tag, share in (("team-a", 0.5), ("chat", 0.1)) if dice.random() < share]
    arguments: dict[str, Any] = {
        "messages": _messages(dice, key),
        "tags": [*tags, "tight"] if "tight" in kind else tags,
        "task": dice.choice(["triage", "chat", None]),
        "policy": dice.choice(POLICIES),
    }
    if "chat" in tags:
        arguments["session_id"] = f"session-{dice.randrange(20)}"
    if dice.random() < 0.3:
        arguments[dice.choice(["max_tokens", "max_completion_tokens"])] = dice.randint(16, 200)
    if "pin" in kind:
        arguments |= DEAD if dice.random() < 0.1 else {"model": dice.choice(list(SHEET))}
        arguments["policy"] = None
    if "n > 1" in kind:
        arguments["n"] = dice.randint(2, 3)
    if "cache" in kind:
        arguments["cache"] = {"use-cache": True}
    if "hurried" in kind:
        arguments["timeout"] = dice.uniform(0.01, 0.08)
    return Call(key, kind, arguments, dice)


def _messages(dice: random.Random, key: str) -> list[dict[str, str]]:
    asked = {"role": "user", "content": _prompt(dice, key)}
    system = {"role": "system", "content": "You answer briefly, and never about horses."}
    return [system, asked] if dice.random() < 0.3 else [asked]


def _prompt(dice: random.Random, key: str) -> str:
    n_words = dice.randint(450, 900) if dice.random() < 0.1 else dice.randint(5, 60)
    pairs = (
        f"{dice.choice(_VERBS.split())} {dice.choice(_NOUNS.split())}" for _ in range(n_words // 2)
    )
    return f"[{key}] {', '.join(pairs)}"


def _made_sync(router: Router, call: Call) -> Made:
    try:
        end = SYNC[call.kind][1](router, call)
    except FAILURES as error:
        return _failed(call, error)
    return Made(call.key, call.kind, end, is_left=end == "left")


async def _made_async(router: Router, call: Call, turn: asyncio.Semaphore) -> Made:
    async with turn:
        try:
            end = await ASYNC[call.kind][1](router, call)
        except FAILURES as error:
            return _failed(call, error)
    return Made(call.key, call.kind, end, is_left=end == "left")


def _failed(call: Call, error: Exception) -> Made:
    is_left = isinstance(error, litellm.Timeout)
    return Made(call.key, call.kind, type(error).__name__, is_left=is_left)


async def _on_a_loop(router: Router, calls: list[Call]) -> list[Made]:
    turn = asyncio.Semaphore(N_TASKS)
    return await asyncio.gather(*(_made_async(router, call, turn) for call in calls))


def _batch(router: Router, kind: str, name: str, n_items: int) -> list[Made]:
    """Ask a batch that survives its process; what failed is asked again with the same name."""
    dice = random.Random(name)
    keys = [f"{name}i{i:05d}" for i in range(n_items)]
    items = [{"messages": _messages(dice, key), "tags": ["team-a"]} for key in keys]
    for _ in range(2):
        if kind == "batch":
            results = router.complete_batch(items, concurrency=8, batch_id=name)
        else:
            results = asyncio.run(router.acomplete_batch(items, concurrency=8, batch_id=name))
    ends = [type(result).__name__ for result in results]
    return [Made(key, kind, end, is_left=False) for key, end in zip(keys, ends, strict=True)]


# -- the router's side of the price sheet --------------------------------------------------


def _candidate(name: str, url: str) -> dict[str, Any]:
    base = {
        "model": f"openai/{name}",
        "name": name,
        "api_base": url,
        "arguments": {"api_key": "sk-test"},
    }
    prices = SHEET[name].prices
    if SHEET[name].long is not None:
        return base
    base |= {"input_usd_per_1m": prices.plain, "output_usd_per_1m": prices.output}
    if prices.cached is not None:
        base["cached_input_usd_per_1m"] = prices.cached
    if prices.written is not None:
        base["cache_write_usd_per_1m"] = prices.written
    return base


def _map_entry(model: Model) -> dict[str, Any]:
    """An LLM as LiteLLM's model map states it, prices per token as floats."""
    assert model.long is not None
    return {
        "litellm_provider": "openai",
        "mode": "chat",
        "max_input_tokens": 128_000,
        "max_output_tokens": 16_000,
        **_per_token(model.prices, ""),
        **_per_token(model.long, f"_above_{model.above_tokens}_tokens"),
    }


def _per_token(prices: Prices, suffix: str) -> dict[str, float]:
    assert prices.cached is not None
    return {
        f"input_cost_per_token{suffix}": float(f"{prices.plain}e-6"),
        f"output_cost_per_token{suffix}": float(f"{prices.output}e-6"),
        f"cache_read_input_token_cost{suffix}": float(f"{prices.cached}e-6"),
    }
