"""What the rest of a batch is planned on: budget - spent - in flight - what is kept back."""

import threading

import pytest
from typing_extensions import override

from optllm_router import Budget
from optllm_router.core.cost import worst_case_nusd
from optllm_router.dispatch.batch import MIN_SLICE, N_KEPT_BACK
from optllm_router.records import NANO_PER_USD, Query
from optllm_router.router.engine import BatchAsked
from optllm_router.testing.scripted import Line, ScriptedClient

MAX_TOKENS = 200
COST_NUSD = 200_000  # of every answer of the first slice; those of the second one are free
LONG = "easy question of many words, " + "and of some more " * 240  # tokens of some 0.001 USD
FIRST = [LONG, *(f"{'easy' if i % 2 else 'hard'} question 1{i:02d}" for i in range(1, MIN_SLICE))]
REST = [f"{'easy' if i % 2 else 'hard'} question 2{i:02d}" for i in range(MIN_SLICE)]


def asked(arguments):
    return arguments["messages"][-1]["content"]


class Holding(ScriptedClient):
    """Keeps the first call in flight until the second slice is planned and under way."""

    def __init__(self, scripts, prices) -> None:
        super().__init__(scripts, prices=prices)
        self.is_under_way = threading.Event()

    @override
    def complete(self, candidate, arguments):
        if asked(arguments) in REST:
            self.is_under_way.set()
        if asked(arguments) == LONG:
            assert self.is_under_way.wait(20)
        return super().complete(candidate, arguments)


def costing(cost_nusd):
    return lambda arguments: Line(cost_nusd=0 if asked(arguments) in REST else cost_nusd)


@pytest.fixture
def holding(client) -> Holding:
    return Holding(dict.fromkeys(client._scripts, costing(COST_NUSD)), client._prices)


def planned_on(router, nusd):
    """What the second slice goes to if this much money is left for it."""
    plan = router.plan(REST, policy=Budget(usd=nusd / NANO_PER_USD), max_tokens=MAX_TOKENS)
    return [plan.columns[j] for j in plan.choice]


def facts(results, name):
    return [result._hidden_params["optllm"][name] for result in results]


def cheapest_worst_nusd(router):
    query = Query(text="", n_prompt_tokens=-(-len(REST[0]) // 4), max_output_tokens=MAX_TOKENS)
    return worst_case_nusd(router.candidates[0], query)


def test_the_rest_is_planned_on_what_is_left_less_what_is_in_flight_and_kept_back(
    trained, holding, logged
):
    router = trained(client=holding)

    results = router.complete_batch(
        [*FIRST, *REST], policy=Budget(usd=0.008), max_tokens=MAX_TOKENS, concurrency=2
    )

    forecast = {one.decision.id: one.decision.expected_cost_nusd for one in logged(router)}
    in_flight = forecast[facts(results, "decision_id")[0]]
    spent, kept_back = (MIN_SLICE - 1) * COST_NUSD, N_KEPT_BACK * cheapest_worst_nusd(router)
    chosen = facts(results[MIN_SLICE:], "candidate")
    assert (3_000_000, 1_078_000, 542_000) == (spent, in_flight, kept_back)
    assert planned_on(router, 8_000_000 - spent - in_flight - kept_back) == chosen
    assert planned_on(router, 8_000_000 - in_flight - kept_back) != chosen
    assert planned_on(router, 8_000_000 - spent - kept_back) != chosen
    assert planned_on(router, 8_000_000 - spent - in_flight) != chosen


@pytest.mark.parametrize(
    ("left_nusd", "reason"),
    [
        (1_200_000, "budget 0.008 USD per batch"),
        (800_000, "budget 0.008 USD per batch: nearly spent, the cheapest"),
    ],
    ids=["what was kept back is used", "not even that is enough"],
)
def test_what_was_kept_back_pays_for_the_cheapest_rest_and_no_more(
    trained, client, left_nusd, reason
):
    router = trained()
    each = (8_000_000 - left_nusd) // MIN_SLICE
    client._scripts = dict.fromkeys(client._scripts, costing(each))
    cheapest = sum(router.plan(REST, max_tokens=MAX_TOKENS).estimates.cost_usd[:, 0])
    assert 800_000 < cheapest * NANO_PER_USD < 1_200_000
    assert 1_200_000 - N_KEPT_BACK * cheapest_worst_nusd(router) < cheapest * NANO_PER_USD

    results = router.complete_batch(
        ["easy question"] * MIN_SLICE + REST,
        policy=Budget(usd=0.008),
        max_tokens=MAX_TOKENS,
        concurrency=1,
    )

    assert ["cheap"] * MIN_SLICE == facts(results[MIN_SLICE:], "candidate")
    assert {reason} == set(facts(results[MIN_SLICE:], "reason"))


def test_settling_a_call_does_not_wait_for_a_plan_that_is_being_made(trained):
    router = trained()
    common = {"max_tokens": MAX_TOKENS}
    batch = BatchAsked(items=REST, common=common, policy=Budget(usd=1.0))
    job = router._engine.batch(batch, None)
    taken = job.plan.take()

    def settle() -> None:
        job.plan.cap.settle(taken.reserved_nusd, COST_NUSD)
        job.plan.finish(taken)

    settling = threading.Thread(target=settle)

    with job.plan._lock:  # as while a plan is made
        settling.start()
        settling.join(10)

        assert not settling.is_alive()
    assert COST_NUSD == job.plan.cap.balance.spent_nusd
