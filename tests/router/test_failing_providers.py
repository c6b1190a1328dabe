"""What providers do wrong, through the real LiteLLM over loopback HTTP, sync, async and streamed.

Each fault meets a router that has somebody else to ask, who answers, and one that has not, which
ends with LiteLLM's own exception. Rows and money say what happened, and it ends.
"""

from __future__ import annotations

import asyncio
import socket

import litellm
import openai
import pytest

from optllm_router import Budget, Router
from optllm_router.testing.openai_server import FakeOpenAIServer, Reply, in_order

pytestmark = pytest.mark.timeout(60)

GOOD = Reply(text="four", prompt_tokens=11, completion_tokens=1)
ENDLESS = " ".join(map(str, range(5_000)))
NO_ROOM = "This model's maximum context length is 10 tokens."
FAULTS = {
    "429": Reply(status=429, error="slow down"),
    "429 with Retry-After": Reply(status=429, error="slow", headers={"Retry-After": "30"}),
    "500": Reply(status=500, error="oops"),
    "503": Reply(status=503, error="overloaded"),
    "connection refused": None,
    "reset before the first byte": Reply(reset_after=0),
    "reset mid-body": Reply(text="four", fault="cut"),
    "truncated": Reply(text="four", fault="truncated"),
    "garbage JSON": Reply(fault="garbage"),
    "empty choices": Reply(fault="empty", prompt_tokens=11, completion_tokens=0),
    "never-ending": Reply(fault="endless"),
    "never begun": Reply(text="late", delay_s=30),
    "wrong key": Reply(status=401, error="bad key", error_code="invalid_api_key"),
    "context too long": Reply(status=400, error=NO_ROOM, error_code="context_length_exceeded"),
}
FREE = {
    *("429", "429 with Retry-After", "500", "503", "connection refused"),
    *("wrong key", "context too long"),
}
MESSAGES = [{"role": "user", "content": "2+2?"}]
MODES = ("sync", "async", "stream", "async stream")
QUICK = {"timeout": "9s", "attempt_timeout": "1.5s", "max_attempts": 2, "open_after": 100}


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.fixture(scope="module", autouse=True)
def _warm():
    """Make LiteLLM's first calls, which load much of it, before any time limit runs."""
    with FakeOpenAIServer(lambda _: GOOD) as server:
        given = {"model": "openai/m", "messages": MESSAGES, "api_base": server.url, "api_key": "k"}
        list(litellm.completion(stream=True, **given))
        asyncio.run(litellm.acompletion(**given))
    with FakeOpenAIServer(lambda _: Reply(status=500)) as server, pytest.raises(openai.APIError):
        litellm.completion(max_retries=0, **{**given, "api_base": server.url})


@pytest.fixture
def serve(url):
    """Start a router whose candidates live on servers that give these replies, dearest first."""
    opened = []

    def start(*replies, **settings):
        candidates, servers = [], []
        for number, reply in enumerate(replies):
            address = f"http://127.0.0.1:{closed_port()}/v1"
            if reply is not None:
                given = reply if isinstance(reply, list) else [reply]
                servers.append(FakeOpenAIServer(in_order(*given)).start())
                address = servers[-1].url
            candidates.append(
                {
                    "model": f"openai/house-{number}",
                    "name": f"house-{number}",
                    "api_base": address,
                    "arguments": {"api_key": "sk-test"},
                    "input_usd_per_1m": 10 - number,
                    "output_usd_per_1m": 20 - number,
                }
            )
        calls = {**QUICK, **settings.pop("calls", {})}
        router = Router(candidates, default="house-0", store=url, calls=calls, **settings)
        opened.extend((router.close, *(server.stop for server in servers)))
        return router, servers

    yield start
    for close in opened:
        close()


