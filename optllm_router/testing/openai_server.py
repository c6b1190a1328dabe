"""A real OpenAI-compatible HTTP server on loopback, whose answers a function writes.

It runs aiohttp in a thread of its own, so that synchronous and asynchronous callers, in this
process or another, meet real sockets, real JSON and real server-sent events. Nothing of the client
is replaced: whatever holds against this server holds for the code that users run.

    def respond(request):
        return Reply(text="4") if "2+2" in request["messages"][-1]["content"] else Reply(status=429)

    with FakeOpenAIServer(respond) as server:
        litellm.completion("openai/any", messages=[...], api_base=server.url, api_key="any")
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web

Json = dict[str, Any]
Fault = Literal["garbage", "empty", "cut", "truncated", "endless"]

_START_TIMEOUT_S = 10.0
_FLUSH_S = 0.05  # so that what was written is on its way
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_MAX_BODY_BYTES = 64 * 1024 * 1024  # prompts of 1,000,000 characters and images pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One function that the simulated LLM wants called; `arguments` is JSON text."""

    name: str
    arguments: str = "{}"
    id: str = "call_0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the server does with one request.

    Token counts that are None are estimated at four characters each. `delay_s` passes before the
    first byte, `chunk_delay_s` before every further piece of a stream. A `status` other than 200
    sends `error` as an OpenAI error body. `reset_after` cuts the connection instead of answering:
    before the first byte at 0, after that many pieces of a stream otherwise. `usage=False` leaves
    the usage out, as some servers do.

    A `fault` spoils an answer that begins well: "garbage" is no JSON; "empty" has no choices; "cut"
    breaks the connection off half-way, "truncated" ends in good order there; "endless" goes on for
    ever without saying anything. In streams it comes after the role and before the first word.
    """

    text: str = ""
    tool_calls: Sequence[ToolCall] = ()
    reasoning: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int = 0
    finish_reason: str | None = None
    delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    status: int = 200
    error: str = "scripted failure"
    error_code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reset_after: int | None = None
    usage: bool = True
    fault: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRequest:
    """One request as it arrived, with the headers' names in lower case."""

    path: str
    headers: Mapping[str, str]
    body: Json


Respond = Callable[[Json], Reply]


def echo(request: Json) -> Reply:
    """Answer with the text of the last message."""
    return Reply(text=_message_text(request["messages"][-1]) if request.get("messages") else "")


def in_order(*replies: Reply) -> Respond:
    """Return a respond function that gives these replies in order, then repeats the last one."""
    left = list(replies)
    lock = threading.Lock()

    def respond(_request: Json) -> Reply:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return respond


class FakeOpenAIServer:
    """Serves POST `/v1/chat/completions` on a free loopback port while its `with` block runs.

    `respond` is called in the server's thread, one request at a time, and should not block: slow
    answers are made with `Reply.delay_s`. An exception that it raises becomes an HTTP 500.

    Attributes:
        requests: every `SeenRequest` so far, in order of arrival.
    """

    def __init__(self, respond: Respond = echo) -> None:
        """Keep `respond`; the socket opens with `start` or the `with` block."""
        self.requests: list[SeenRequest] = []
        self._respond = respond
        self._port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()

    @property
    def url(self) -> str:
        """The base address that clients are given, e.g. `http://127.0.0.1:40123/v1`."""
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> Self:
        """Open the socket and serve until `stop`.

        Raises: RuntimeError where it is running already or the thread does not come up.
        """
        if self._thread is not None:
            raise RuntimeError(f"the server at {self.url} is running already: call `stop` first")
        self._thread = threading.Thread(target=self._run, name="fake-openai-server", daemon=True)
        self._thread.start()
        if not self._ready.wait(_START_TIMEOUT_S):
            raise RuntimeError(f"the server did not start within {_START_TIMEOUT_S:.0f} s")
        return self

    def stop(self) -> None:
        """Close the socket and wait for the thread; does nothing where it is not running."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None
        self._ready.clear()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post("/v1/chat/completions", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self._port = runner.addresses[0][1]
        self._ready.set()
        try:
            await self._stop.wait()
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(SeenRequest(path=request.path, headers=headers, body=body))
        reply = self._respond(body)
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        if reply.reset_after == 0:
            _reset(request)
        if reply.status != 200:
            return _error(reply)
        if reply.fault is not None:
            return await _spoilt(request, body, reply)
        if body.get("stream"):
            return await _stream(request, body, reply)
        return web.json_response(_completion(body, reply), headers=reply.headers)


def _reset(request: web.Request) -> None:
    """Drop the connection without another byte (a TCP reset, not an orderly close)."""
    if request.transport is not None:
        request.transport.abort()


async def _spoilt(request: web.Request, body: Json, reply: Reply) -> web.StreamResponse:
    """Begin an answer well, and end it as its fault says."""
    streamed = bool(body.get("stream"))
    kind = "text/event-stream" if streamed else "application/json"
    response = web.StreamResponse(headers={"Content-Type": kind, **reply.headers})
    await response.prepare(request)
    for piece in _spoilt_pieces(body, reply):
        await response.write(piece)
    if reply.fault == "cut":
        await asyncio.sleep(_FLUSH_S)
        _reset(request)
        return response
    while reply.fault == "endless":
        await asyncio.sleep(_FLUSH_S)
        await response.write(b": wait\n\n" if streamed else b" ")
    await response.write_eof()
    return response


def _spoilt_pieces(body: Json, reply: Reply) -> Iterator[bytes]:
    """Yield what is sent of a spoilt answer."""
    if body.get("stream"):
        choices: list[Json] = [{"index": 0, "delta": {"role": "assistant", "content": ""}}]
        head = {**_head(body), "object": "chat.completion.chunk"}
        yield b"data: " + _chunk(head, [] if reply.fault == "empty" else choices) + b"\n\n"
        yield b"data: {garbage\n\n" if reply.fault == "garbage" else b""
        yield b"data: [DONE]\n\n" if reply.fault == "empty" else b""
        return
    whole = _completion(body, reply)
    text = json.dumps({**whole, "choices": []} if reply.fault == "empty" else whole).encode()
    halves = {"garbage": b"{garbage", "empty": text, "endless": b" "}
    yield halves.get(reply.fault or "", text[: len(text) // 2])


def _error(reply: Reply) -> web.Response:
    """Return the OpenAI error body for a reply's status."""
    kind = _ERROR_TYPES.get(reply.status, "server_error" if reply.status >= 500 else "api_error")
    body = {
        "error": {"message": reply.error, "type": kind, "param": None, "code": reply.error_code}
    }
    return web.json_response(body, status=reply.status, headers=reply.headers)


