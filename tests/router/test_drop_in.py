"""The same calls through LiteLLM and through the Router: same types, fields, chunks, exceptions."""

import asyncio
import inspect

import litellm
import openai
import pytest
from pydantic import BaseModel

from optllm_router import Router
from optllm_router.router.signatures import ACOMPLETION, BATCH_COMPLETION, COMPLETION

MODEL = "openai/gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "What is 6 x 7?"}]
TOOL = {
    "type": "function",
    "function": {"name": "count", "parameters": {"type": "object", "properties": {}}},
}
TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "count", "arguments": '{"to": 3}'},
}


class Answer(BaseModel):
    value: int


def ready_response():
    return litellm.ModelResponse(
        choices=[{"message": {"role": "assistant", "content": "42"}, "finish_reason": "stop"}],
        usage=litellm.Usage(prompt_tokens=9, completion_tokens=1, total_tokens=10),
        model="gpt-4o-mini",
    )


def error_of(kind):
    """An instance of one of LiteLLM's exceptions, to be raised by its mock."""
    arguments = {"message": "scripted", "llm_provider": "openai", "model": "gpt-4o-mini"}
    response = openai._legacy_response.httpx.Response(
        500, request=openai._legacy_response.httpx.Request("POST", "http://x")
    )
    extra = {
        "UnprocessableEntityError": {"response": response},
        "PermissionDeniedError": {"response": response},
        "APIError": {"status_code": 500},
        "APIResponseValidationError": {},
    }.get(kind, {})
    return getattr(litellm, kind)(**arguments, **extra)


ANSWERS = {
    "plain": {"mock_response": "42"},
    "a blank answer": {"mock_response": " "},
    "unicode": {"mock_response": "zweiundvierzig – 四十二 🎉"},
    "a ready response": {"mock_response": ready_response},
    "temperature": {"mock_response": "42", "temperature": 0.2, "top_p": 0.9},
    "max_tokens": {"mock_response": "42", "max_tokens": 5},
    "max_completion_tokens": {"mock_response": "42", "max_completion_tokens": 5},
    "n": {"mock_response": "42", "n": 3},
    "stop and seed": {"mock_response": "42", "stop": ["."], "seed": 7},
    "user and metadata": {"mock_response": "42", "user": "u-1", "metadata": {"a": "b"}},
    "penalties": {"mock_response": "42", "presence_penalty": 0.1, "frequency_penalty": 0.1},
    "logit_bias": {"mock_response": "42", "logit_bias": {"50256": -100}},
    "timeout": {"mock_response": "42", "timeout": 30},
    "logprobs": {"mock_response": "42", "logprobs": True, "top_logprobs": 2},
    "tools": {"mock_response": "42", "tools": [TOOL], "tool_choice": "auto"},
    "tool calls": {"mock_response": " ", "mock_tool_calls": [TOOL_CALL], "tools": [TOOL]},
    "parallel_tool_calls": {
        "mock_response": "42",
        "tools": [TOOL],
        "parallel_tool_calls": False,
    },
    "a JSON object": {"mock_response": '{"a": 1}', "response_format": {"type": "json_object"}},
    "a JSON schema": {
        "mock_response": '{"value": 1}',
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": Answer.model_json_schema()},
        },
    },
    "a pydantic class": {"mock_response": '{"value": 1}', "response_format": Answer},
    "None arguments": {
        "mock_response": "42",
        "temperature": None,
        "max_tokens": None,
        "n": None,
        "stop": None,
        "tools": None,
        "timeout": None,
        "response_format": None,
        "stream": None,
        "custom_llm_provider": None,
        "api_key": None,
        "base_url": None,
        "user": None,
    },
    "stream=False": {"mock_response": "42", "stream": False},
    "no messages": {"mock_response": "42", "messages": []},
    "an image": {
        "mock_response": "a cat",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ],
            }
        ],
    },
    "a conversation": {
        "mock_response": "42",
        "messages": [
            {"role": "system", "content": "be short"},
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "hi"},
            {"role": "user", "content": "6 x 7?"},
        ],
    },
}
STREAMS = {
    "plain": {"mock_response": "one two three four five six seven"},
    "usage wanted": {
        "mock_response": "one two three four five six seven",
        "stream_options": {"include_usage": True},
    },
    "usage not wanted": {
        "mock_response": "one two three",
        "stream_options": {"include_usage": False},
    },
    "None options": {"mock_response": "one two three", "stream_options": None},
    "tools": {"mock_response": "one two three", "tools": [TOOL]},
    "blank": {"mock_response": " "},
    "n": {"mock_response": "one two three", "n": 2},
}
ERRORS = (
    "RateLimitError",
    "InternalServerError",
    "BadRequestError",
    "AuthenticationError",
    "NotFoundError",
    "Timeout",
    "ServiceUnavailableError",
    "ContextWindowExceededError",
    "ContentPolicyViolationError",
    "APIConnectionError",
    "APIError",
    "UnprocessableEntityError",
    "PermissionDeniedError",
    "BadGatewayError",
)


