"""The real client against the real LiteLLM, over real loopback HTTP."""

import asyncio
import socket

import litellm
import pytest

from optllm_router.completion.base import Answer
from optllm_router.errors import BudgetExceededError, ConfigError, RouterError
from optllm_router.records import Candidate, Usage
from optllm_router.testing.openai_server import Reply, ToolCall

MESSAGES = [{"role": "user", "content": "how many?"}]
TOOL = {
    "type": "function",
    "function": {"name": "count", "parameters": {"type": "object", "properties": {}}},
}


def mocked(**settings) -> Candidate:
    return Candidate(name="m", model="openai/gpt-4o-mini", price=None, **settings)


def test_complete_returns_litellms_own_response(client, serve, candidate_at):
    server = serve(Reply(text="seven", prompt_tokens=11, completion_tokens=2))

    response = client.complete(candidate_at(server), {"messages": MESSAGES, "temperature": 0.5})

    assert type(response) is litellm.ModelResponse
    assert client.describe(response) == Answer(
        text="seven",
        usage=Usage(prompt_tokens=11, completion_tokens=2),
        response_id=response.id,
    )
    assert [request.body for request in server.requests] == [
        {"model": "house-blend", "messages": MESSAGES, "temperature": 0.5}
    ]


async def test_acomplete_does_the_same_as_complete(client, serve, candidate_at):
    server = serve(Reply(text="seven", prompt_tokens=11, completion_tokens=2))
    candidate = candidate_at(server)

    awaited = await client.acomplete(candidate, {"messages": MESSAGES})

    assert type(awaited) is litellm.ModelResponse
    assert client.describe(awaited).text == "seven"
    assert client.describe(awaited).usage == Usage(prompt_tokens=11, completion_tokens=2)


def test_the_key_is_read_from_the_environment_at_the_call(client, serve, candidate_at, monkeypatch):
    server = serve(Reply(text="ok"))
    monkeypatch.setenv("HOUSE_KEY", "sk-house")

    client.complete(candidate_at(server, api_key_env="HOUSE_KEY"), {"messages": MESSAGES})

    assert server.requests[0].headers["authorization"] == "Bearer sk-house"


