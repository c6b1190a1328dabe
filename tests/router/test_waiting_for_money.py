"""Who waits for money that others have reserved keeps nobody else from anything meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from optllm_router.core.cost import worst_case_nusd
from optllm_router.records import NANO_PER_USD, Query
from optllm_router.testing.scripted import Line

LIMIT = 400  # output tokens
QUERY = Query(text="", n_prompt_tokens=3, max_output_tokens=LIMIT)  # as of all texts below


@pytest.fixture
def make_bound(make_router, client):
    """Build a router whose calls with the tag "team" have room for `dear` once at its worst."""
    client._scripts = dict.fromkeys(("cheap", "dear"), lambda _: Line(text="ok"))  # some 1 % of it
    dear, cheap = (worst_case_nusd(client.candidate(one), QUERY) for one in ("dear", "cheap"))
    usd = (dear + cheap / 2) / NANO_PER_USD
    budget = {"name": "room", "usd": usd, "per": "total", "match": {"tag": "team"}}

    def make(cheap: dict[str, object], **calls: object):
        candidates = [{"model": "cheap", **cheap}, "dear"]
        return make_router(candidates, default="cheap", budgets=[budget], calls=calls)

    return make


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def call(router, model: str, **arguments):
    messages = [{"role": "user", "content": "number 000"}]
    return router.complete(model, messages, max_tokens=LIMIT, **arguments)


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def n_in_line(router) -> int:
    return sum(map(len, router._engine.money.turns._lines.values()))


def test_asking_for_money_again_and_again_uses_up_no_rate_limit(make_bound, threads):
    router = make_bound({"requests_per_minute": 2}, timeout="20s")
    store, n_asked = router._engine.store, []
    reserve = store.reserve
    store.reserve = lambda *given, **more: n_asked.append(1) or reserve(*given, **more)
    holds_all = call(router, "dear", tags=["team"], stream=True)

    waits = threads.submit(call, router, "cheap", tags=["team"])
    until(lambda: len(n_asked) > 6)
    holds_all.close()

    assert "cheap" == waits.result(10)._hidden_params["optllm"]["candidate"]
    call(router, "cheap")  # the second within the minute


def test_the_first_of_a_line_that_waits_for_a_limit_lets_the_next_one_ask(make_bound, threads):
    router = make_bound({"max_concurrency": 1})
    holds_all = call(router, "dear", tags=["team"], stream=True)
    first = threads.submit(call, router, "cheap", tags=["team"])
    until(lambda: n_in_line(router) == 1)
    second = threads.submit(call, router, "dear", tags=["team"])
    until(lambda: n_in_line(router) == 2)
    in_the_slot = call(router, "cheap", stream=True)

    holds_all.close()
    assert "dear" == second.result(10)._hidden_params["optllm"]["candidate"]
    assert not first.done()
    in_the_slot.close()

    assert "cheap" == first.result(10)._hidden_params["optllm"]["candidate"]


def test_a_wait_for_a_limit_is_no_wait_for_money(make_bound, threads):
    router = make_bound({"max_concurrency": 1}, reserve_timeout="10s")
    traffic, seconds = router._engine.desk.traffic, [0.0]
    traffic.clock = lambda: seconds[0]
    holds_all = call(router, "dear", tags=["team"], stream=True)
    in_the_slot = call(router, "cheap", stream=True)
    limit, n_tries = traffic._limits["cheap"], []
    enter = limit.enter
    limit.enter = lambda entry: n_tries.append(1) or enter(entry)

    waits = threads.submit(call, router, "cheap", tags=["team"])
    until(lambda: n_tries)
    seconds[0] += 1000.0
    in_the_slot.close()
    until(lambda: waits.done() or n_in_line(router))
    holds_all.close()

    assert "cheap" == waits.result(10)._hidden_params["optllm"]["candidate"]