@pytest.fixture(scope="module")
def router(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('drop-in') / 'log.db'}"
    once = {"max_attempts": 1}
    with Router([MODEL], store=url, route_models=["routed"], calls=once) as router:
        yield router


def directly(arguments, *, asynchronous):
    given = fresh(arguments)
    if asynchronous:
        return asyncio.run(litellm.acompletion(model=MODEL, **given))
    return litellm.completion(model=MODEL, **given)


def through(router, arguments, *, asynchronous, model="auto"):
    given = fresh(arguments)
    if asynchronous:
        return asyncio.run(router.acompletion(model, **given))
    return router.completion(model, **given)


def fresh(arguments):
    """Arguments with an object of its own where a function makes one."""
    made = {k: v() if k == "mock_response" and callable(v) else v for k, v in arguments.items()}
    return {"messages": MESSAGES, **made}


def fields(response):
    return response.model_dump(exclude={"id", "created"})


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("arguments", ANSWERS.values(), ids=ANSWERS)
def test_answers_have_the_same_type_and_fields(router, arguments, asynchronous):
    theirs = directly(arguments, asynchronous=asynchronous)
    ours = through(router, arguments, asynchronous=asynchronous)

    assert type(theirs) is type(ours)
    assert fields(theirs) == fields(ours)
    assert list(dict(theirs)) == list(dict(ours))
    assert theirs["choices"][0]["message"] == ours["choices"][0]["message"]
    assert theirs.get("usage") == ours.get("usage")
    kept = set(theirs._hidden_params) - {"optllm"}
    assert kept <= set(ours._hidden_params)
    for name in ("custom_llm_provider", "litellm_model_name", "response_cost"):
        assert theirs._hidden_params.get(name) == ours._hidden_params.get(name)


@pytest.mark.parametrize("model", ["auto", "routed", MODEL])
def test_routed_names_and_pins_answer_alike(router, model):
    arguments = {"mock_response": "42"}

    theirs = directly(arguments, asynchronous=False)
    ours = through(router, arguments, asynchronous=False, model=model)

    assert fields(theirs) == fields(ours)
    assert theirs._hidden_params["response_cost"] == ours._hidden_params["response_cost"]


async def aread(awaitable):
    stream = await awaitable
    return stream, [chunk async for chunk in stream]


@pytest.mark.parametrize("arguments", STREAMS.values(), ids=STREAMS)
def test_streams_have_the_same_chunks(router, arguments):
    given = {"messages": MESSAGES, "stream": True, **arguments}

    their_stream = litellm.completion(model=MODEL, **given)
    their_chunks = list(their_stream)
    our_stream = router.completion("auto", **given)
    our_chunks = list(our_stream)

    assert isinstance(our_stream, type(their_stream))
    assert [type(chunk) for chunk in their_chunks] == [type(chunk) for chunk in our_chunks]
    assert [fields(chunk) for chunk in their_chunks] == [fields(chunk) for chunk in our_chunks]


@pytest.mark.parametrize("arguments", STREAMS.values(), ids=STREAMS)
def test_async_streams_have_the_same_chunks(router, arguments):
    given = {"messages": MESSAGES, "stream": True, **arguments}

    their_stream, their_chunks = asyncio.run(aread(litellm.acompletion(model=MODEL, **given)))
    our_stream, our_chunks = asyncio.run(aread(router.acompletion("auto", **given)))

    assert isinstance(our_stream, type(their_stream))
    assert [fields(chunk) for chunk in their_chunks] == [fields(chunk) for chunk in our_chunks]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", ERRORS)
