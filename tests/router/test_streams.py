"""Streams through the real LiteLLM over loopback HTTP: same chunks, settled however they end."""

import asyncio
import logging
import os
import time

import litellm
import pytest

from optllm_router import Budget, Router
from optllm_router.testing.openai_server import FakeOpenAIServer, Reply, in_order

TEXT = "one two three four five six"
REPLY = Reply(text=TEXT, prompt_tokens=11, completion_tokens=6)
SLOW = Reply(text=TEXT, prompt_tokens=11, completion_tokens=6, chunk_delay_s=0.05)


@pytest.fixture
def serve(url):
    """Start a server with these replies and a router whose only candidate lives there."""
    opened = []

    def start(*replies, **settings):
        server = FakeOpenAIServer(in_order(*replies)).start()
        candidate = {
            "model": "openai/house",
            "api_base": server.url,
            "arguments": {"api_key": "sk-test", "max_retries": 0},
            "input_usd_per_1m": 1,
            "output_usd_per_1m": 2,
        }
        router = Router([candidate], store=url, **settings)
        opened.extend((router.close, server.stop))
        return router, server

    yield start
    for close in opened:
        close()


def directly(server, **arguments):
    return litellm.completion(
        "openai/house",
        [{"role": "user", "content": "count"}],
        api_base=server.url,
        api_key="sk-test",
        stream=True,
        **arguments,
    )


def shape(chunks):
    """Chunks without what differs from call to call."""
    return [chunk.model_dump(exclude={"id", "created"}) for chunk in chunks]


def attempt_of(router):
    router.flush()
    (one,) = router._engine.store.decisions()
    (attempt,) = one.attempts
    return attempt


def open_sync(router, ask, **arguments):
    return router.complete(messages=ask("count"), stream=True, **arguments)


@pytest.mark.parametrize(
    "options", [{}, {"stream_options": {"include_usage": True}}, {"stream_options": None}]
)
def test_the_chunks_are_those_of_litellm(serve, ask, options):
    router, server = serve(REPLY)
    without_none = {k: v for k, v in options.items() if v is not None}

    chunks = list(open_sync(router, ask, **options))

    theirs = shape(directly(server, **without_none))
    assert shape(chunks) == theirs
    shows_usage = any(getattr(chunk, "usage", None) for chunk in chunks)
    assert shows_usage is bool(without_none)


async def test_the_async_chunks_are_the_same(serve, ask):
    router, server = serve(REPLY)

    stream = await router.acomplete(messages=ask("count"), stream=True)
    chunks = [chunk async for chunk in stream]

    assert shape(chunks) == shape(directly(server))
    assert isinstance(stream, litellm.CustomStreamWrapper)


def test_a_stream_looks_like_litellms_and_carries_our_facts(serve, ask):
    router, _ = serve(REPLY)

    stream = open_sync(router, ask)

    assert isinstance(stream, litellm.CustomStreamWrapper)
    assert stream.custom_llm_provider == "openai"
    facts = stream._hidden_params["optllm"]
    assert ("openai/house", None) == (facts["candidate"], facts["cost_usd"])
    stream.close()


def test_decision_and_open_attempt_are_on_disk_before_the_first_chunk_and_settled_at_the_end(
    serve, ask
):
    router, _ = serve(REPLY)

    stream = open_sync(router, ask, tags=["t"])
    opened = attempt_of(router)
    list(stream)
    settled = attempt_of(router)

    assert ("open", True, True) == (opened.status, opened.streamed, opened.estimated)
    assert opened.cost_nusd > 0
    assert opened.id == settled.id
    assert ("ok", 11, 6) == (settled.status, settled.prompt_tokens, settled.completion_tokens)
    assert (23_000, False, True) == (settled.cost_nusd, settled.estimated, settled.streamed)
    (one,) = router._engine.store.decisions()
    assert ("openai/house", ("t",)) == (one.decision.served, one.decision.tags)


def leave_by_del(stream):
    next(stream)
    next(stream)
    del stream


def leave_by_close(stream):
    next(stream)
    next(stream)
    stream.close()


def leave_by_with(stream):
    with stream:
        next(stream)


def leave_by_generator_exit(stream):
    def relay():
        yield from stream

    relayed = relay()
    next(relayed)
    relayed.close()


