"""A provider's stream, watched: the same chunks, and money settled however it ends.

Ends are: exhausted, failed, closed, garbage-collected, cancelled. Each settles exactly once.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Self

from typing_extensions import override

from optllm_router.completion.base import Answer, Chunk, Response, StreamMeter
from optllm_router.dispatch.watch import Overdue, Watch

logger = logging.getLogger("optllm_router")


@dataclass(frozen=True, slots=True)
class End:
    """How a stream ended, and what had arrived by then."""

    status: Literal["ok", "error", "abandoned"]
    answer: Answer
    error: BaseException | None = None


ENDED = object()
"""Stands for the chunk behind the last one."""

Finish = Callable[[End], None]
Later = Callable[[Callable[[], object]], None]


def next_chunk(stream: Response, watch: Watch | None) -> Chunk:
    """Read a chunk, or `ENDED`. Raises: Overdue; the provider's own exception."""

    def read() -> Chunk:
        return next(stream, ENDED)

    return read() if watch is None else watch.run(read, late=lambda _chunk: close_stream(stream))


async def anext_chunk(stream: Response, watch: Watch | None) -> Chunk:
    """Do what `next_chunk` does, awaited."""

    async def read() -> Chunk:
        try:
            return await stream.__anext__()
        except StopAsyncIteration:
            return ENDED

    return await (read() if watch is None else watch.arun(read))


def close_stream(stream: Response) -> None:
    """Close what a blocking stream reads from, as far as it can be closed from here."""
    close = getattr(getattr(stream, "completion_stream", None), "close", None)
    if callable(close) and not inspect.iscoroutinefunction(close):
        close()


async def aclose_stream(stream: Response) -> None:
    """Close what an awaited stream reads from."""
    wrapped = getattr(stream, "completion_stream", None)
    close = getattr(wrapped, "aclose", None) or getattr(wrapped, "close", None)
    closing = close() if callable(close) else None
    if inspect.isawaitable(closing):
        await closing


def hang_up(stream: Response, loop: asyncio.AbstractEventLoop | None) -> None:
    """Close, from another thread, what a stream reads from that nobody holds any more.

    LiteLLM keeps it open, so that the provider would go on, and bill, to the end. What an event
    loop reads from is closed there; a loop that is over has closed it.
    """
    if loop is None:
        close_stream(stream)
    elif loop.is_running():
        with suppress(RuntimeError):  # it is over meanwhile
            asyncio.run_coroutine_threadsafe(aclose_stream(stream), loop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A stream of which some chunks have been read, and metered, before anybody has it."""

    stream: Response
    meter: StreamMeter
    chunks: list[Chunk]
    watch: Watch | None
    overdue: Callable[[], Exception]


class RoutedStream:
    """Iterates like the stream it wraps, sync or async, and passes other attributes through.

    It goes on behind what was read of the stream already, and under the same watch; `overdue` makes
    the exception for a chunk that does not come in time.
    `finish` is called once, when the stream ends. A stream that is garbage-collected is closed and
    has it done `later`, on another thread: the collector may have interrupted any code, holding any
    lock. A process that was forked meanwhile ends nothing: the stream is its parent's to settle.
    """

    def __init__(self, opening: Opening, finish: Finish, later: Later) -> None:
        self._wrapped = opening.stream
        self._meter = opening.meter
        self._read = deque(opening.chunks)
        self._watch = opening.watch
        self._overdue = opening.overdue
        self._finish = finish
        self._later = later
        self._ended = False
        self._pid = os.getpid()
        self._loop = _running_loop()
        self._lock = threading.Lock()

    @property  # type: ignore[misc]  # isinstance checks are to see LiteLLM's class
    @override
    def __class__(self) -> type:
        return type(self._wrapped)

    def __getattr__(self, name: str) -> Any:
        if name == "_wrapped":  # not made yet, or being copied
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        if self._read and self._read[0] is not ENDED:
            return self._read.popleft()
        while True:
            try:
                chunk = ENDED if self._read else next_chunk(self._wrapped, self._watch)
            except Overdue:
                error = self._overdue()
                self._end("error", error)
                raise error from None
            except BaseException as error:
                self._end("error", error)
                raise
            if chunk is ENDED:
                self._end("ok")
                raise StopIteration
            if self._meter.add(chunk):
                return chunk

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        if self._read and self._read[0] is not ENDED:
            return self._read.popleft()
        while True:
            try:
                chunk = ENDED if self._read else await anext_chunk(self._wrapped, self._watch)
            except Overdue:
                error = self._overdue()
                await self._aend("error", error)
                raise error from None
            except BaseException as error:
                await self._aend("error" if isinstance(error, Exception) else "abandoned", error)
                raise
            if chunk is ENDED:
                await self._aend("ok")
                raise StopAsyncIteration
            if self._meter.add(chunk):
                return chunk

    def close(self) -> None:
        """Stop reading, the provider first; what had arrived is billed."""
        end = self._ended_as("abandoned")
        try:
            close_stream(self._wrapped)
        finally:
            self._settle(end)

    async def aclose(self) -> None:
        """Stop reading, the provider first; what had arrived is billed."""
        end = self._ended_as("abandoned")
        try:
            await aclose_stream(self._wrapped)
        finally:
            await self._asettle(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self.__dict__.get("_ended", True) and self._pid == os.getpid():
            self._ended = True
            end = End("abandoned", self._meter.answer())
            finish, wrapped, loop = self._finish, self._wrapped, self._loop
            self._later(lambda: hang_up(wrapped, loop))
            self._later(lambda: finish(end))

    def abandon(self) -> None:
        """End a stream that never reached its caller."""
        hang_up(self._wrapped, self._loop)
        self._end("abandoned")

    def _ended_as(self, status: Any, error: BaseException | None = None) -> End | None:
        """Return the end of the stream, for the one caller that ends it; None for all others."""
        if self._pid != os.getpid():
            return None
        with self._lock:
            is_over, self._ended = self._ended, True
        return None if is_over else End(status, self._meter.answer(), error)

    def _end(self, status: Any, error: BaseException | None = None) -> None:
        self._settle(self._ended_as(status, error))

    async def _aend(self, status: Any, error: BaseException | None = None) -> None:
        await self._asettle(self._ended_as(status, error))

    def _settle(self, end: End | None) -> None:
        if end is not None:
            self._finish(end)

    async def _asettle(self, end: End | None) -> None:
        """Settle without blocking the event loop, and even when the task is being cancelled."""
        if end is not None:
            await asyncio.shield(asyncio.to_thread(self._finish, end))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
