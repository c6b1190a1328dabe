"""What is asked, embedded by the user's embedder; its failure costs the embedding, no answer.

The embedder runs on a thread of its own, one call at a time. Texts that come meanwhile are embedded
together by its next call, so that many calls at once neither crowd it nor wait in a long line. The
thread starts with a text and ends when none is waiting. After `PATIENCE_S` a text goes on without:
and so does every other one, at once, until the embedder has come back. Where a call fails, its
texts are tried one by one: one of them may be at fault, and the others are perhaps somebody else's.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from optllm_router.core.embedding import Dense, Embedder, Encoder, embed
from optllm_router.core.snapshot import Snapshot
from optllm_router.dispatch.deciding import RouterState
from optllm_router.dispatch.requests import Request
from optllm_router.errors import ConfigError
from optllm_router.grading.functions import load_function

logger = logging.getLogger("optllm_router")

AT_ONCE = 32  # texts that one call of the embedder is given, at most
PATIENCE_S = 60.0
QUIET_S = 60.0  # from one message about missed texts to the next
FAILURES = 3  # texts of a failed call that fail in a row, after which it is the embedder's fault
_SAMPLE = ("a first text", "and another one")

Rows = list[Dense | None]
Read = TypeVar("Read", bound=Request | Exception)


@dataclass(slots=True, eq=False)
class _Asked:
    """A text, where its embedding will be, and whether there will be none."""

    text: str
    row: Future[Dense | None] = field(default_factory=Future)
    is_missed: bool = False

    def answer(self, row: Dense | None) -> None:
        """Only the first answer counts, and none where nobody waits any more."""
        with suppress(InvalidStateError):
            self.row.set_result(row)


class Embeddings:
    """Embeds texts for many threads and event loops; see the module's docstring.

    After a fork the child begins with nothing in line.

    Attributes:
        n_dimensions: how many numbers an embedding has, measured by two texts at the start.
        n_missed: texts that had to go on without an embedding.

    Raises: ConfigError where it cannot be called, or what it returns are no embeddings.
    """

    def __init__(self, embedder: Embedder | Encoder) -> None:
        self._embedder = embedder
        self.n_dimensions = _measured(embedder)
        self.n_missed = 0
        self._told_at = -math.inf
        self._begin()

    def of(self, texts: Sequence[str]) -> Rows:
        """Return the texts' embeddings, None where there is none, waiting for them."""
        found: Rows = []
        for start in range(0, len(texts), AT_ONCE):
            asked = self._ask(texts[start : start + AT_ONCE])
            wait([one.row for one in asked], PATIENCE_S)
            late = [one for one in asked if not one.row.done()]
            if late:
                self._go_on_without(late)
            found += [one.row.result() for one in asked]
        return found

    async def of_one(self, text: str) -> Dense | None:
        """Do what `of` does with one text, without blocking the event loop."""
        (asked,) = self._ask([text])
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked.row), PATIENCE_S)
        except TimeoutError:
            self._go_on_without([asked])
            return None

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Asked] = deque()
        self._is_working = False
        self._is_overdue = False
        self._pid = os.getpid()  # last: who sees it finds a lock that is this process's own

    def _ask(self, texts: Sequence[str]) -> list[_Asked]:
        """Put texts in line; while the embedder is overdue they are answered at once."""
        if self._pid != os.getpid():
            self._begin()
        asked = [_Asked(text) for text in texts]
        with self._lock:
            is_overdue, starts = self._is_overdue, not self._is_working
            if not is_overdue:
                self._waiting.extend(asked)
                self._is_working = True
        if is_overdue:
            self._miss(asked, logger.error, "the embedder has not come back")
        elif starts:
            self._start()
        return asked

    def _start(self) -> None:
        try:
            threading.Thread(target=self._work, name="optllm-embedder", daemon=True).start()
        except RuntimeError:  # late in an exit, when no thread can start
            self._work()

    def _work(self) -> None:
        while taken := self._take():
            if not self._embed(taken):
                self._embed_singly(taken)

    def _take(self) -> list[_Asked]:
        """Take what waits, as much as one call is given; end where nothing does."""
        with self._lock:
            self._is_overdue = False
            n_taken = min(len(self._waiting), AT_ONCE)
            self._is_working = n_taken > 0
            return [self._waiting.popleft() for _ in range(n_taken)]

    def _embed(self, taken: Sequence[_Asked]) -> bool:
        """Call the embedder; return False where it fails on several texts."""
        try:
            rows = embed(self._embedder, [one.text for one in taken], self.n_dimensions)
        except BaseException:  # noqa: BLE001  # on a thread of ours, where nobody could catch it
            if len(taken) == 1:
                self._miss(taken, logger.exception, "the embedder failed")
            return len(taken) == 1
        for one, row in zip(taken, rows, strict=True):
            one.answer(row)
        return True

    def _embed_singly(self, taken: Sequence[_Asked]) -> None:
        """Call the embedder with one text at a time, until `FAILURES` of them fail in a row."""
        n_failed = 0
        for place, one in enumerate(taken):
            if one.row.done():
                continue
            self._embed([one])
            n_failed = n_failed + 1 if one.is_missed else 0
            if n_failed == FAILURES:
                self._miss(taken[place + 1 :], logger.error, "the embedder failed")
                return

    def _go_on_without(self, late: Sequence[_Asked]) -> None:
        """Have these texts, and all that wait in line, go on without embeddings."""
        with self._lock:
            self._is_overdue = self._is_working
            missed = dict.fromkeys([*late, *self._waiting])
            self._waiting.clear()
        self._miss(list(missed), logger.error, f"the embedder took more than {PATIENCE_S:g} s")

    def _miss(self, missed: Sequence[_Asked], tell: Callable[..., Any], what: str) -> None:
        """Answer and count texts that go on without an embedding; say so now and then."""
        with self._lock:
            new = [one for one in missed if not one.is_missed]
            for one in new:
                one.is_missed = True
            self.n_missed += len(new)
            is_quiet = not new or time.monotonic() < self._told_at + QUIET_S
            if not is_quiet:
                self._told_at = time.monotonic()
        if not is_quiet:
            tell(
                "%s: queries go on without embeddings, %d so far (said at most once in %g s)",
                what,
                self.n_missed,
                QUIET_S,
            )
        for one in missed:
            one.answer(None)