def leave_before_the_first_chunk(stream):
    stream.close()


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_del,
        leave_by_close,
        leave_by_with,
        leave_by_generator_exit,
        leave_before_the_first_chunk,
    ],
)
@pytest.mark.parametrize("policy", [None, Budget(usd=1.0)], ids=["no budget", "a hard budget"])
def test_an_abandoned_stream_is_settled_at_an_estimate(serve, ask, leave, policy):
    router, _ = serve(REPLY)

    leave(open_sync(router, ask, policy=policy))

    attempt = attempt_of(router)
    assert ("abandoned", True) == (attempt.status, attempt.estimated)
    assert attempt.cost_nusd > 0
    assert attempt.prompt_tokens > 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_does_not_settle_its_parents_stream(serve, ask):
    router, _ = serve(REPLY)
    stream = open_sync(router, ask)
    next(stream)

    child = os.fork()
    if child == 0:
        stream._end("abandoned")
        ended = stream._ended
        os._exit(int(ended))
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    list(stream)

    assert "ok" == attempt_of(router).status


async def test_an_abandoned_async_stream_is_settled_by_aclose_and_by_async_with(serve, ask):
    router, _ = serve(REPLY)

    first = await router.acomplete(messages=ask("count"), stream=True)
    await anext(first)
    await first.aclose()
    async with await router.acomplete(messages=ask("count"), stream=True) as second:
        await anext(second)

    router.flush()
    statuses = [a.status for d in router._engine.store.decisions() for a in d.attempts]
    assert ["abandoned", "abandoned"] == statuses


async def test_a_cancelled_reader_settles_its_stream(serve, ask):
    router, _ = serve(SLOW)
    stream = await router.acomplete(messages=ask("count"), stream=True)

    is_reading = asyncio.Event()

    async def read():
        async for _ in stream:
            is_reading.set()

    reader = asyncio.create_task(read())
    await is_reading.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    attempt = await asyncio.to_thread(attempt_of, router)
    assert ("abandoned", "CancelledError", True) == (
        attempt.status,
        attempt.error_class,
        attempt.estimated,
    )
    assert attempt.cost_nusd > 0


def test_a_stream_that_breaks_is_an_error_with_what_arrived_as_its_cost(serve, ask):
    router, server = serve(Reply(text=TEXT, reset_after=4))
    with pytest.raises(Exception) as theirs:  # whatever LiteLLM raises
        list(directly(server))

    with pytest.raises(type(theirs.value)) as caught:
        list(open_sync(router, ask))

    attempt = attempt_of(router)
    assert ("error", type(theirs.value).__name__) == (attempt.status, attempt.error_class)
    assert attempt.cost_nusd > 0
    assert attempt.estimated
    assert [attempt.id] == [a.id for a in caught.value.optllm_attempts]
    assert ["error"] == [a.status for a in caught.value.optllm_attempts]
    assert [] == [row for row in router._engine.store.training_rows() if row.score is not None]


def test_a_stream_that_is_refused_at_the_door_costs_nothing(serve, ask):
    router, _ = serve(Reply(status=429, error="slow down"))

    with pytest.raises(litellm.RateLimitError):
        list(open_sync(router, ask))

    attempt = attempt_of(router)
    assert ("error", 0, False) == (attempt.status, attempt.cost_nusd, attempt.estimated)


def test_a_stream_without_reported_usage_is_billed_by_counting(serve, ask):
    router, _ = serve(Reply(text=TEXT, usage=False))

    list(open_sync(router, ask))

    attempt = attempt_of(router)
    assert ("ok", 6, True) == (attempt.status, attempt.completion_tokens, attempt.estimated)
    assert attempt.cost_nusd == attempt.prompt_tokens * 1000 + 6 * 2000


def test_a_stream_ends_once_however_often_it_is_closed(serve, ask, caplog):
    router, _ = serve(REPLY)
    stream = open_sync(router, ask)
    list(stream)

    with caplog.at_level(logging.WARNING, "optllm_router"):
        stream.close()
        stream.close()
        del stream

    assert "ok" == attempt_of(router).status
    assert [] == caplog.records


def test_a_stream_collected_while_the_log_is_locked_does_not_wait_for_itself(serve, ask):
    router, _ = serve(REPLY)
    stream = open_sync(router, ask)
    next(stream)

    with router._engine.store._database._lock, router._engine.desk.journal._lock:
        del stream

    deadline = time.monotonic() + 5
    while attempt_of(router).status == "open" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "abandoned" == attempt_of(router).status
