"""One crowd on one budget of ours: how many it served, and what upstream and ledger say of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

from crowd_databases import Fresh
from crowd_shapes import Outcomes, Part, Shape, at_once, from_tasks, from_threads, parts
from crowd_upstream import Rules, Upstream

from optllm_router import BudgetExceededError, Router
from optllm_router.records import NANO_PER_USD
from optllm_router.store.sql import open_store

ROOM = 50  # calls at their actual cost
MAX_TOKENS = 20
TOKEN_NUSD = (
    100_000  # 100 USD per million output tokens; prompts are free, so worst cases are plain
)


@dataclass(frozen=True, slots=True)
class Case:
    """How many times its actual cost a call's worst case is, and how many calls are served then.

    The worst case of a call is always `MAX_TOKENS`, its actual cost a share of that. A call starts
    only while its worst case is free.
    """

    ratio: int

    @property
    def actual_nusd(self) -> int:
        """What a call really costs."""
        return MAX_TOKENS // self.ratio * TOKEN_NUSD

    @property
    def limit_nusd(self) -> int:
        """The budget: room for `ROOM` calls at their actual cost."""
        return ROOM * self.actual_nusd

    @property
    def fits(self) -> int:
        """How many calls are served: the last one starts while `ratio` of the units are free."""
        return ROOM - self.ratio + 1

    def rules(self) -> Rules:
        """How the upstream charges."""
        return Rules(completion_tokens=MAX_TOKENS // self.ratio, output_nusd=TOKEN_NUSD)


CASES = (Case(1), Case(20))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a process of the crowd needs to know."""

    store: str
    api_base: str
    limit_nusd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of one crowd; money in nano-USD, the ledger's as the store has it afterwards.

    `outcomes` is what the callers got, `billed_*` is the upstream's own bill.
    """

    case: Case
    outcomes: Outcomes
    n_calls: int
    n_billed: int
    billed_nusd: int
    n_ledger: int
    spent_nusd: int
    reserved_nusd: int
    overshoot_nusd: int
    attempts_nusd: int
    most_at_once: int
    seconds: float

    @property
    def misses(self) -> list[str]:
        """What is not as promised."""
        case, fits = self.case, self.case.fits
        money = case.actual_nusd * fits
        expected = {
            "served, by the upstream's bill": (fits, self.n_billed),
            "served, by the callers": (fits, self.outcomes["served"]),
            "refused": (self.n_calls - fits, self.outcomes["refused"]),
            "served, by the ledger": (fits, self.n_ledger),
            "billed": (money, self.billed_nusd),
            "spent, by the budget": (money, self.spent_nusd),
            "spent, by the attempts": (money, self.attempts_nusd),
            "reserved afterwards": (0, self.reserved_nusd),
            "overshoot": (0, self.overshoot_nusd),
            "beyond the limit": (0, max(self.billed_nusd - case.limit_nusd, 0)),
        }
        return [
            f"{what}: {found}, not {due}" for what, (due, found) in expected.items() if due != found
        ]


def crowd_of_ours(
    upstream: Upstream, fresh: Fresh, shape: Shape, case: Case, n_calls: int
) -> Found:
    """Let a crowd loose on a fresh budget, and look at all the books afterwards."""
    account, url = upstream.open(case.rules()), fresh()
    job = Job(store=url, api_base=upstream.url(account), limit_nusd=case.limit_nusd)
    open_store(url).close()  # the schema is there before eight want to make it
    outcomes, seconds = at_once(parts(shape, n_calls), ask_all, job)
    bill = upstream.bill(account)
    store = open_store(url)
    (status,) = store.budgets()
    logged = store.decisions(limit=10 * n_calls)
    store.close()
    return Found(
        case=case,
        outcomes=outcomes,
        n_calls=n_calls,
        n_billed=bill.n_calls,
        billed_nusd=bill.nusd,
        n_ledger=status.n_calls,
        spent_nusd=status.spent_nusd,
        reserved_nusd=status.reserved_nusd,
        overshoot_nusd=status.overshoot_nusd,
        attempts_nusd=sum(a.cost_nusd or 0 for one in logged for a in one.attempts),
        most_at_once=bill.most_at_once,
        seconds=seconds,
    )


def router_of(job: Job) -> Router:
    """Return the router of one process of the crowd."""
    candidate = {
        "model": "openai/any",
        "api_base": job.api_base,
        "arguments": {"api_key": "sk-any"},
        "input_usd_per_1m": 0,
        "output_usd_per_1m": TOKEN_NUSD / 1_000,
    }
    budget = {"name": "room", "usd": job.limit_nusd / NANO_PER_USD, "per": "total"}
    return Router(
        [candidate],
        store=job.store,
        budgets=[budget],
        calls={"reserve_timeout": "10m"},
        retrain={"enabled": False},
    )


def ask_all(part: Part, job: Job, barrier: Barrier) -> Outcomes:
    """Make the calls of one process, and say what became of them."""
    router = router_of(job)

    def asked(number: int) -> dict[str, object]:
        text = f"call {number} of process {part.number}"
        return {"messages": [{"role": "user", "content": text}], "max_tokens": MAX_TOKENS}

    def ask(number: int) -> str:
        try:
            router.complete(**asked(number))
        except Exception as error:
            return _outcome(error)
        return "served"

    async def ask_async(number: int) -> str:
        try:
            await router.acomplete(**asked(number))
        except Exception as error:
            return _outcome(error)
        return "served"

    try:
        if part.shell == "threads":
            return from_threads(part.n_calls, ask, barrier)
        return asyncio.run(from_tasks(part.n_calls, ask_async, barrier))
    finally:
        router.close()


def _outcome(error: Exception) -> str:
    return (
        "refused" if isinstance(error, BudgetExceededError) else f"{type(error).__name__}: {error}"
    )
