"""Whatever callers send as messages: the right answer or a clear error, and nothing lost."""

import asyncio

import pytest

from optllm_router import ConfigError, Router
from optllm_router.testing.openai_server import FakeOpenAIServer, Reply
from optllm_router.testing.scripted import Line, ScriptedClient

ODD = {
    "empty": "",
    "blank": " \n\t ",
    "a million characters": "word " * 200_000,
    "a million of one": "x" * 1_000_000,
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈 " * 50,
    "NUL bytes": "a\x00b\x00",
    "lone surrogates": "broken \ud83d text \udc00",
    "escape characters": "\x1a0000 \x1b[0m",
    "special tokens": "<|endoftext|><|im_start|>",
    "right to left": "שלום עולם مرحبا",
}
PARTS = {
    "text parts": [{"type": "text", "text": "what is"}, {"type": "text", "text": "this?"}],
    "an image": [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ],
    "audio": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
    "strings": ["one", "two"],
    "a part without type": [{"text": "x"}],
    "a part with text None": [{"type": "text", "text": None}],
    "numbers": [1, 2],
    "None parts": [None],
    "None": None,
    "a dict": {"type": "text", "text": "x"},
    "a number": 7,
    "nothing": [],
}


@pytest.fixture
def counting(url):
    """A router that counts tokens as the real client does, before and after a fit."""
    from optllm_router.completion import counting

    class Counting(ScriptedClient):
        def count_tokens(self, messages, tools=None, response_format=None):
            return counting.count_messages(messages, tools, response_format)

        def count_text(self, text):
            return counting.count_text(text)

    client = Counting({"m": Line(reports_usage=False)}, prices={"m": (1, 1)})
    with Router(["m"], store=url, client=client, prompts="full") as router:
        router._client_for_tests = client
        yield router


def calls(router, **arguments):
    yield router.complete(**arguments)
    yield asyncio.run(router.acomplete(**arguments))
    (result,) = router.complete_batch([arguments])
    yield result
    stream = router.complete(stream=True, **arguments)
    list(stream)
    yield stream


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
@pytest.mark.parametrize("fitted", [False, True], ids=["not fitted", "fitted"])
def test_odd_texts_are_answered_logged_and_found_again(counting, text, fitted):
    if fitted:
        counting.probe([f"text {i} {text[:50]}" for i in range(50)], grader=lambda *_: 1.0)
        assert counting.retrain().published

    responses = list(calls(counting, messages=[{"role": "user", "content": text}], tags=[text[:9]]))

    assert 4 == len({r._hidden_params["optllm"]["decision_id"] for r in responses})
    for response in responses:
        logged = counting._engine.store.decision(response._hidden_params["optllm"]["decision_id"])
        clipped = text if len(text) <= 2000 else text[:1000] + text[-1000:]
        assert clipped == logged.decision.prompt
        assert ["ok"] == [attempt.status for attempt in logged.attempts]
        assert counting.feedback(response, score=0.5)


