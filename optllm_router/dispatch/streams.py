"""A provider's stream, watched: the same chunks, and money settled however it ends.

Ends are: exhausted, failed, closed, garbage-collected, cancelled. Each settles exactly once.
"""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

from typing_extensions import override

from optllm_router.completion.base import Answer, Chunk, Response, StreamMeter

logger = logging.getLogger("optllm_router")


@dataclass(frozen=True, slots=True)
class End:
    """How a stream ended, and what had arrived by then."""

    status: Literal["ok", "error", "abandoned"]
    answer: Answer
    error: BaseException | None = None


Finish = Callable[[End], None]
Later = Callable[[Callable[[], object]], None]


class RoutedStream:
    """Iterates like the stream it wraps, sync or async, and passes other attributes through.

    `finish` is called once, when the stream ends. A stream that is garbage-collected has it done
    `later`, on another thread: the collector may have interrupted any code, holding any lock. A
    process that was forked meanwhile ends nothing: the stream is its parent's to settle.
    """

    def __init__(self, wrapped: Response, meter: StreamMeter, finish: Finish, later: Later) -> None:
        self._wrapped = wrapped
        self._meter = meter
        self._finish = finish
        self._later = later
        self._ended = False
        self._pid = os.getpid()
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
        while True:
            try:
                chunk = next(self._wrapped)
            except StopIteration:
                self._end("ok")
                raise
            except BaseException as error:
                self._end("error", error)
                raise
            if self._meter.add(chunk):
                return chunk

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        while True:
            try:
                chunk = await self._wrapped.__anext__()
            except StopAsyncIteration:
                await self._aend("ok")
                raise
            except BaseException as error:
                await self._aend("error" if isinstance(error, Exception) else "abandoned", error)
                raise
            if self._meter.add(chunk):
                return chunk

    def close(self) -> None:
        """Stop reading; what had arrived is billed."""
        self._end("abandoned")
        close = getattr(getattr(self._wrapped, "completion_stream", None), "close", None)
        if callable(close):
            close()

    async def aclose(self) -> None:
        """Stop reading; what had arrived is billed."""
        await self._aend("abandoned")
        stream = getattr(self._wrapped, "completion_stream", None)
        close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
        closing = close() if callable(close) else None
        if inspect.isawaitable(closing):
            await closing

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
            finish = self._finish
            self._later(lambda: finish(end))

    def abandon(self) -> None:
        """End a stream that never reached its caller."""
        self._end("abandoned")

    def _claim(self) -> bool:
        """Whether this caller is the one that ends the stream."""
        if self._pid != os.getpid():
            return False
        with self._lock:
            claimed, self._ended = not self._ended, True
        return claimed

    def _end(self, status: Any, error: BaseException | None = None) -> None:
        if self._claim():
            self._finish(End(status, self._meter.answer(), error))

    async def _aend(self, status: Any, error: BaseException | None = None) -> None:
        """End without blocking the event loop, and even when the task is being cancelled."""
        import asyncio

        if self._claim():
            end = End(status, self._meter.answer(), error)
            await asyncio.shield(asyncio.to_thread(self._finish, end))