async def _stream(request: web.Request, body: Json, reply: Reply) -> web.StreamResponse:
    """Send a reply as server-sent events, cut short where it says so."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", **reply.headers}
    )
    await response.prepare(request)
    async for event in _paced(_events(body, reply), reply.chunk_delay_s):
        if reply.reset_after is not None and event.number >= reply.reset_after:
            _reset(request)
            return response
        await response.write(b"data: " + event.data + b"\n\n")
    await response.write_eof()
    return response


@dataclass(frozen=True, slots=True)
class _Event:
    number: int
    data: bytes


async def _paced(events: Iterator[bytes], delay_s: float) -> AsyncIterator[_Event]:
    for number, data in enumerate(events):
        if delay_s and number:
            await asyncio.sleep(delay_s)
        yield _Event(number, data)


def _events(body: Json, reply: Reply) -> Iterator[bytes]:
    """Yield the data of each event: role, pieces, finish, usage when asked for, the end mark."""
    head = {**_head(body), "object": "chat.completion.chunk"}
    asked = bool((body.get("stream_options") or {}).get("include_usage"))
    for delta in _deltas(reply):
        yield _chunk(head, [{"index": 0, "delta": delta, "finish_reason": None}])
    yield _chunk(head, [{"index": 0, "delta": {}, "finish_reason": _finish_reason(reply)}])
    if asked and reply.usage:
        yield _chunk({**head, "usage": _usage(body, reply)}, [])
    yield b"[DONE]"


def _chunk(head: Json, choices: list[Json]) -> bytes:
    return json.dumps({**head, "choices": choices}).encode()


def _deltas(reply: Reply) -> Iterator[Json]:
    """Yield what a stream adds piece by piece: role, reasoning, words, tool calls in two parts."""
    yield {"role": "assistant", "content": ""}
    for piece in _pieces(reply.reasoning):
        yield {"reasoning_content": piece}
    for piece in _pieces(reply.text):
        yield {"content": piece}
    for index, call in enumerate(reply.tool_calls):
        opening = {"name": call.name, "arguments": ""}
        yield {
            "tool_calls": [{"index": index, "id": call.id, "type": "function", "function": opening}]
        }
        yield {"tool_calls": [{"index": index, "function": {"arguments": call.arguments}}]}


def _pieces(text: str) -> list[str]:
    """Split a text into words that keep the space behind them."""
    return re.findall(r"\s*\S+\s*|\s+", text)


def _completion(body: Json, reply: Reply) -> Json:
    """Return the body of a finished chat completion, with `n` equal choices."""
    choice = {"message": _message(reply), "finish_reason": _finish_reason(reply), "logprobs": None}
    choices = [{"index": index, **choice} for index in range(body.get("n") or 1)]
    usage = {"usage": _usage(body, reply)} if reply.usage else {}
    return {**_head(body), "object": "chat.completion", "choices": choices, **usage}


def _head(body: Json) -> Json:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": body.get("model", ""),
    }


def _message(reply: Reply) -> Json:
    message: Json = {"role": "assistant", "content": reply.text or None}
    if not reply.tool_calls:
        message["content"] = reply.text
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in reply.tool_calls
        ]
    return message


def _finish_reason(reply: Reply) -> str:
    return reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")


def _usage(body: Json, reply: Reply) -> Json:
    """Return the usage that was scripted, or an estimate of four characters per token."""
    prompt, completion = reply.prompt_tokens, reply.completion_tokens
    if prompt is None:
        prompt = _estimate("".join(_message_text(m) for m in body.get("messages", [])))
    if completion is None:
        calls = "".join(call.name + call.arguments for call in reply.tool_calls)
        completion = _estimate(reply.reasoning + reply.text + calls) * (body.get("n") or 1)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
    }


def _estimate(text: str) -> int:
    return max(1, -(-len(text) // 4))


def _message_text(message: Mapping[str, Any]) -> str:
    """Return a message's text, whether its content is a string or a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, Mapping))
