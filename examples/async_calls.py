"""Async: many calls at once, a stream, and a batch, without blocking the event loop.

The LLMs here are SIMULATED, on this machine: no key, no network, no money. For real ones change
the two lines that are marked.
"""

import asyncio
import tempfile

from optllm_router import Budget, Router
from optllm_router.demo.providers import SimulatedProvider
from optllm_router.demo.tasks import make_queries

QUESTIONS = [query.text for query in make_queries(24, seed=4)]


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def talk(router: Router) -> None:
    answers = await asyncio.gather(
        *(router.acomplete(messages=messages(text), session_id="s1") for text in QUESTIONS[:8])
    )
    print(f"{len(answers)} calls at once; the first: {answers[0].choices[0].message.content!r}")

    stream = await router.acomplete(messages=messages(QUESTIONS[8]), stream=True)
    print("a stream: ", end="")
    async for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()

    batch = await router.acomplete_batch(
        QUESTIONS[9:], policy=Budget(usd=0.50, per="batch"), concurrency=4
    )
    answered = [answer for answer in batch if not isinstance(answer, Exception)]
    spent = sum(answer._hidden_params["optllm"]["cost_usd"] for answer in answered)
    print(f"a batch: {len(answered)} of {len(batch)} answered, ${spent:.6f} of $0.50 spent")


with (
    tempfile.TemporaryDirectory() as folder,
    SimulatedProvider(make_queries(24, seed=4), seed=4) as llms,
    Router(
        candidates=llms.candidates(),  # real: ["openai/gpt-4o-mini", "openai/gpt-4o"]
        default="openai/simulated-large",  # real: "openai/gpt-4o"
        store=f"sqlite:///{folder}/optllm.db",
    ) as router,
):
    asyncio.run(talk(router))
    for row in router.history.summary(by="candidate"):
        print(f"in the log: {row.key}, {row.n_attempts} calls, ${row.cost_usd:.6f}")