def ask(router, mode, **arguments):
    """Ask in one of the modes; return the text of the answer."""
    given = {"messages": MESSAGES, **arguments}

    async def aread():
        stream = await router.acomplete(stream=True, **given)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    if mode == "sync":
        return router.complete(**given).choices[0].message.content
    if mode == "async":
        return asyncio.run(router.acomplete(**given)).choices[0].message.content
    if mode == "async stream":
        return asyncio.run(aread())
    stream = router.complete(stream=True, **given)
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def logged(router):
    router.flush()
    (one,) = router._engine.store.decisions()
    return one


def costs(attempt):
    return attempt.cost_nusd, attempt.estimated


def check_cost_of(fault, mode, attempt):
    """What was refused is free; what may have been billed is booked, flagged unless reported."""
    if fault in FREE:
        assert (0, False) == costs(attempt)
    elif fault == "empty choices" and "stream" not in mode:
        assert 11 == attempt.prompt_tokens
        assert attempt.cost_nusd > 0
        assert not attempt.estimated
    else:
        assert attempt.cost_nusd > 0
        assert attempt.estimated


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", FAULTS)
def test_somebody_else_answers(serve, fault, mode):
    router, _ = serve(FAULTS[fault], GOOD)

    assert "four" == ask(router, mode)

    one = logged(router)
    failed, answered = one.attempts
    assert ("house-0", "house-1") == (one.decision.chosen, one.decision.served)
    assert one.decision.propensity is None
    assert one.decision.reason.endswith(f"; house-0 failed: {failed.error_class}; house-1 answers")
    assert [(0, "house-0", "error"), (1, "house-1", "ok")] == [
        (a.number, a.candidate, a.status) for a in one.attempts
    ]
    check_cost_of(fault, mode, failed)
    assert (11 * 9000 + 19000, False) == costs(answered)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", FAULTS)
def test_without_anybody_else_it_ends_with_litellms_exception(serve, fault, mode):
    router, _ = serve(FAULTS[fault], calls={"max_attempts": 1})

    with pytest.raises(openai.APIError) as caught:
        ask(router, mode)

    assert type(caught.value).__module__.startswith("litellm")
    one = logged(router)
    (attempt,) = one.attempts
    assert one.decision.served is None
    assert ("error", type(caught.value).__name__) == (attempt.status, attempt.error_class)
    assert [attempt.id] == [a.id for a in caught.value.optllm_attempts]
    check_cost_of(fault, mode, attempt)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", ["503", "reset mid-body", "garbage JSON", "empty choices"])
def test_what_passes_is_asked_again(serve, fault, mode):
    router, _ = serve([FAULTS[fault], GOOD])

    assert "four" == ask(router, mode)

    one = logged(router)
    assert ["error", "ok"] == [attempt.status for attempt in one.attempts]
    assert "house-0" == one.decision.served


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", FAULTS)
def test_under_a_budget_each_attempt_is_written_ahead_and_settled(serve, fault, mode):
    router, _ = serve(FAULTS[fault], GOOD, policy=Budget(usd=1.0))

    assert "four" == ask(router, mode)

    one = logged(router)
    assert [("house-0", "error"), ("house-1", "ok")] == [
        (a.candidate, a.status) for a in one.attempts
    ]
    assert ("house-0", "house-1") == (one.decision.chosen, one.decision.served)
    check_cost_of(fault, mode, one.attempts[0])


@pytest.mark.parametrize("mode", MODES)
def test_a_fallback_that_does_not_fit_the_budget_is_not_asked(serve, mode):
    router, servers = serve(FAULTS["never begun"], GOOD)
    request = router._engine.read("auto", MESSAGES, {})
    estimates, _ = router._engine.desk.decider.estimates(router._engine.state, [request])
    enough_for_one = estimates.worst_nusd[0].max() / 1e9

    with pytest.raises(litellm.Timeout) as caught:
        ask(router, mode, policy=Budget(usd=enough_for_one))

    assert [] == servers[1].requests
    (attempt,) = caught.value.optllm_attempts
    assert 0 < attempt.cost_nusd <= enough_for_one * 1e9


