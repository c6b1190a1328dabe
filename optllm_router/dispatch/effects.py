"""One call as a conversation, acted out twice: once blocking, once awaited.

A conversation is a generator that yields what it needs done in the world (send a request, write to
the log, wait) and receives the result or the exception. All the logic of a call stands in the
conversation, so that the sync and the async shell cannot differ in anything but the waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from optllm_router.completion.base import Client, Response
from optllm_router.dispatch.streams import anext_chunk, close_stream, next_chunk
from optllm_router.dispatch.watch import Watch
from optllm_router.records import Candidate


@dataclass(frozen=True, slots=True)
class Send:
    """Ask a candidate; the reply is its response. Without a watch it takes as long as it takes."""

    candidate: Candidate
    arguments: Mapping[str, Any]
    watch: Watch | None


@dataclass(frozen=True, slots=True)
class Pull:
    """Read on in a stream; the reply is its next chunk, or `ENDED`."""

    stream: Response
    watch: Watch | None


@dataclass(frozen=True, slots=True)
class Write:
    """Do blocking work on the store; the reply is what it returns."""

    action: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait; the reply is None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Await:
    """Wait until a signal is done, or for so long; the reply is None."""

    signal: Future[None]
    seconds: float


Effect: TypeAlias = Send | Pull | Write | Pause | Await
Conversation: TypeAlias = Generator[Effect, Any, Response]


def run(
    conversation: Conversation, client: Client, *, error: BaseException | None = None
) -> Response:
    """Act a conversation out, blocking; return what it returns, raise what it raises.

    With an `error`, it is taken up where it stands, and told that error.
    """
    reply: Any = None
    while True:
        try:
            effect = conversation.send(reply) if error is None else conversation.throw(error)
        except StopIteration as stop:
            return stop.value
        try:
            reply, error = _perform(effect, client), None
        except GeneratorExit:
            _end_closed(conversation, client)
            raise
        except BaseException as raised:  # noqa: BLE001  # handed to the conversation, which decides
            reply, error = None, raised


async def arun(conversation: Conversation, client: Client, store_thread: Executor) -> Response:
    """Act a conversation out without blocking the event loop.

    Store work runs on `store_thread` and is finished even when the task is cancelled meanwhile.
    """
    reply: Any = None
    error: BaseException | None = None
    while True:
        try:
            effect = conversation.send(reply) if error is None else conversation.throw(error)
        except StopIteration as stop:
            return stop.value
        try:
            reply, error = await _aperform(effect, client, store_thread), None
        except GeneratorExit:
            _end_closed(conversation, client)
            raise
        except BaseException as raised:  # noqa: BLE001  # handed to the conversation, which decides
            reply, error = None, raised


def _end_closed(conversation: Conversation, client: Client) -> None:
    """Let a conversation write what it has to, where its coroutine is closed and may not wait.

    It is told that it was cancelled: a generator cannot answer to GeneratorExit.
    """
    with suppress(asyncio.CancelledError):
        run(conversation, client, error=asyncio.CancelledError("closed"))


def _perform(effect: Effect, client: Client) -> Any:
    if isinstance(effect, Send):
        if effect.watch is None:
            return client.complete(effect.candidate, effect.arguments)
        call = partial(client.complete, effect.candidate, effect.arguments)
        return effect.watch.run(call, late=close_stream)
    if isinstance(effect, Pull):
        return next_chunk(effect.stream, effect.watch)
    if isinstance(effect, Write):
        return effect.action()
    if isinstance(effect, Await):
        wait([effect.signal], effect.seconds)
        return None
    time.sleep(effect.seconds)
    return None


async def _aperform(effect: Effect, client: Client, store_thread: Executor) -> Any:
    if isinstance(effect, Send):
        if effect.watch is None:
            return await client.acomplete(effect.candidate, effect.arguments)
        acall = partial(client.acomplete, effect.candidate, effect.arguments)
        return await effect.watch.arun(acall)
    if isinstance(effect, Pull):
        return await anext_chunk(effect.stream, effect.watch)
    if isinstance(effect, Write):
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(store_thread, effect.action))
    if isinstance(effect, Await):
        await asyncio.wait([asyncio.wrap_future(effect.signal)], timeout=effect.seconds)
        return None
    await asyncio.sleep(effect.seconds)
    return None