@pytest.mark.parametrize("content", PARTS.values(), ids=PARTS)
def test_contents_that_are_no_text_are_passed_on_as_they_are(counting, content):
    message = {"role": "user", "content": content}

    for response in calls(counting, messages=[message]):
        assert not isinstance(response, Exception)

    assert [[message]] * 4 == [c.arguments["messages"] for c in counting._client_for_tests.calls]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "system", "content": "only this"}],
        [{"role": "assistant", "content": None, "tool_calls": []}],
        [{"role": "tool", "content": "42", "tool_call_id": "c1"}],
        [{}],
        ({"role": "user", "content": "a tuple"},),
    ],
    ids=["empty", "system only", "assistant", "tool", "no fields", "tuple"],
)
def test_odd_lists_of_messages_are_passed_on(counting, messages):
    for response in calls(counting, messages=messages):
        assert not isinstance(response, Exception)

    assert list(messages) == counting._client_for_tests.calls[0].arguments["messages"]


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (None, "`messages` is missing: pass a list of messages"),
        ("hello", "`messages` is a str: pass a list such as"),
        ({"role": "user"}, "`messages` is a dict: pass a list such as"),
        (7, "`messages` is a int: pass a list such as"),
        (b"bytes", "`messages` is a bytes: pass a list such as"),
    ],
)
def test_what_is_no_list_of_messages_is_refused_and_nothing_is_called(counting, messages, says):
    with pytest.raises(ConfigError) as caught:
        counting.complete(messages=messages)
    (in_place,) = counting.complete_batch([{"messages": messages}])

    assert str(caught.value).startswith(says)
    assert str(in_place) == str(caught.value)
    assert [] == counting._client_for_tests.calls


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": 7}, "`model=7` is not a name: pass a string such as 'auto'"),
        ({"model": ["auto"]}, "`model=['auto']` is not a name"),
        ({"n": "many"}, "`n='many'` is not a whole number of at least 1"),
        ({"n": 0}, "`n=0` is not a whole number of at least 1"),
        ({"max_tokens": -5}, "`max_tokens=-5` is not a whole number of at least 1"),
        ({"max_tokens": 0}, "`max_tokens=0` is not a whole number of at least 1"),
        ({"max_completion_tokens": 1.5}, "`max_completion_tokens=1.5` is not a whole number"),
        ({"tools": "all"}, "`tools` is a str: pass a list"),
        ({"tools": {"type": "function"}}, "`tools` is a dict: pass a list"),
        ({"tags": "team-a"}, "`tags='team-a'` is not a list of strings: pass e.g."),
        ({"tags": 7}, "`tags=7` is not a list of strings"),
        ({"policy": "cheapest"}, "`policy='cheapest'` is no policy"),
    ],
)
def test_arguments_of_the_wrong_type_are_refused_and_nothing_is_called(counting, arguments, says):
    with pytest.raises(ConfigError) as caught:
        counting.complete(**{"messages": [{"role": "user", "content": "x"}], **arguments})

    assert str(caught.value).startswith(says)
    assert [] == counting._client_for_tests.calls


@pytest.mark.parametrize(
    "message",
    [
        "no message",
        7,
        None,
        {"role": "user", "content": [{"type": {"x": 1}, "text": "hi"}]},
        {"role": ["user"], "content": "hi"},
        {"role": "user", "content": [7, None]},
        {"role": {"x": 1}, "content": {"y": 2}},
        {"role": "user", "content": "x", "tool_calls": 7},
    ],
)
@pytest.mark.parametrize("shell", ["complete_batch", "acomplete_batch"])
def test_a_malformed_message_costs_a_batch_no_other_item(counting, message, shell):
    results = getattr(counting, shell)([[message], "fine"])
    if shell == "acomplete_batch":
        results = asyncio.run(results)

    assert "ok" == results[1].choices[0].message.content
    assert not isinstance(results[0], Exception) or isinstance(results[0], ConfigError)


@pytest.mark.parametrize("item", [None, 7, 1.5, b"bytes", object()])
def test_a_batch_item_of_the_wrong_type_is_refused_in_place(counting, item):
    results = counting.complete_batch([item, "fine"])

    assert isinstance(results[0], ConfigError)
    assert str(results[0]).startswith("a batch item is a ")
    assert "ok" == results[1].choices[0].message.content


@pytest.mark.parametrize("requests", ["one text", {"messages": []}, 7, None])
def test_a_batch_that_is_no_list_is_refused(counting, requests):
    for batch in (counting.complete_batch, counting.plan, counting.probe):
        with pytest.raises(ConfigError, match="pass a list of requests"):
            batch(requests)
    with pytest.raises(ConfigError, match="pass a list of requests"):
        asyncio.run(counting.acomplete_batch(requests))

    assert [] == counting._client_for_tests.calls


def test_a_batch_may_be_any_iterable(counting):
    assert 3 == len(counting.complete_batch(f"text {i}" for i in range(3)))


def test_litellms_own_message_objects_go_back_in(url):
    """A conversation goes on with the message that the last response held."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    with FakeOpenAIServer(lambda request: Reply(text=f"{len(request['messages'])}")) as server:
        candidate = {
            "model": "openai/house",
            "api_base": server.url,
            "arguments": {"api_key": "sk-test"},
            "input_usd_per_1m": 1,
            "output_usd_per_1m": 1,
        }
        with Router([candidate], store=url) as router:
            messages = [{"role": "user", "content": "hello"}]
            response = router.complete(messages=messages, tools=tools)
            messages += [response.choices[0].message, {"role": "user", "content": "and then?"}]
            again = router.complete(messages=messages, tools=tools)
            (batched,) = router.complete_batch([messages])

    assert ["1", "3", "3"] == [r.choices[0].message.content for r in (response, again, batched)]
