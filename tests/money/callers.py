"""What callers do with a call and its answer: read it, leave it, give up, blocking and awaited.

`SYNC` and `ASYNC` name the kinds, with how often they come. Each returns in words how it ended;
"left" where its caller did not wait for the end.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from optllm_router import Router

_took_s = deque([0.05], maxlen=100)  # of the last awaited answers


@dataclass(frozen=True)
class Call:
    """One call to make: how, with which arguments, and the dice for what its caller does then."""

    key: str
    kind: str
    arguments: dict[str, Any]
    dice: random.Random


Sync = Callable[[Router, Call], str]
Async = Callable[[Router, Call], Awaitable[str]]


# -- what callers do, blocking -----------------------------------------------------------


def _ask(router: Router, call: Call) -> str:
    answer = router.complete(**call.arguments)
    return f"answered by {answer._hidden_params['optllm']['candidate']}"


def _ask_twice(router: Router, call: Call) -> str:
    _ask(router, call)
    time.sleep(0.02)
    answer = router.complete(**call.arguments)
    return "cached" if answer._hidden_params.get("cache_hit") else "asked twice"


def _open(router: Router, call: Call) -> Any:
    return router.complete(stream=True, **call.arguments)


def _read(router: Router, call: Call) -> str:
    list(_open(router, call))
    return "read"


def _read_some(stream: Any, call: Call) -> str:
    """Read a few chunks of a stream; return what shows that it was not read to its end."""
    for _ in range(call.dice.randint(0, 12)):
        if next(stream, None) is None:
            return "read"
    return "left"


def _drop(router: Router, call: Call) -> str:
    stream = _open(router, call)
    end = _read_some(stream, call)
    del stream
    return end


def _close(router: Router, call: Call) -> str:
    stream = _open(router, call)
    end = _read_some(stream, call)
    stream.close()
    return end


def _relay(router: Router, call: Call) -> str:
    def relay() -> Iterator[Any]:
        yield from _open(router, call)

    relayed = relay()
    end = _read_some(relayed, call)
    relayed.close()
    return end


# -- what callers do, awaited ------------------------------------------------------------


async def _aask(router: Router, call: Call) -> str:
    start = time.perf_counter()
    answer = await router.acomplete(**call.arguments)
    _took_s.append(time.perf_counter() - start)
    return f"answered by {answer._hidden_params['optllm']['candidate']}"


def _soon_s(call: Call) -> float:
    """A moment to give up at, before or after an answer may be expected."""
    return call.dice.uniform(0.0, 1.5) * statistics.median(_took_s)


def _cancelled(act: Async) -> Async:
    """Have somebody who asks give up in the midst of it."""

    async def cancel(router: Router, call: Call) -> str:
        task = asyncio.ensure_future(act(router, call))
        await asyncio.sleep(_soon_s(call))
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return "left"

    return cancel


async def _await_a_while(router: Router, call: Call) -> str:
    try:
        return await asyncio.wait_for(_aask(router, call), _soon_s(call))
    except TimeoutError:
        return "left"


async def _aopen(router: Router, call: Call) -> Any:
    return await router.acomplete(stream=True, **call.arguments)


async def _aread(router: Router, call: Call) -> str:
    async for _ in await _aopen(router, call):
        pass
    return "read"


async def _aread_some(stream: Any, call: Call) -> str:
    for _ in range(call.dice.randint(0, 12)):
        if await anext(stream, None) is None:
            return "read"
    return "left"


async def _adrop(router: Router, call: Call) -> str:
    stream = await _aopen(router, call)
    end = await _aread_some(stream, call)
    del stream
    return end


async def _aclose(router: Router, call: Call) -> str:
    stream = await _aopen(router, call)
    end = await _aread_some(stream, call)
    await stream.aclose()
    return end


SYNC: dict[str, tuple[float, Sync]] = {
    "sync": (20, _ask),
    "sync, pin": (6, _ask),
    "sync, n > 1": (3, _ask),
    "sync, hurried": (2, _ask),
    "sync, tight budget": (2, _ask),
    "sync, cache": (2, _ask_twice),
    "stream": (10, _read),
    "stream, pin": (2, _read),
    "stream, n > 1": (2, _read),
    "stream, cache": (1, _read),
    "stream, del": (2, _drop),
    "stream, close": (2, _close),
    "stream, generator closed": (2, _relay),
}
ASYNC: dict[str, tuple[float, Async]] = {
    "async": (20, _aask),
    "async, pin": (5, _aask),
    "async, n > 1": (2, _aask),
    "async, tight budget": (1, _aask),
    "async, cancelled": (3, _cancelled(_aask)),
    "async, wait_for": (2, _await_a_while),
    "async stream": (10, _aread),
    "async stream, pin": (2, _aread),
    "async stream, del": (2, _adrop),
    "async stream, aclose": (2, _aclose),
    "async stream, cancelled": (3, _cancelled(_aread)),
}
