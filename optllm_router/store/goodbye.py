"""The end of a process: what still waits to be written is written first.

Two ways out need care. At exit, also that of a `multiprocessing` child, a finaliser closes the
writer. On SIGTERM Python would die at once, so where nobody else handles it, we do: write what
waits, then die of the same signal, so that whoever sent it sees what they expect.
"""

from __future__ import annotations

import os
import signal
import threading
import weakref
from collections.abc import Callable
from multiprocessing.util import Finalize
from types import FrameType
from typing import Protocol

_TIMEOUT_S = 5.0


class Closeable(Protocol):
    """Something that holds writes which should not be lost."""

    def close(self, timeout_s: float = ...) -> int:
        """Write what waits; return how many writes were not done."""
        ...


def at_exit(writer: Closeable) -> Callable[[], None]:
    """Close the writer when this process exits; return what calls that off.

    By the finalisers of `multiprocessing`, because they run in its children, too, which skip
    `atexit`, and never in a process that merely was forked after they were made.
    """
    reference = weakref.ref(writer)

    def close() -> None:
        still_there = reference()
        if still_there is not None:
            still_there.close(_TIMEOUT_S)

    finaliser = Finalize(None, close, exitpriority=0)
    return finaliser.cancel


def on_sigterm(writer: Closeable) -> None:
    """Close the writer before SIGTERM ends this process, unless someone else handles SIGTERM.

    Only the main thread can ask for signals; made in another one, a writer relies on `at_exit`.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if isinstance(handler, _LastWrites):
        handler.writers.add(writer)
    elif handler is signal.SIG_DFL and _in_main_thread():
        signal.signal(signal.SIGTERM, _LastWrites(writer))


def off_sigterm(writer: Closeable) -> None:
    """Undo `on_sigterm`, with the last writer also the handler."""
    handler = signal.getsignal(signal.SIGTERM)
    if isinstance(handler, _LastWrites):
        handler.writers.discard(writer)
        if not handler.writers and _in_main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class _LastWrites:
    """The signal handler. It is itself where all writers of the process meet."""

    def __init__(self, writer: Closeable) -> None:
        self.writers: weakref.WeakSet[Closeable] = weakref.WeakSet([writer])

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Have another thread close the writers and send the signal again.

        Not this one: it was interrupted anywhere, perhaps holding the lock a writer waits for.
        A second signal ends the process at once.
        """
        del frame
        signal.signal(signum, signal.SIG_DFL)
        threading.Thread(target=self._close_and_end, args=(signum,), daemon=True).start()

    def _close_and_end(self, signum: int) -> None:
        try:
            for writer in list(self.writers):
                writer.close(_TIMEOUT_S)
        finally:
            os.kill(os.getpid(), signum)
