"""What LiteLLM's exceptions mean for the next attempt, as it raises them over real HTTP."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import litellm
import pytest

from optllm_router.completion.base import Failure
from optllm_router.errors import ConfigError
from optllm_router.testing.openai_server import Reply

MESSAGES = [{"role": "user", "content": "how many?"}]
RETRY = Failure(remedy="retry", is_ill=True)
ANOTHER = Failure(remedy="another", is_ill=True)
UNSUITED = Failure(remedy="another")
NOBODY = Failure(remedy="none")
LONG = "This model's maximum context length is 10 tokens."


def status(code, **reply):
    return Reply(status=code, error=reply.pop("error", "no such luck"), **reply)


CASES = {
    "a bad request": (status(400), NOBODY, False),
    "an unprocessable one": (status(422), NOBODY, False),
    "a wrong key": (status(401), ANOTHER, False),
    "a bill that is not paid": (status(402), ANOTHER, False),
    "a key that may not": (status(403), ANOTHER, False),
    "an unknown model": (status(404), ANOTHER, False),
    "a time-out of theirs": (status(408), RETRY, True),
    "a conflict": (status(409), RETRY, False),
    "too large": (status(413), Failure(remedy="another", needs_room=True), False),
    "too long": (
        status(400, error=LONG, error_code="context_length_exceeded"),
        Failure(remedy="another", needs_room=True),
        False,
    ),
    "a content policy": (status(400, error_code="content_policy_violation"), UNSUITED, False),
    "too many": (status(429), RETRY, False),
    "nothing left to spend": (status(429, error_code="insufficient_quota"), ANOTHER, False),
    "a crash": (status(500), RETRY, False),
    "a bad gateway": (status(502), RETRY, False),
    "overload": (status(503), RETRY, False),
    "a gateway's time-out": (status(504), RETRY, True),
    "overload of some": (status(529), RETRY, False),
    "a reset": (Reply(reset_after=0), RETRY, True),
    "a reset mid-body": (Reply(text="four", fault="cut"), RETRY, True),
    "half an answer": (Reply(text="four", fault="truncated"), RETRY, True),
    "garbage": (Reply(fault="garbage"), RETRY, True),
    "silence": (Reply(delay_s=9), RETRY, True),
}


@pytest.mark.parametrize("case", CASES)
def test_each_failure_is_judged(client, serve, candidate_at, case):
    reply, failure, billed = CASES[case]
    candidate = candidate_at(serve(reply))

    with pytest.raises(Exception) as caught:  # whatever LiteLLM makes of it
        client.complete(candidate, {"messages": MESSAGES, "timeout": 1})

    assert failure == client.judge(caught.value)
    assert billed is client.maybe_billed(caught.value)


@pytest.mark.parametrize("case", CASES)
async def test_each_failure_is_judged_alike_when_awaited(client, serve, candidate_at, case):
    reply, failure, billed = CASES[case]
    candidate = candidate_at(serve(reply))

    with pytest.raises(Exception) as caught:  # whatever LiteLLM makes of it
        await client.acomplete(candidate, {"messages": MESSAGES, "timeout": 1})

    assert failure == client.judge(caught.value)
    assert billed is client.maybe_billed(caught.value)


def test_a_stream_that_breaks_is_judged_like_its_cause(client, serve, candidate_at):
    candidate = candidate_at(serve(Reply(text="a b c", fault="cut")))

    with pytest.raises(litellm.ServiceUnavailableError) as caught:
        list(client.complete(candidate, {"messages": MESSAGES, "stream": True}))

    assert client.judge(caught.value) == RETRY
    assert client.maybe_billed(caught.value) is True


HEADERS = {
    "seconds": ({"Retry-After": "7"}, 7.0),
    "milliseconds win": ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
    "nonsense": ({"Retry-After": "soon"}, None),
    "a date that is past": ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
}


@pytest.mark.parametrize("case", HEADERS)
def test_retry_after_is_read(client, serve, candidate_at, case):
    headers, expected = HEADERS[case]
    candidate = candidate_at(serve(Reply(status=429, headers=headers)))

    with pytest.raises(litellm.RateLimitError) as caught:
        client.complete(candidate, {"messages": MESSAGES})

    assert client.judge(caught.value).retry_after_s == expected


def test_retry_after_may_be_a_date(client, serve, candidate_at):
    date = format_datetime(datetime.now(tz=UTC) + timedelta(seconds=300), usegmt=True)
    candidate = candidate_at(serve(Reply(status=503, headers={"Retry-After": date})))

    with pytest.raises(litellm.ServiceUnavailableError) as caught:
        client.complete(candidate, {"messages": MESSAGES})

    assert 240 < client.judge(caught.value).retry_after_s <= 300


@pytest.mark.parametrize("model", ["openai/m", "anthropic/claude-3-5-haiku-latest", "gemini/m"])
def test_a_missing_key_is_for_others_to_answer_and_has_cost_nothing(client, monkeypatch, model):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    candidate = client.candidate(model, {"arguments": {"max_retries": 0}})

    with pytest.raises(Exception) as caught:  # whatever LiteLLM makes of it
        client.complete(candidate, {"messages": MESSAGES})

    assert client.judge(caught.value).remedy == "another"
    assert client.judge(caught.value).is_ill
    assert client.maybe_billed(caught.value) is False


LOCAL = {
    "an unset key variable of ours": (ConfigError("unset"), ANOTHER),
    "a budget of LiteLLM's own": (
        litellm.BudgetExceededError(current_cost=2.0, max_budget=1.0),
        NOBODY,
    ),
    "an argument that a model does not take": (
        litellm.UnsupportedParamsError(message="no `tools`", llm_provider="openai", model="m"),
        UNSUITED,
    ),
    "a bug, or the caller's own fault": (TypeError("not iterable"), UNSUITED),
    "an interrupt": (KeyboardInterrupt(), NOBODY),
    "a mocked overload": (
        litellm.ServiceUnavailableError(message="x", llm_provider="openai", model="m"),
        RETRY,
    ),
}


@pytest.mark.parametrize("case", LOCAL)
def test_what_no_provider_said_is_judged_too(client, case):
    error, failure = LOCAL[case]

    assert failure == client.judge(error)


def test_an_answer_without_choices_is_empty_and_one_without_text_is_not(
    client, serve, candidate_at
):
    empty, silent = serve(Reply(fault="empty")), serve(Reply(text=""))

    assert client.is_empty(client.complete(candidate_at(empty), {"messages": MESSAGES}))
    assert not client.is_empty(client.complete(candidate_at(silent), {"messages": MESSAGES}))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(fault="empty"), True),
        (Reply(fault="truncated"), True),
        (Reply(text=""), False),
        (Reply(text="four"), False),
    ],
    ids=["empty", "truncated", "no text", "some text"],
)
def test_a_stream_is_empty_where_its_provider_did_not_finish_it(
    client, serve, candidate_at, reply, expected
):
    stream = client.complete(candidate_at(serve(reply)), {"messages": MESSAGES, "stream": True})
    list(stream)

    assert expected is client.is_empty(stream)


def test_errors_of_ours_are_litellms_and_may_have_been_billed(client):
    candidate = client.candidate("openai/gpt-4o-mini")

    late = client.lost_error("timeout", candidate, "too late")
    empty = client.lost_error("empty", candidate, "no choices")

    assert (litellm.Timeout, litellm.InternalServerError) == (type(late), type(empty))
    assert client.maybe_billed(late) is client.maybe_billed(empty) is True
    assert client.judge(late) == client.judge(empty) == RETRY
