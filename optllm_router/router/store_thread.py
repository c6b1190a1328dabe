"""The one thread on which async calls use the store, and what stands in for it once it is shut."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from typing_extensions import override

P = ParamSpec("P")
T = TypeVar("T")


class StoreThread(Executor):
    """Does work on one thread; after `shutdown`, each piece on a thread of its own.

    A call that is in flight when its router is closed has been paid for: it can still be written.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="optllm-store")

    @override
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have `fn` called; late in an exit, when no thread can start, by the caller itself."""
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except RuntimeError:  # shut, by `close` or by the end of the interpreter
            return _on_its_own(lambda: fn(*args, **kwargs))

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the thread, after what it has been given already."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


def _on_its_own(work: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  # whoever waits for the future gets it
            future.set_exception(error)

    try:
        threading.Thread(target=run, name="optllm-store-late").start()
    except RuntimeError:
        run()
    return future
