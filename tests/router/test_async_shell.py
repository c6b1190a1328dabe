"""The async shell: nothing blocks the loop, many calls at once, one store thread."""

import asyncio
import threading
import time

import pytest

from optllm_router import Budget, MostAccurate
from optllm_router.testing.scripted import Line

BOUND_S = 0.1  # an order of magnitude above what is wanted: the machine may be busy


async def longest_pause(work):
    """Run `work` beside a heartbeat; return its result and the longest gap between two beats."""
    gaps, done = [], asyncio.Event()

    async def beat():
        last = time.perf_counter()
        while not done.is_set():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    heart = asyncio.create_task(beat())
    await asyncio.sleep(0.01)
    result = await work
    done.set()
    await heart
    return result, sorted(gaps)[-3] if len(gaps) > 10 else max(gaps)


async def test_single_calls_do_not_block_the_loop(trained, ask):
    router = await asyncio.to_thread(trained)

    async def calls():
        return [await router.acomplete(messages=ask(f"easy {i}")) for i in range(50)]

    _, pause = await longest_pause(calls())

    assert pause < BOUND_S


async def test_a_slow_store_does_not_block_the_loop(trained, ask):
    router = await asyncio.to_thread(trained)
    lock = router._engine.store._database._lock
    lock.acquire()
    threading.Timer(0.5, lock.release).start()

    response, pause = await longest_pause(router.acomplete(messages=ask("easy")))

    assert "cheap says" == response.choices[0].message.content
    assert pause < BOUND_S


async def test_a_batch_and_its_replanning_do_not_block_the_loop(trained, client):
    router = await asyncio.to_thread(trained)
    texts = [f"easy question {i}" for i in range(300)]

    results, pause = await longest_pause(
        router.acomplete_batch(texts, policy=Budget(usd=0.5), max_tokens=100)
    )

    assert 300 == len([r for r in results if not isinstance(r, Exception)])
    assert pause < BOUND_S


async def test_a_long_prompt_is_read_off_the_loop(trained, ask):
    router = await asyncio.to_thread(trained)

    _, pause = await longest_pause(router.acomplete(messages=ask("word " * 200_000)))

    assert pause < BOUND_S


async def test_many_calls_wait_together_and_each_has_its_rows(trained, client, logged, ask):
    router = await asyncio.to_thread(trained)
    client._scripts = dict.fromkeys(client._scripts, lambda _: Line(latency_s=0.2))

    start = time.perf_counter()
    responses = await asyncio.gather(
        *(router.acomplete(messages=ask(f"easy {i}"), policy=MostAccurate()) for i in range(40))
    )
    took = time.perf_counter() - start

    assert took < 40 * 0.2 / 2
    ids = {response._hidden_params["optllm"]["decision_id"] for response in responses}
    rows = await asyncio.to_thread(logged, router)
    assert ids == {one.decision.id for one in rows}


def test_one_router_serves_event_loop_after_event_loop(make_router, logged, ask):
    router = make_router()

    for _ in range(3):
        asyncio.run(router.acomplete(messages=ask()))
    asyncio.run(router.acomplete_batch(["a", "b"]))

    assert 5 == len(logged(router))


def test_threads_and_loops_share_a_router(make_router, logged, ask):
    router = make_router()

    def sync():
        for _ in range(10):
            router.complete(messages=ask())

    def looping():
        asyncio.run(router.acomplete_batch(["a"] * 10))

    threads = [threading.Thread(target=work) for work in (sync, looping) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 60 == len(logged(router))


@pytest.mark.parametrize("at", [0.0, 0.001, 0.003, 0.01, 0.03])
async def test_a_call_cancelled_at_any_time_has_no_open_row_and_no_lost_money(
    trained, client, logged, ask, at
):
    router = await asyncio.to_thread(trained, policy=Budget(usd=1.0))
    client._scripts = dict.fromkeys(client._scripts, lambda _: Line(latency_s=0.005))

    call = asyncio.create_task(router.acomplete(messages=ask("easy"), stream=bool(at > 0.002)))
    await asyncio.sleep(at)
    call.cancel()
    result = (await asyncio.gather(call, return_exceptions=True))[0]
    if not isinstance(result, BaseException) and at > 0.002:
        await result.aclose()

    await asyncio.to_thread(router.flush)
    rows = await asyncio.to_thread(logged, router)
    statuses = [a.status for one in rows for a in one.attempts]
    assert "open" not in statuses
    assert len(statuses) >= len(client.calls)