def embeddings_from_config(setting: Any) -> Embeddings | None:
    """Return what embeds texts as a config says, by an object or a path; None for none.

    Raises: ConfigError where the path cannot be imported, or see `Embeddings`.
    """
    if setting is None:
        return None
    try:
        return Embeddings(_imported(setting) if isinstance(setting, str) else setting)
    except ConfigError as error:
        raise ConfigError(f"`embedder`: {error}") from error


def are_looked_at(state: RouterState) -> bool:
    """Whether embeddings are of use: the log keeps them, or the predictor was fitted on some."""
    return state.privacy.keeps_features or _fitted(state.snapshot) > 0


def with_embeddings(
    requests: Sequence[Read], embed: Callable[[Sequence[str]], Sequence[Dense | None]]
) -> list[Read]:
    """Return requests with the embeddings of their texts; what is no request stays."""
    read = [request for request in requests if isinstance(request, Request)]
    found = iter(embed([request.query.text for request in read]))
    return [
        replace(request, embedding=next(found)) if isinstance(request, Request) else request
        for request in requests
    ]


def foreign_to(embeddings: Embeddings | None, snapshot: Snapshot | None) -> str | None:
    """Return why the published predictor misses the embeddings that it was fitted on.

    None where it does not, also where it was fitted on none.
    """
    fitted = _fitted(snapshot)
    if embeddings is None and fitted:
        return (
            "the published predictor was fitted on embeddings, but no `embedder` is set: to it "
            "every query counts as an average one. Set it again, or `retrain` without"
        )
    if embeddings is not None and fitted not in (0, embeddings.n_dimensions):
        return (
            f"the published predictor was fitted on embeddings of {fitted} dimensions, those of "
            f"`embedder` have {embeddings.n_dimensions}: to it every query counts as an average "
            "one, until a refit learns from the new ones"
        )
    return None


def _fitted(snapshot: Snapshot | None) -> int:
    return 0 if snapshot is None else snapshot.predictor.n_dimensions_


def _imported(path: str) -> Any:
    try:
        return load_function(path)
    except ConfigError:
        raise
    except Exception as error:  # the user's module may do anything, such as load a model
        raise ConfigError(
            f"importing {path!r} failed ({type(error).__name__}: {error}): mend its module; a "
            "model has to be on this machine already"
        ) from error


def _measured(embedder: Embedder | Encoder) -> int:
    """How many dimensions its embeddings have. Raises: ConfigError."""
    try:
        rows = _on_a_thread(lambda: embed(embedder, _SAMPLE))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{embedder!r} fails on {len(_SAMPLE)} short texts ({type(error).__name__}: {error}): "
            "it is called with a list of texts and returns an array (n_texts, n_dimensions)"
        ) from error
    sizes = [row.size for row in rows if row is not None]
    if len(sizes) < len(_SAMPLE):
        raise ConfigError(f"{embedder!r} returns zeros for {_SAMPLE!r}: they have no direction")
    return sizes[0]


def _on_a_thread(work: Callable[[], Rows]) -> Rows:
    """Do work where it will be done in service: an embedder may be bound to its own thread."""
    rows: Future[Rows] = Future()

    def run() -> None:
        try:
            rows.set_result(work())
        except BaseException as error:  # noqa: BLE001  # whoever waits for the rows gets it
            rows.set_exception(error)

    threading.Thread(target=run, name="optllm-embedder", daemon=True).start()
    return rows.result()