@pytest.mark.parametrize("value", [None, ""])
def test_an_unset_key_is_a_config_error_that_names_the_variable(client, monkeypatch, value):
    monkeypatch.delenv("HOUSE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("HOUSE_KEY", value)

    with pytest.raises(ConfigError) as caught:
        client.complete(mocked(api_key_env="HOUSE_KEY"), {"messages": MESSAGES})

    assert str(caught.value) == (
        "candidate 'm' takes its key from the environment variable `HOUSE_KEY`, which is not set: "
        "export it, or correct `api_key_env`."
    )


def test_a_callers_arguments_win_over_the_candidates_except_where_the_call_goes(
    client, serve, candidate_at
):
    server = serve(Reply(text="ok"))
    candidate = candidate_at(server, arguments={"temperature": 0.1, "seed": 3})

    client.complete(
        candidate,
        {
            "messages": MESSAGES,
            "temperature": 0.9,
            "seed": None,
            "api_base": "http://127.0.0.1:9/v1",
            "api_key": "sk-other",
        },
    )

    assert server.requests[0].body["temperature"] == 0.9
    assert server.requests[0].body["seed"] == 3
    assert server.requests[0].headers["authorization"] == "Bearer sk-test"


def test_a_pin_without_arguments_of_its_own_takes_the_callers_endpoint(client, serve):
    server = serve(Reply(text="pinned"))
    pin = Candidate(name="openai/pin", model="openai/pin", price=None)

    response = client.complete(
        pin, {"messages": MESSAGES, "api_base": server.url, "api_key": "sk-mine"}
    )

    assert response.choices[0].message.content == "pinned"
    assert server.requests[0].headers["authorization"] == "Bearer sk-mine"


def test_none_is_unset(client, serve, candidate_at):
    server = serve(Reply(text="ok"))
    unset = dict.fromkeys(
        [
            *("timeout", "max_tokens", "n", "temperature", "custom_llm_provider", "tools", "stop"),
            *("stream", "stream_options", "response_format", "base_model", "num_ctx", "user"),
        ]
    )

    client.complete(candidate_at(server), {"messages": MESSAGES, **unset})

    assert server.requests[0].body == {"model": "house-blend", "messages": MESSAGES}


def test_tools_and_response_format_pass_through_and_calls_are_text(client, serve, candidate_at):
    server = serve(Reply(tool_calls=[ToolCall(name="count", arguments='{"of": "é"}')]))
    wanted = {"type": "json_object"}

    response = client.complete(
        candidate_at(server),
        {"messages": MESSAGES, "tools": [TOOL], "tool_choice": "auto", "response_format": wanted},
    )

    assert server.requests[0].body["tools"] == [TOOL]
    assert server.requests[0].body["response_format"] == wanted
    assert response.choices[0].finish_reason == "tool_calls"
    assert client.describe(response).text == (r'{"name": "count", "arguments": "{\"of\": \"é\"}"}')


def test_images_pass_through(client, serve, candidate_at):
    server = serve(Reply(text="a cat"))
    content = [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]

    client.complete(candidate_at(server), {"messages": [{"role": "user", "content": content}]})

    assert server.requests[0].body["messages"][0]["content"] == content


def test_cached_tokens_are_part_of_the_prompts(client, serve, candidate_at):
    server = serve(Reply(text="ok", prompt_tokens=100, completion_tokens=1, cached_tokens=64))

    response = client.complete(candidate_at(server), {"messages": MESSAGES})

    assert client.describe(response).usage == Usage(
        prompt_tokens=100, completion_tokens=1, cached_tokens=64
    )


def test_usage_that_the_provider_left_out_is_none_not_zero(client, serve, candidate_at):
    server = serve(Reply(text="ok", usage=False))

    response = client.complete(candidate_at(server), {"messages": MESSAGES})

    assert client.describe(response).usage is None


def test_litellms_cache_hits_are_seen(client):
    response = client.complete(mocked(), {"messages": MESSAGES, "mock_response": "ok"})
    assert client.describe(response).cache_hit is False

    response._hidden_params["cache_hit"] = True
    assert client.describe(response).cache_hit is True


def stream_of(client, candidate, **arguments):
    """Read a stream through a meter; return all chunks, those to show, and the answer."""
    arguments = {"messages": MESSAGES, "stream": True, **arguments}
    stream = client.complete(candidate, arguments)
    meter = client.meter(arguments, stream)
    chunks = list(stream)
    return chunks, [chunk for chunk in chunks if meter.add(chunk)], meter.answer()


async def astream_of(client, candidate, **arguments):
    arguments = {"messages": MESSAGES, "stream": True, **arguments}
    stream = await client.acomplete(candidate, arguments)
    meter = client.meter(arguments, stream)
    chunks = [chunk async for chunk in stream]
    return chunks, [chunk for chunk in chunks if meter.add(chunk)], meter.answer()


def shape(chunk):
    """A chunk without what differs from call to call."""
    return {k: v for k, v in chunk.model_dump().items() if k not in ("id", "created")}


STREAMED = Reply(
    text="seven or eight", reasoning="let me see ", prompt_tokens=11, completion_tokens=6
)


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}])
def test_a_stream_shows_what_litellm_would_show_and_its_usage_is_known(
    client, serve, candidate_at, options
):
    server = serve(STREAMED)

    chunks, shown, answer = stream_of(client, candidate_at(server), **options)
    plain = litellm.completion(
        "openai/house-blend",
        MESSAGES,
        stream=True,
        api_base=server.url,
        api_key="k",
        **options,
    )

    assert server.requests[0].body["stream_options"] == {"include_usage": True}
    assert len(chunks) == len(shown) + 1
    assert [shape(chunk) for chunk in shown] == [shape(chunk) for chunk in plain]
    assert answer == Answer(
        text="seven or eight",
        usage=Usage(prompt_tokens=11, completion_tokens=6),
        response_id=shown[0].id,
    )


def test_a_stream_shows_its_usage_to_those_who_ask(client, serve, candidate_at):
    server = serve(STREAMED)

    chunks, shown, answer = stream_of(
        client, candidate_at(server), stream_options={"include_usage": True}
    )

    assert shown == chunks
    assert shown[-1].usage.completion_tokens == 6
    assert answer.usage == Usage(prompt_tokens=11, completion_tokens=6)