def test_errors_have_the_same_class_text_and_status(router, kind, asynchronous):
    with pytest.raises(Exception) as theirs:  # whatever LiteLLM raises
        directly({"mock_response": lambda: error_of(kind)}, asynchronous=asynchronous)
    with pytest.raises(Exception) as ours:
        through(router, {"mock_response": lambda: error_of(kind)}, asynchronous=asynchronous)

    assert type(theirs.value) is type(ours.value)
    assert str(theirs.value) == str(ours.value)
    status = getattr(theirs.value, "status_code", None)
    assert status == getattr(ours.value, "status_code", None)
    assert ["error"] == [attempt.status for attempt in ours.value.optllm_attempts]


@pytest.mark.parametrize(
    "arguments",
    [{"mock_timeout": True, "timeout": 0.05}, {"mock_response": "litellm.RateLimitError"}],
    ids=["mock_timeout", "an error by name"],
)
def test_mocked_faults_are_the_same(router, arguments):
    with pytest.raises(Exception) as theirs:
        directly(arguments, asynchronous=False)
    with pytest.raises(Exception) as ours:
        through(router, arguments, asynchronous=False)

    assert type(theirs.value) is type(ours.value)


def test_batch_completion_gives_the_same_list_with_failures_in_place(router):
    messages = [MESSAGES, [{"role": "user", "content": "and 7 x 8?"}]]

    theirs = litellm.batch_completion(MODEL, messages, mock_response="42", max_workers=2)
    ours = router.batch_completion("auto", messages, mock_response="42", max_workers=2)
    failed = router.batch_completion("auto", messages, mock_response="litellm.RateLimitError")

    assert [fields(response) for response in theirs] == [fields(response) for response in ours]
    assert [litellm.RateLimitError] * 2 == [type(error) for error in failed]


def names_of(function):
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (litellm.completion, COMPLETION),
        (litellm.acompletion, ACOMPLETION),
        (litellm.batch_completion, BATCH_COMPLETION),
    ],
    ids=["completion", "acompletion", "batch_completion"],
)
def test_positional_names_are_those_of_the_installed_litellm(function, names):
    assert names_of(function) == names


def test_arguments_may_be_positional_in_litellms_own_order(router):
    ours = router.completion("auto", MESSAGES, 30.0, 0.2, mock_response="42")
    theirs = litellm.completion(MODEL, MESSAGES, 30.0, 0.2, mock_response="42")
    awaited = asyncio.run(
        router.acompletion("auto", MESSAGES, None, None, 30.0, mock_response="42")
    )

    assert fields(theirs) == fields(ours) == fields(awaited)
    with pytest.raises(TypeError, match="got multiple values for argument 'model'"):
        router.completion("auto", MESSAGES, model="auto")
    with pytest.raises(TypeError, match="positional arguments but"):
        router.completion(*range(60))


def test_litellms_budget_handlers_catch_our_refusal(router):
    from optllm_router import Budget, BudgetExceededError

    with pytest.raises(litellm.BudgetExceededError) as caught:
        router.complete(messages=MESSAGES, policy=Budget(usd=1e-6), mock_response="42")

    assert isinstance(caught.value, BudgetExceededError)
    assert 429 == caught.value.status_code


def test_a_router_changes_nothing_global_in_litellm(tmp_path):
    lists = (
        "callbacks",
        "success_callback",
        "failure_callback",
        "input_callback",
        "_async_success_callback",
        "_async_failure_callback",
    )
    before = {name: list(getattr(litellm, name)) for name in lists}
    plain = {
        name: getattr(litellm, name)
        for name in ("cache", "suppress_debug_info", "drop_params", "num_retries", "api_key")
    }

    with Router([MODEL], store=f"sqlite:///{tmp_path / 'log.db'}") as router:
        router.complete(messages=MESSAGES, mock_response="42")

    assert before == {name: list(getattr(litellm, name)) for name in lists}
    assert plain == {name: getattr(litellm, name) for name in plain}
