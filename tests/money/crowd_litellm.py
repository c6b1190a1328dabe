"""The same crowd on `litellm.Router`'s budget per provider, against the same upstream.

LiteLLM counts what providers spent when their answers have been logged, and looks before each call:
that is all its in-process budget does. Its processes share it through Redis only, which is not
used here: each of eight has the budget to itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Any

from crowd_ours import MAX_TOKENS, TOKEN_NUSD, Case, Job
from crowd_shapes import START_S, Outcomes, Part, Shape, at_once, from_tasks, parts
from crowd_upstream import Upstream

from optllm_router.records import NANO_PER_USD


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundThere:
    """What came of one crowd: what the callers got, and the upstream's own bill in nano-USD."""

    outcomes: Outcomes
    n_billed: int
    billed_nusd: int
    overshoot_nusd: int
    seconds: float


def crowd_of_theirs(upstream: Upstream, shape: Shape, case: Case, n_calls: int) -> FoundThere:
    """Let a crowd loose on LiteLLM's budget of the same amount."""
    return _found(upstream, case, parts(shape, n_calls), ask_all)


def one_by_one(upstream: Upstream, case: Case, n_calls: int) -> FoundThere:
    """Ask the same of it one call after the other: whether the budget is set up right."""
    return _found(upstream, case, [Part(0, "asyncio", n_calls)], ask_in_turn)


def _found(upstream: Upstream, case: Case, crowd: list[Part], work: Any) -> FoundThere:
    account = upstream.open(case.rules())
    job = Job(store="", api_base=upstream.url(account), limit_nusd=case.limit_nusd)
    outcomes, seconds = at_once(crowd, work, job)
    bill = upstream.bill(account)
    return FoundThere(
        outcomes=outcomes,
        n_billed=bill.n_calls,
        billed_nusd=bill.nusd,
        overshoot_nusd=max(bill.nusd - case.limit_nusd, 0),
        seconds=seconds,
    )


def ask_all(part: Part, job: Job, barrier: Barrier) -> Outcomes:
    """Make the calls of one process, and say what became of them."""
    return asyncio.run(_ask_all(part, job, barrier))


async def _ask_all(part: Part, job: Job, barrier: Barrier) -> Outcomes:
    router = _router(job)  # it wants a loop that runs

    async def ask(number: int) -> str:
        with contextlib.suppress(ValueError):
            await router.acompletion(**_asked(part, number))
            return "served"
        return "refused"

    def ask_from_thread(number: int) -> str:
        with contextlib.suppress(ValueError):
            router.completion(**_asked(part, number))
            return "served"
        return "refused"

    if part.shell == "asyncio":
        return await from_tasks(part.n_calls, ask, barrier)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(part.n_calls) as threads:
        barrier.wait(START_S)
        asked = (
            loop.run_in_executor(threads, ask_from_thread, number) for number in range(part.n_calls)
        )
        return Counter(await asyncio.gather(*asked))


def ask_in_turn(part: Part, job: Job, barrier: Barrier) -> Outcomes:
    """Make the calls one after the other, each logged before the next."""

    async def ask() -> Outcomes:
        router, outcomes = _router(job), Counter()
        barrier.wait(START_S)
        for number in range(part.n_calls):
            try:
                await router.acompletion(**_asked(part, number))
            except ValueError:
                outcomes["refused"] += 1
            else:
                outcomes["served"] += 1
            await asyncio.sleep(0.05)
        return outcomes

    return asyncio.run(ask())


def _asked(part: Part, number: int) -> dict[str, object]:
    text = f"call {number} of process {part.number}"
    return {
        "model": "any",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": MAX_TOKENS,
    }


def _router(job: Job) -> Any:
    import litellm

    parameters = {
        "model": "openai/any",
        "api_base": job.api_base,
        "api_key": "sk-any",
        "input_cost_per_token": 0.0,
        "output_cost_per_token": TOKEN_NUSD / NANO_PER_USD,
    }
    budget = {"budget_limit": job.limit_nusd / NANO_PER_USD, "time_period": "1d"}
    return litellm.Router(
        model_list=[{"model_name": "any", "litellm_params": parameters}],
        provider_budget_config={"openai": budget},
        num_retries=0,
    )
