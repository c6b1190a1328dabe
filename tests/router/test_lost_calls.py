"""What a lost call is taken to have cost: the forecast for whoever was asked, chosen or not."""

import asyncio
import time
from collections.abc import Iterator

import litellm
import pytest

from optllm_router import Cheapest, Router
from optllm_router.completion.metering import ChunkMeter
from optllm_router.core.cost import longest_prompt
from optllm_router.dispatch.streams import Opening, RoutedStream
from optllm_router.records import Query
from optllm_router.testing.openai_server import FakeOpenAIServer, Reply
from optllm_router.testing.scripted import Line

LOST = Line(error=TimeoutError("lost"), billed=True)
LEARNED, UNKNOWN = 50, 256  # output tokens
TEXT = " ".join(map(str, range(500)))


def lost(router, **arguments):
    """Make a call that is lost; return its attempt and how many tokens its prompt has."""
    with pytest.raises(TimeoutError):
        router.complete(**arguments)
    (one,) = router._engine.store.decisions(limit=1)
    (attempt,) = one.attempts
    assert ("error", True) == (attempt.status, attempt.estimated)
    return attempt.cost_nusd, one.decision.n_prompt_tokens


@pytest.mark.parametrize("mode", ["route", "shadow"])
def test_a_pin_or_a_shadowed_call_is_booked_at_what_its_own_candidate_is_forecast_to_cost(
    trained, client, ask, mode
):
    client._scripts["dear"] = lambda _: LOST
    router = trained(mode=mode, policy=Cheapest())

    cost, n_prompt = lost(router, model="dear", messages=ask())

    assert (n_prompt + LEARNED) * 10_000 == pytest.approx(cost, rel=1e-6)


def test_a_pin_of_which_nothing_was_learned_is_forecast_as_any_new_candidate(
    make_router, client, ask
):
    client._scripts["dear"] = lambda _: LOST

    cost, n_prompt = lost(make_router(["cheap"], default="cheap"), model="dear", messages=ask())

    assert (n_prompt + UNKNOWN) * 10_000 == cost


def test_a_pin_has_no_forecast_beyond_its_own_limit(make_router, client, ask):
    client._scripts["dear"] = lambda _: LOST

    cost, n_prompt = lost(make_router(), model="dear", messages=ask(), max_tokens=7)

    assert (n_prompt + 7) * 10_000 == cost


def test_a_probe_that_is_lost_is_booked_at_its_forecast(trained, client):
    router = trained()
    client._scripts["dear"] = lambda _: LOST

    report = router.probe(["hard question"], grader=lambda text, _: float(text == "right"))

    (attempt,) = (
        attempt
        for one in router._engine.store.decisions(limit=3)
        for attempt in one.attempts
        if attempt.candidate == "dear"
    )
    assert (1, True) == (report.n_errors, attempt.estimated)
    assert 600_000 > attempt.cost_nusd > LEARNED * 10_000


def with_a_broken_forecast(router):
    broken = router._engine.state.snapshot.output_tokens
    object.__setattr__(broken, "level", broken.level[:0])
    broken.__dict__.pop("_levels", None)
    return router


def test_a_streamed_pin_is_answered_though_its_forecast_fails(trained, only, ask, caplog):
    router = with_a_broken_forecast(trained())

    stream = router.complete(model="dear", messages=ask(), stream=True)

    assert "dear says" == "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert 1 == router._engine.desk.decider.n_faults
    assert "the router could not forecast what dear costs" in caplog.text


def test_a_lost_pin_whose_forecast_fails_is_booked_at_its_worst_case(trained, client, ask):
    client._scripts["dear"] = lambda _: LOST
    router = with_a_broken_forecast(trained())

    cost, n_prompt = lost(router, model="dear", messages=ask(), max_tokens=7)

    assert (longest_prompt(Query(text="", n_prompt_tokens=n_prompt)) + 7) * 10_000 == cost


@pytest.fixture
def endless() -> Iterator[FakeOpenAIServer]:
    """A provider that goes on for half a minute."""
    with FakeOpenAIServer(lambda _: Reply(text=TEXT, chunk_delay_s=0.05)) as server:
        yield server


@pytest.fixture
def router(endless, url) -> Iterator[Router]:
    candidate = {"model": "openai/house", "api_base": endless.url}
    candidate |= {"arguments": {"api_key": "k"}, "input_usd_per_1m": 1, "output_usd_per_1m": 2}
    with Router([candidate], store=url) as router:
        yield router


def until(is_so):
    deadline = time.monotonic() + 10
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_so()


def test_a_stream_that_is_dropped_is_closed_so_that_its_provider_stops(router, ask):
    stream = router.complete(messages=ask(), stream=True)
    next(stream)
    below = stream.completion_stream

    del stream

    assert until(lambda: below.response.is_closed)


async def test_an_awaited_stream_that_is_dropped_is_closed_too(router, ask):
    stream = await router.acomplete(messages=ask(), stream=True)
    await anext(stream)
    below = stream.completion_stream

    del stream

    assert await asyncio.to_thread(until, lambda: below.response.is_closed)


@pytest.mark.parametrize("leave", [RoutedStream.close, RoutedStream.abandon])
def test_a_stream_is_closed_before_it_is_settled(endless, ask, leave):
    given = {"api_base": endless.url, "api_key": "k", "stream": True}
    stream = litellm.completion("openai/house", ask(), **given)
    opening = Opening(
        stream=stream, meter=ChunkMeter({}), chunks=[], watch=None, overdue=TimeoutError
    )
    settled = []

    def finish(end):
        settled.append((end.status, stream.completion_stream.response.is_closed))

    leave(RoutedStream(opening, finish, later=finish))

    assert [("abandoned", True)] == settled


async def test_an_awaited_stream_is_closed_before_it_is_settled(endless, ask):
    given = {"api_base": endless.url, "api_key": "k", "stream": True}
    stream = await litellm.acompletion("openai/house", ask(), **given)
    opening = Opening(
        stream=stream, meter=ChunkMeter({}), chunks=[], watch=None, overdue=TimeoutError
    )
    settled = []

    def finish(end):
        settled.append((end.status, stream.completion_stream.response.is_closed))

    await RoutedStream(opening, finish, later=finish).aclose()

    assert [("abandoned", True)] == settled
