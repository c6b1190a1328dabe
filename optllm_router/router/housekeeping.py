"""What a router does in the background: take over new predictors, join and refit when it is time.

One daemon thread, started with the first call and again after a fork. Every few seconds it looks
whether another predictor has been published (by this process or another one that shares the
store), whether a new candidate can join it (see `joining`), and whether a refit is due, which runs
in a child process (see `refitting`).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from weakref import WeakMethod

logger = logging.getLogger("optllm_router")

POLL_S = 2.0
STOP_S = 1.0


class Housekeeper:
    """Calls `work` every few seconds on a daemon thread, once `ensure` has been called.

    `work` is a method that is held weakly: a router that nobody holds takes its thread along.
    """

    def __init__(self, work: Callable[[], None], *, poll_s: float = POLL_S) -> None:
        self._work = WeakMethod(work)
        self._poll_s = poll_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pid = 0
        self._thread: threading.Thread | None = None

    def ensure(self) -> None:
        """Start the thread in this process unless it runs or was stopped."""
        if self._pid == os.getpid() or self._stop.is_set():
            return
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._stop = threading.Event()  # a forked one may be locked for ever
                self._thread = threading.Thread(
                    target=_keep, args=(self._work, self._stop, self._poll_s), daemon=True
                )
                self._thread.name = "optllm-housekeeping"
                self._thread.start()

    def stop(self) -> None:
        """End the thread; a refit under way is not waited for."""
        self._stop.set()
        thread = self._thread
        ours = self._pid == os.getpid() and thread is not threading.current_thread()
        if thread is not None and ours:
            thread.join(STOP_S)


def _keep(work: WeakMethod[Callable[[], None]], stop: threading.Event, poll_s: float) -> None:
    while not stop.wait(poll_s):
        act = work()
        if act is None:
            return
        try:
            act()
        except Exception:
            logger.exception("background work failed; serving goes on with the old predictor")
        del act