async def test_an_async_stream_is_the_same_as_a_sync_one(client, serve, candidate_at):
    server = serve(STREAMED)
    candidate = candidate_at(server)

    _, shown, answer = await astream_of(client, candidate)
    _, sync_shown, sync_answer = await asyncio.to_thread(stream_of, client, candidate)

    assert [shape(chunk) for chunk in shown] == [shape(chunk) for chunk in sync_shown]
    assert (answer.text, answer.usage) == (sync_answer.text, sync_answer.usage)


async def test_an_async_stream_shows_its_usage_to_those_who_ask(client, serve, candidate_at):
    server = serve(STREAMED)

    chunks, shown, _ = await astream_of(
        client, candidate_at(server), stream_options={"include_usage": True}
    )

    assert shown == chunks
    assert shown[-1].usage.prompt_tokens == 11


def test_other_stream_options_of_the_caller_are_kept(client, serve, candidate_at):
    server = serve(STREAMED)

    stream_of(client, candidate_at(server), stream_options={"include_obfuscation": False})

    assert server.requests[0].body["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }


def test_streamed_tool_calls_are_collected(client, serve, candidate_at):
    server = serve(Reply(tool_calls=[ToolCall(name="count", arguments='{"n": 1}')]))

    chunks, shown, answer = stream_of(client, candidate_at(server), tools=[TOOL])

    assert len(chunks) == len(shown) + 1
    assert answer.text == 'count{"n": 1}'


def test_an_abandoned_stream_has_no_usage_and_counts_the_reasoning_too(client, serve, candidate_at):
    server = serve(STREAMED)
    arguments = {"messages": MESSAGES, "stream": True}
    stream = client.complete(candidate_at(server), arguments)
    meter = client.meter(arguments, stream)

    for chunk in stream:
        meter.add(chunk)
        if meter.answer().text.endswith("seven "):
            break

    assert meter.answer() == Answer(text="let me see seven ", usage=None, response_id=chunk.id)


async def test_an_abandoned_async_stream_can_be_closed(client, serve, candidate_at):
    server = serve(STREAMED)
    arguments = {"messages": MESSAGES, "stream": True}
    stream = await client.acomplete(candidate_at(server), arguments)
    meter = client.meter(arguments, stream)

    meter.add(await anext(stream))
    meter.add(await anext(stream))
    await stream.aclose()

    assert meter.answer().usage is None
    assert meter.answer().text == "let "


def test_usage_that_litellm_made_up_for_a_stream_is_none(client, serve, candidate_at):
    server = serve(Reply(text="seven or eight", usage=False))

    chunks, _, answer = stream_of(client, candidate_at(server))

    assert chunks[-1].usage.completion_tokens == 3
    assert (answer.text, answer.usage) == ("seven or eight", None)


async def test_a_truncated_streams_usage_is_none(client, serve, candidate_at):
    server = serve(Reply(text="seven or eight", fault="truncated"))

    _, _, answer = await astream_of(client, candidate_at(server))

    assert answer.usage is None


ERRORS = [
    (400, "BadRequestError", False),
    (401, "AuthenticationError", False),
    (404, "NotFoundError", False),
    (408, "Timeout", True),
    (422, "BadRequestError", False),
    (429, "RateLimitError", False),
    (500, "InternalServerError", False),
    (502, "BadGatewayError", False),
    (503, "ServiceUnavailableError", False),
    (504, "Timeout", True),
    (529, "APIError", False),
]


@pytest.mark.parametrize("case", ERRORS, ids=str)
def test_provider_errors_come_through_untouched(client, serve, candidate_at, case):
    status, name, billed = case
    server = serve(Reply(status=status, error="no such luck", headers={"Retry-After": "7"}))

    with pytest.raises(getattr(litellm, name)) as caught:
        client.complete(candidate_at(server), {"messages": MESSAGES})

    assert type(caught.value) is getattr(litellm, name)
    assert client.maybe_billed(caught.value) is billed
    assert len(server.requests) == 1


@pytest.mark.parametrize("case", ERRORS, ids=str)
async def test_provider_errors_come_through_untouched_when_awaited(
    client, serve, candidate_at, case
):
    status, name, billed = case
    server = serve(Reply(status=status, error="no such luck"))

    with pytest.raises(getattr(litellm, name)) as caught:
        await client.acomplete(candidate_at(server), {"messages": MESSAGES})

    assert type(caught.value) is getattr(litellm, name)
    assert client.maybe_billed(caught.value) is billed


def test_a_full_context_window_has_its_own_error(client, serve, candidate_at):
    server = serve(
        Reply(
            status=400,
            error="This model's maximum context length is 10 tokens.",
            error_code="context_length_exceeded",
        )
    )

    with pytest.raises(litellm.ContextWindowExceededError) as caught:
        client.complete(candidate_at(server), {"messages": MESSAGES})

    assert client.maybe_billed(caught.value) is False


LOST = {
    "the connection dies before the first byte": (Reply(reset_after=0), {}),
    "the answer takes too long": (Reply(delay_s=2), {"timeout": 0.1}),
    "the connection dies in a stream": (
        Reply(text="a b c", reset_after=2, chunk_delay_s=0.05),
        {"stream": True},
    ),
    "a stream stalls": (Reply(text="a b", chunk_delay_s=2), {"stream": True, "timeout": 0.2}),
}


@pytest.mark.parametrize("case", LOST)
def test_calls_that_were_lost_under_way_may_have_been_billed(client, serve, candidate_at, case):
    reply, arguments = LOST[case]
    candidate = candidate_at(serve(reply))

    with pytest.raises(Exception) as caught:  # whatever LiteLLM makes of it
        list(client.complete(candidate, {"messages": MESSAGES, **arguments}))

    assert client.maybe_billed(caught.value) is True


@pytest.mark.parametrize("case", LOST)
async def test_awaited_calls_that_were_lost_under_way_may_have_been_billed(
    client, serve, candidate_at, case
):
    reply, arguments = LOST[case]
    candidate = candidate_at(serve(reply))

    with pytest.raises(Exception) as caught:
        async for _ in await client.acomplete(candidate, {"messages": MESSAGES, **arguments}):
            pass

    assert client.maybe_billed(caught.value) is True


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


async def test_a_refused_connection_has_cost_nothing(client):
    candidate = client.candidate(
        "openai/house-blend",
        {
            "api_base": f"http://127.0.0.1:{closed_port()}/v1",
            "arguments": {"api_key": "k", "max_retries": 0},
        },
    )

    with pytest.raises(litellm.InternalServerError) as refused:
        await asyncio.to_thread(client.complete, candidate, {"messages": MESSAGES})
    with pytest.raises(litellm.InternalServerError) as refused_when_awaited:
        await client.acomplete(candidate, {"messages": MESSAGES})

    assert client.maybe_billed(refused.value) is False
    assert client.maybe_billed(refused_when_awaited.value) is False


def test_a_missing_credential_has_cost_nothing(client, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    with pytest.raises(litellm.InternalServerError) as caught:
        client.complete(mocked(), {"messages": MESSAGES})

    assert client.maybe_billed(caught.value) is False


@pytest.mark.parametrize("error", [TimeoutError(), asyncio.CancelledError(), KeyboardInterrupt()])
def test_calls_that_were_cut_off_here_may_have_been_billed(client, error):
    assert client.maybe_billed(error) is True


def test_an_error_while_handling_a_refused_connection_is_judged_by_itself(
    client, serve, candidate_at
):
    candidate = candidate_at(serve(Reply(reset_after=0)))

    try:
        raise ConnectionRefusedError("an earlier call")
    except ConnectionRefusedError:
        with pytest.raises(litellm.InternalServerError) as caught:
            client.complete(candidate, {"messages": MESSAGES})

    assert client.maybe_billed(caught.value) is True


@pytest.mark.parametrize("name", ["RateLimitError", "ContextWindowExceededError"])
def test_mocked_errors_of_litellm_come_through(client, name):
    with pytest.raises(getattr(litellm, name)):
        client.complete(mocked(), {"messages": MESSAGES, "mock_response": f"litellm.{name}"})


def test_the_budget_error_is_caught_as_ours_and_as_litellms(client):
    ours = BudgetExceededError("nothing left", budget="team", limit_usd=2.0, left_usd=0.5)

    error = client.budget_error(ours)

    assert isinstance(error, litellm.BudgetExceededError)
    assert isinstance(error, RouterError)
    assert (str(error), error.message) == ("nothing left", "nothing left")
    assert (error.budget, error.limit_usd, error.left_usd) == ("team", 2.0, 0.5)
    assert (error.current_cost, error.max_budget, error.status_code) == (1.5, 2.0, 429)
    assert type(error) is type(client.budget_error(ours))
