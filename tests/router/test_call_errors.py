"""When a provider fails: its own exception, unchanged, and a row that says what it was."""

import asyncio

import litellm
import openai
import pytest

from optllm_router import Router
from optllm_router.testing.openai_server import FakeOpenAIServer, Reply
from optllm_router.testing.scripted import Line

STATUSES = {
    400: litellm.BadRequestError,
    401: litellm.AuthenticationError,
    403: litellm.APIError,  # this is what LiteLLM makes of it
    404: litellm.NotFoundError,
    422: litellm.BadRequestError,
    429: litellm.RateLimitError,
    500: litellm.InternalServerError,
    503: litellm.ServiceUnavailableError,
}


@pytest.fixture(scope="module")
def server():
    """Answers with the status that the last message names."""

    def respond(request) -> Reply:
        word = request["messages"][-1]["content"].split()[0]
        if word == "reset":
            return Reply(reset_after=0)
        if word == "slow":
            return Reply(text="late", delay_s=3)
        return Reply(
            status=int(word), error=f"refused, key sk-live-{'a' * 24} and {request['messages']}"
        )

    with FakeOpenAIServer(respond) as server:
        yield server


@pytest.fixture
def router(server, url):
    candidate = {
        "model": "openai/house",
        "api_base": server.url,
        "arguments": {"api_key": "sk-test", "max_retries": 0},
        "input_usd_per_1m": 1,
        "output_usd_per_1m": 2,
    }
    with Router([candidate], store=url) as router:
        yield router


def attempts(router):
    return [a for one in reversed(router._engine.store.decisions()) for a in one.attempts]


@pytest.mark.parametrize("status", STATUSES)
def test_each_status_is_litellms_class_with_our_attempts_and_costs_nothing(router, status, ask):
    prompt = f"{status} is what I want to see"

    with pytest.raises(STATUSES[status]) as caught:
        router.complete(messages=ask(prompt))
    with pytest.raises(STATUSES[status]) as awaited:
        asyncio.run(router.acomplete(messages=ask(prompt)))

    assert type(caught.value) is type(awaited.value)
    assert isinstance(caught.value, openai.APIError)
    for error, row in zip((caught.value, awaited.value), attempts(router), strict=True):
        (attempt,) = error.optllm_attempts
        assert ("error", STATUSES[status].__name__) == (attempt.status, attempt.error_class)
        assert (0, False) == (attempt.cost_nusd, attempt.estimated)
        assert attempt == row or attempt.id == row.id
        assert "sk-live" not in row.error_text
        assert prompt not in row.error_text
        assert f"status {caught.value.status_code}" == row.error_text


def test_at_the_full_level_the_text_is_kept_without_keys_and_prompt(server, url, ask, monkeypatch):
    monkeypatch.setenv("HOUSE_KEY", "house/key/of/ours")
    candidate = {
        "model": "openai/house",
        "api_base": server.url,
        "api_key_env": "HOUSE_KEY",
        "arguments": {"max_retries": 0},
        "input_usd_per_1m": 1,
        "output_usd_per_1m": 2,
    }
    prompt = "400 because of house/key/of/ours"
    with Router([candidate], store=url, prompts="full") as router:
        with pytest.raises(litellm.BadRequestError):
            router.complete(messages=[*ask("house/key/of/ours, sk-x!own"), *ask(prompt)])
        with pytest.raises(litellm.BadRequestError):
            arguments = {"api_key": "theirs!key", "api_base": server.url}
            router.complete("openai/house", ask("400 is theirs!key"), **arguments)

        ours, theirs = attempts(router)
    assert ours.error_text.startswith("litellm.BadRequestError")
    assert "[removed], sk-x!own" in ours.error_text
    assert "house/key/of/ours" not in ours.error_text
    assert "theirs!key" not in theirs.error_text


def test_a_timeout_may_have_been_billed_and_is_booked_at_its_forecast(router, ask):
    with pytest.raises(litellm.Timeout):
        router.complete(messages=ask("slow please"), timeout=0.3)

    (attempt,) = attempts(router)
    assert ("error", "Timeout", True) == (attempt.status, attempt.error_class, attempt.estimated)
    assert attempt.cost_nusd > 0


def test_a_refused_connection_costs_nothing(url, ask):
    candidate = {
        "model": "openai/house",
        "api_base": "http://127.0.0.1:9/v1",
        "arguments": {"api_key": "sk-test", "max_retries": 0},
        "input_usd_per_1m": 1,
        "output_usd_per_1m": 2,
    }
    with Router([candidate], store=url) as router:
        with pytest.raises(openai.APIError):
            router.complete(messages=ask())

        (attempt,) = attempts(router)
    assert ("error", 0, False) == (attempt.status, attempt.cost_nusd, attempt.estimated)


def test_a_missing_key_is_named_and_nothing_is_sent(url, ask, monkeypatch):
    monkeypatch.delenv("HOUSE_KEY", raising=False)
    candidate = {
        "model": "openai/house",
        "api_key_env": "HOUSE_KEY",
        "input_usd_per_1m": 1,
        "output_usd_per_1m": 2,
    }
    with Router([candidate], store=url) as router:
        with pytest.raises(ValueError, match="environment variable `HOUSE_KEY`, which is not set"):
            router.complete(messages=ask())

        assert [("error", 0)] == [(a.status, a.cost_nusd) for a in attempts(router)]


def test_failures_are_no_quality_failures(make_router, client, ask):
    client._scripts["middling"] = lambda _arguments: Line(error=RuntimeError("down"))
    router = make_router(graders={"default": {"kind": "exact"}})

    for _ in range(3):
        with pytest.raises(RuntimeError):
            router.complete(messages=ask(), reference="4")
    report = router.probe(["a"], ["b"])

    assert 1 == report.n_errors
    assert {"cheap": 0.0, "dear": 0.0} == report.mean_score
    served = [row.served for row in router._engine.store.training_rows()]
    assert ["cheap", "dear"] == sorted(served)
    assert 2 == router._engine.store.n_graded()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(2)])
def test_an_interrupted_call_is_logged_at_its_forecast_and_goes_on(
    make_router, client, only, ask, error
):
    client._scripts["middling"] = lambda _arguments: Line(error=error)
    router = make_router()

    with pytest.raises(type(error)):
        router.complete(messages=ask())

    decision, attempt = only(router)
    assert decision.served is None
    assert ("error", type(error).__name__) == (attempt.status, attempt.error_class)
    assert (True, True) == (attempt.estimated, attempt.cost_nusd > 0)


async def test_a_cancelled_call_is_logged_at_its_forecast(make_router, client, logged, ask):
    client._scripts["middling"] = lambda _arguments: Line(latency_s=5)
    router = make_router()

    call = asyncio.create_task(router.acomplete(messages=ask()))
    while not client.calls:
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    (one,) = await asyncio.to_thread(logged, router)
    assert [("error", "CancelledError", True)] == [
        (a.status, a.error_class, a.estimated) for a in one.attempts
    ]


def test_a_call_whose_coroutine_is_closed_is_logged_at_its_forecast(make_router, client, only, ask):
    client._scripts["middling"] = lambda _arguments: Line(latency_s=5)
    router = make_router()
    router._engine._is_warm = True
    loop = asyncio.new_event_loop()
    call = router.acomplete(messages=ask())

    async def begin() -> None:
        call.send(None)

    loop.run_until_complete(begin())
    call.close()
    loop.close()

    _, attempt = only(router)
    assert ("error", True) == (attempt.status, attempt.estimated)
