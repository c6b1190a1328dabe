"""The public fake server, asked over plain HTTP."""

import http.client
import json
import threading
import time
from urllib.parse import urlsplit

import pytest

from optllm_router.testing.openai_server import (
    FakeOpenAIServer,
    Reply,
    SeenRequest,
    ToolCall,
    in_order,
)

BODY = {"model": "m", "messages": [{"role": "user", "content": "12345678"}]}


def post(server, body=None):
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    try:
        headers = {"Content-Type": "application/json", "X-Mine": "1"}
        connection.request(
            "POST", address.path + "/chat/completions", json.dumps(body or BODY), headers
        )
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


def answer(reply, **body):
    with FakeOpenAIServer(in_order(reply)) as server:
        return post(server, {**BODY, **body})


def events(reply, **body):
    _, headers, text = answer(reply, stream=True, **body)
    assert headers["Content-Type"] == "text/event-stream"
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_by_default_it_echoes_and_remembers():
    with FakeOpenAIServer() as server:
        status, _, text = post(server)
        (seen,) = server.requests

    body = json.loads(text)
    assert status == 200
    assert body["object"] == "chat.completion"
    assert body["model"] == "m"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "12345678"}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "total_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert type(seen) is SeenRequest
    assert (seen.path, seen.body, seen.headers["x-mine"]) == ("/v1/chat/completions", BODY, "1")


def test_usage_tools_and_choices_are_scripted():
    reply = Reply(
        tool_calls=[ToolCall(name="f", arguments="{}", id="c1")],
        prompt_tokens=7,
        completion_tokens=3,
        cached_tokens=5,
    )

    body = json.loads(answer(reply, n=2)[2])

    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert body["choices"][0]["finish_reason"] == "tool_calls"
    assert body["choices"][0]["message"]["content"] is None
    assert body["choices"][0]["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 5}
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (7, 3)


def test_a_stream_has_role_words_finish_and_no_usage_unless_asked():
    chunks = events(Reply(text="one two"))

    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "one "},
        {"content": "two"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_the_usage_chunk_has_no_choices():
    *_, last = events(
        Reply(text="one", prompt_tokens=4, completion_tokens=1),
        stream_options={"include_usage": True},
    )

    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 5


def test_tools_and_reasoning_stream_in_pieces():
    chunks = events(Reply(reasoning="let me", tool_calls=[ToolCall(name="f", arguments="[]")]))

    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta.get("reasoning_content") for delta in deltas[1:3]] == ["let ", "me"]
    assert deltas[3]["tool_calls"][0]["function"] == {"name": "f", "arguments": ""}
    assert deltas[4]["tool_calls"] == [{"index": 0, "function": {"arguments": "[]"}}]


def test_failures_are_openai_errors_with_headers():
    status, headers, text = answer(
        Reply(status=429, error="slow down", error_code="tpm", headers={"Retry-After": "3"})
    )

    assert (status, headers["Retry-After"]) == (429, "3")
    assert json.loads(text) == {
        "error": {
            "message": "slow down",
            "type": "rate_limit_error",
            "param": None,
            "code": "tpm",
        }
    }


def test_connections_can_be_cut():
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        answer(Reply(reset_after=0))
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer(Reply(text="a b c", reset_after=2), stream=True)


def test_delays_hold_up_one_answer_and_not_the_others():
    with FakeOpenAIServer(lambda _: Reply(text="ok", delay_s=0.5)) as server:
        started = time.perf_counter()
        threads = [threading.Thread(target=post, args=(server,)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.perf_counter() - started

    assert len(server.requests) == 10
    assert 0.5 <= took_s < 4.5


def test_it_starts_once_stops_twice_and_can_start_again():
    server = FakeOpenAIServer()

    with server, pytest.raises(RuntimeError, match="running already"):
        server.start()
    server.stop()
    with server:
        assert post(server)[0] == 200
    with pytest.raises(ConnectionRefusedError):
        post(server)


def test_million_character_prompts_pass():
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 5_000_000}]}

    with FakeOpenAIServer(in_order(Reply(text="ok"))) as server:
        status, _, text = post(server, body)

    assert status == 200
    assert json.loads(text)["usage"]["prompt_tokens"] == 1_250_000