@pytest.mark.parametrize("mode", MODES)
def test_the_callers_own_mistake_is_asked_of_nobody_else(serve, mode):
    router, servers = serve(Reply(status=400, error="`messages` are wrong"), GOOD)

    with pytest.raises(litellm.BadRequestError) as caught:
        ask(router, mode)

    assert [1, 0] == [len(server.requests) for server in servers]
    assert 1 == len(caught.value.optllm_attempts)


@pytest.mark.parametrize("mode", MODES)
def test_a_pin_is_called_once_and_as_given(serve, mode):
    router, servers = serve(FAULTS["503"], GOOD)

    with pytest.raises(litellm.ServiceUnavailableError):
        ask(router, mode, model="house-0", max_retries=0)

    assert [1, 0] == [len(server.requests) for server in servers]


@pytest.mark.parametrize("mode", ["stream", "async stream"])
def test_a_stream_that_has_begun_falls_back_no_more(serve, mode):
    begun = Reply(text="one two three", reset_after=3, chunk_delay_s=0.05)
    router, servers = serve(begun, GOOD)

    with pytest.raises(litellm.ServiceUnavailableError) as caught:
        ask(router, mode)

    assert 0 == len(servers[1].requests)
    one = logged(router)
    (attempt,) = one.attempts
    assert ("error", True) == (attempt.status, attempt.estimated)
    assert attempt.cost_nusd > 0
    assert [attempt.id] == [a.id for a in caught.value.optllm_attempts]


@pytest.mark.parametrize("mode", ["stream", "async stream"])
def test_a_stream_that_never_ends_is_ended_by_the_total(serve, mode):
    router, _ = serve(Reply(text=ENDLESS, chunk_delay_s=0.05), calls={"timeout": "1.6s"})

    with pytest.raises(litellm.Timeout):
        ask(router, mode)

    (attempt,) = logged(router).attempts
    assert ("error", "Timeout", True) == (attempt.status, attempt.error_class, attempt.estimated)
    assert attempt.completion_tokens > 1


@pytest.mark.parametrize("mode", ["stream", "async stream"])
def test_what_the_reader_of_a_stream_takes_between_chunks_does_not_count(serve, mode):
    router, _ = serve(Reply(text="one two three four"), calls={"timeout": "1.5s"})
    given = {"messages": MESSAGES, "stream": True}

    async def aread():
        texts = []
        async for chunk in await router.acomplete(**given):
            await asyncio.sleep(0.4)
            texts.append(chunk.choices[0].delta.content or "")
        return texts

    def read():
        texts = []
        for chunk in router.complete(**given):
            asyncio.run(asyncio.sleep(0.4))
            texts.append(chunk.choices[0].delta.content or "")
        return texts

    texts = read() if mode == "stream" else asyncio.run(aread())

    assert "one two three four" == "".join(texts)


@pytest.mark.parametrize("mode", MODES)
def test_the_total_ends_a_call_that_would_be_retried(serve, mode):
    router, servers = serve(
        Reply(status=429, headers={"Retry-After": "2"}),
        calls={"timeout": "1.9s", "max_attempts": 9},
    )

    with pytest.raises(litellm.RateLimitError):
        ask(router, mode)

    assert 1 == len(servers[0].requests)


def test_a_missing_key_of_one_candidate_lets_another_answer(serve, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    router, servers = serve(GOOD, GOOD)
    first, second = router._engine.state.candidates
    candidates = [
        {"model": "openai/house-0", "name": "keyless", "api_base": first.arguments["api_base"]},
        {"model": "openai/house-1", "name": "other", "api_base": second.arguments["api_base"]},
    ]
    prices = {"input_usd_per_1m": 1, "output_usd_per_1m": 1}
    candidates = [{**candidate, **prices} for candidate in candidates]
    candidates[1]["arguments"] = {"api_key": "sk-test"}
    with Router(candidates, default="keyless", store="sqlite://", calls=QUICK) as other:
        assert "four" == ask(other, "sync")

    assert [0, 1] == [len(server.requests) for server in servers]
