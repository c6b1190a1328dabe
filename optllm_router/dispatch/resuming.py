"""Batches that survive their process: what earlier runs answered, and a place for each answer.

Whoever works on such a batch holds it under a lease (see `store.batches`), which a thread renews.
Every item is claimed on disk before it is asked, and its answer is written in the transaction that
completes its call. So the next run finds three kinds of items: answered ones, whose answers are
returned as they were; failed ones and those never asked, which are asked; and those that were being
asked when the run before ended, whose calls are settled at their forecast.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

from optllm_router.completion.base import Client, Response
from optllm_router.dispatch.notes import annotate
from optllm_router.dispatch.requests import AUTO, CREDENTIALS, OWN_ARGUMENTS, item_arguments
from optllm_router.errors import BatchBusyError, ConfigError, ItemInterruptedError, StoreError
from optllm_router.records import CapLine
from optllm_router.store.base import BatchItem, LoggedBatch, Store
from optllm_router.store.batches import KEY_BYTES, LEASE_S
from optllm_router.store.ids import new_id

logger = logging.getLogger("optllm_router")

Interrupted: TypeAlias = Literal["ask", "skip"]

RENEW_S = LEASE_S / 4
POLL_S = 0.1
MAX_NAME = 5_000  # `optllm run` names batches after files
_NOT_ASKED = frozenset((*OWN_ARGUMENTS, *CREDENTIALS))  # beside the question


@dataclass(frozen=True, slots=True)
class Place:
    """Where one item of a batch that survives keeps its answer."""

    batch_id: str
    item: int
    owner: str

    def claimed(self, decision_id: str) -> BatchItem:
        """The item as its call begins."""
        return BatchItem(
            batch_id=self.batch_id,
            item=self.item,
            decision_id=decision_id,
            status="open",
            owner=self.owner,
        )

    def failed(self, decision_id: str, error: BaseException) -> BatchItem | None:
        """The item as its call fails; None where it was cut off, which leaves it under way."""
        if not isinstance(error, Exception):
            return None
        return BatchItem(
            batch_id=self.batch_id, item=self.item, decision_id=decision_id, status="failed"
        )

    def answered(
        self, client: Client, response: Response, facts: Mapping[str, object]
    ) -> BatchItem | None:
        """The item with its answer; None for one that cannot be kept, which is asked again."""
        try:
            values = client.dump(response)
        except Exception:
            logger.exception("an answer of the batch %r cannot be kept", self.batch_id)
            return None
        return BatchItem(
            batch_id=self.batch_id,
            item=self.item,
            decision_id=str(facts["decision_id"]),
            status="answered",
            answer={"response": values, "facts": facts},
        )


class HeldBatch:
    """A batch that this run works on, and nobody else, until it is closed (or forgotten).

    Attributes:
        known: what stands in the results already: answers, and errors of items left out.
        spent_nusd: what earlier runs spent.
    """

    def __init__(self, store: Store, batch_id: str, owner: str) -> None:
        self.batch_id = batch_id
        self.known: Mapping[int, Any] = {}
        self.spent_nusd = 0
        self._began_at: datetime | None = None
        self._store = store
        self._owner = owner
        over = threading.Event()
        self._over = weakref.finalize(self, over.set)
        self._renewing = threading.Thread(
            target=_renew, args=(store, batch_id, owner, over), name="optllm-batch", daemon=True
        )
        self._renewing.start()

    def look_up(self, client: Client, keys: bytes, interrupted: Interrupted) -> None:
        """Read what earlier runs left. Raises: ConfigError where they asked something else."""
        batch = self._store.batch(self.batch_id)
        if batch is None:
            raise BatchBusyError(
                f"the batch {self.batch_id!r} was forgotten in this moment: begin it anew",
                batch_id=self.batch_id,
            )
        _check_same(batch, keys)
        self.spent_nusd, self._began_at = batch.spent_nusd, batch.created_at
        self.known = _known(client, self._store.batch_items(self.batch_id), interrupted)

    def spent_under(self, line: CapLine) -> int:
        """Return what earlier runs spent on calls that a cap binds, in nano-USD."""
        if line.scope == "all":
            return self.spent_nusd
        found = self._store.summary(line.scope, since=self._began_at, batch_id=self.batch_id)
        return sum(row.cost_nusd for row in found if row.key == line.value)

    def place(self, item: int) -> Place:
        """Return where an item keeps its answer."""
        return Place(self.batch_id, item, self._owner)

    def close(self) -> None:
        """Let the next run begin at once."""
        self._over()
        self._renewing.join()


def _renew(store: Store, batch_id: str, owner: str, over: threading.Event) -> None:
    """Renew a lease until it is over, then end it."""
    is_mine = True
    while is_mine and not over.wait(RENEW_S):
        try:
            is_mine = store.renew_batch(batch_id, owner=owner)
        except StoreError as error:
            logger.warning("the batch %r may be lost: %s", batch_id, error)
    try:
        store.release_batch(batch_id, owner=owner)
    except StoreError as error:
        logger.warning("the batch %r is free in %.0f s: %s", batch_id, LEASE_S, error)


def check_survival(batch_id: object, interrupted: object) -> None:
    """Refuse a name that is none, and an unknown way with lost calls. Raises: ConfigError."""
    if batch_id is not None and (
        not isinstance(batch_id, str) or not batch_id.strip() or len(batch_id) > MAX_NAME
    ):
        raise ConfigError(
            f"`batch_id={batch_id!r}` is no name for a batch: pass a text of 1 to {MAX_NAME} "
            "characters, the same one to go on"
        )
    if interrupted not in get_args(Interrupted):
        raise ConfigError(
            f"`interrupted={interrupted!r}` is not known: 'ask' asks again what was being asked "
            "when the run before ended, 'skip' puts an error in its place"
        )


def request_keys(items: Sequence[Any], common: Mapping[str, Any], key: bytes) -> bytes:
    """Return keyed hashes of what a batch asks, 16 bytes per item, in order.

    What is beside the question (tags, session, policy, task, reference, credentials) is left out.
    """
    return b"".join(_request_key(item, common, key) for item in items)


def hold_batch(
    store: Store, client: Client, batch_id: str, keys: bytes, interrupted: Interrupted
) -> HeldBatch:
    """Take a batch for this run; waits for the lease of one that was killed.

    Raises: ConfigError where its requests are not `keys`; BatchBusyError where another run is
    working on it.
    """
    owner = new_id()
    _take(store, batch_id, owner, keys)
    held = HeldBatch(store, batch_id, owner)
    try:
        held.look_up(client, keys, interrupted)
    except BaseException:
        held.close()
        raise
    return held


def _take(store: Store, batch_id: str, owner: str, keys: bytes) -> None:
    """Wait until the batch is free. A lease that is renewed meanwhile has an owner who lives."""
    seen: float | None = None
    while not store.hold_batch(batch_id, owner=owner, request_keys=keys):
        batch = store.batch(batch_id)
        if batch is None or not batch.is_held:
            continue
        if seen is not None and batch.alive_until != seen:
            raise BatchBusyError(
                f"another run is working on the batch {batch_id!r}: wait for it to end, or give "
                "this one a `batch_id` of its own",
                batch_id=batch_id,
            )
        if seen is None:
            logger.warning(
                "the batch %r is another run's: waiting up to %.0f s to see whether that one lives",
                batch_id,
                LEASE_S,
            )
        seen = batch.alive_until
        time.sleep(POLL_S)


def _check_same(batch: LoggedBatch, keys: bytes) -> None:
    """Refuse requests that are not those that the batch was begun with. Raises: ConfigError."""
    if batch.request_keys == keys:
        return
    n_now = len(keys) // KEY_BYTES
    wrong = _first_difference(batch.request_keys, keys)
    what = (
        f"item {wrong} is not the request that stood there when it began"
        if wrong < min(n_now, batch.n_items)
        else f"it has {n_now:,} requests, and began with {batch.n_items:,}"
    )
    raise ConfigError(
        f"the batch {batch.id!r} cannot go on: {what}. Pass the same requests in the same order "
        "(and the same `OPTLLM_FEATURE_KEY`), or another `batch_id`; `optllm forget --batch` lets "
        "it begin anew"
    )


def _first_difference(before: bytes, now: bytes) -> int:
    places = range(0, min(len(before), len(now)), KEY_BYTES)
    differ = (at for at in places if before[at : at + KEY_BYTES] != now[at : at + KEY_BYTES])
    return next(differ, len(places) * KEY_BYTES) // KEY_BYTES


def _known(
    client: Client, items: Collection[BatchItem], interrupted: Interrupted
) -> dict[int, Any]:
    """Return what stands in the results already."""
    known: dict[int, Any] = {}
    for item in items:
        if item.status == "answered" and item.answer is not None:
            response = client.restore(item.answer["response"])
            annotate(response, item.answer["facts"])
            known[item.item] = response
        elif item.status == "open" and interrupted == "skip":
            known[item.item] = _left_behind(item)
    return known


def _left_behind(item: BatchItem) -> ItemInterruptedError:
    return ItemInterruptedError(
        f"item {item.item} of the batch {item.batch_id!r} was being asked when an earlier run "
        f"ended: its call {item.decision_id} is in the log at its forecast. "
        "`interrupted='ask'` asks it again",
        batch_id=item.batch_id,
        item=item.item,
        decision_id=item.decision_id,
    )


def _request_key(item: object, common: Mapping[str, Any], key: bytes) -> bytes:
    try:
        arguments = {**common, **item_arguments(item)}
    except ConfigError:  # its error stands in its place
        arguments = {"item": item}
    asked = {
        name: value
        for name, value in arguments.items()
        if value is not None and name not in _NOT_ASKED
    }
    asked.setdefault("model", AUTO)
    try:
        text = json.dumps(asked, sort_keys=True, default=_plain)
    except (TypeError, ValueError, RecursionError):
        text = ""  # nothing that could be sent
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES, key=key[:64]).digest()


def _plain(value: Any) -> Any:
    """Return what stands for an object in a hash: the same in every process."""
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return list(value)
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump is not None else type(value).__qualname__
