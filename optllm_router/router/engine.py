"""What a router is composed of, and how long it lives.

The engine owns the client, the store, the background writer and the state that decisions are made
from; it reads requests, swaps the state when a new predictor is published, and closes everything.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optllm_router.completion.base import Client
from optllm_router.config import Config, budget_lines, build_policy, cap_lines
from optllm_router.core.embedding import Dense
from optllm_router.core.planning import LiveAim
from optllm_router.core.policy import Policy
from optllm_router.core.snapshot import Snapshot
from optllm_router.dispatch.calls import Desk
from optllm_router.dispatch.deciding import Decider, RouterState
from optllm_router.dispatch.embedding import (
    Read,
    are_looked_at,
    embeddings_from_config,
    foreign_to,
    with_embeddings,
)
from optllm_router.dispatch.journal import Journal
from optllm_router.dispatch.money import Money
from optllm_router.dispatch.policies import check_policy
from optllm_router.dispatch.prepare import prepare_batch
from optllm_router.dispatch.privacy import Privacy
from optllm_router.dispatch.requests import AUTO, Request, item_arguments, read_request
from optllm_router.dispatch.resuming import (
    HeldBatch,
    Interrupted,
    check_survival,
    hold_batch,
    request_keys,
)
from optllm_router.dispatch.traffic import Traffic
from optllm_router.dispatch.workers import BatchJob
from optllm_router.errors import ConfigError, RouterError, UnpricedCandidateError
from optllm_router.grading import Graders, graders_from_config
from optllm_router.learning import RetrainReport, load_current, load_version
from optllm_router.records import Candidate
from optllm_router.router.bookkeeping import look_after
from optllm_router.router.housekeeping import Housekeeper
from optllm_router.router.joining import Joins
from optllm_router.router.refitting import Refits
from optllm_router.router.store_thread import StoreThread
from optllm_router.store.background import BackgroundWriter
from optllm_router.store.ids import new_id
from optllm_router.store.sql import open_store

logger = logging.getLogger("optllm_router")

CLOSE_S = 5.0
FLUSH_S = 30.0
LONG_CHARACTERS = 10_000  # counting the tokens of so many takes some 2 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAsked:
    """A batch as a caller asks for it; see `Router.complete_batch`."""

    items: Sequence[Any]
    common: Mapping[str, Any]
    policy: Policy | None
    batch_id: str | None = None
    interrupted: Interrupted = "ask"


class Engine:
    """Composition and lifetime of one router; see the module's docstring.

    Raises: ConfigError, UnpricedCandidateError, StoreError; before any call is made.
    """

    def __init__(self, config: Config, client: Client | None) -> None:
        self.config = config
        self.client = client if client is not None else _litellm_client()
        known = _candidates(self.client, config)
        policy = build_policy(config)
        check_policy(policy, known)
        graders = graders_from_config(config.graders)
        self.embeddings = embeddings_from_config(config.embedder)
        self.store = open_store(config.store, durability=config.durability)
        try:
            self._assemble(known, policy, graders)
        except BaseException:
            self.store.close()
            raise

    def _assemble(self, known: tuple[Candidate, ...], policy: Policy, graders: Graders) -> None:
        """Make everything that needs the store."""
        config = self.config
        self.money = Money(
            self.store,
            lines=budget_lines(config),
            caps=cap_lines(config),
            policy=policy,
            reserve_timeout_s=config.calls.reserve_timeout_s,
        )
        self.writer = BackgroundWriter(self.store, capacity=100_000)
        self.desk = Desk(
            client=self.client,
            journal=Journal(self.store, self.writer),
            writer=self.writer,
            decider=Decider(self.client),
            graders=graders,
            traffic=Traffic(
                self.client,
                config.candidates,
                config.calls,
                clock=time.monotonic,
                rng=np.random.default_rng(),
            ),
            money=self.money,
        )
        self.state = RouterState(
            candidates=known,
            default=config.default,
            policy=policy,
            mode=config.mode,
            privacy=Privacy(config.prompts, config.feature_key),
            price_version=self.store.price_version({c.name: c.price for c in known}),
            min_labels=config.retrain.min_labels,
            search=config.search,
            snapshot=load_current(self.store),
            n_labels=self.store.n_graded(),
        )
        self._warn_of_foreign(self.state.snapshot)
        self.route_models = frozenset(config.route_models)
        self.housekeeper = Housekeeper(self._keep_house)
        self._bookkeeper = Housekeeper(self._keep_books)
        self._refits = Refits(self.store, config, self.embeddings)
        self._joins = Joins(self.store, config)
        self._warned_pins: set[str] = set()
        self._threads: dict[int, StoreThread] = {}
        self._jobs: dict[int, BatchJob] = {}
        self._swap = threading.Lock()
        self._closed = False
        self._is_warm = False
        self._prepare_aim(self.state)
        self._try_out(self._join)
        if self.money.ledger.worker:
            self._bookkeeper.ensure()

    def read(self, model: str | None, messages: Any, kwargs: Mapping[str, Any]) -> Request:
        """Read one call's arguments. Raises: ConfigError, RouterError once closed."""
        return self.embedded([self._read(model, messages, kwargs)])[0]

    def _read(self, model: str | None, messages: Any, kwargs: Mapping[str, Any]) -> Request:
        self._check_open()
        self.housekeeper.ensure()
        self._bookkeeper.ensure()
        request = read_request(
            model,
            messages,
            kwargs,
            route_models=self.route_models,
            shadow=self.state.mode == "shadow",
            count_tokens=self.client.count_tokens,
        )
        check_policy(request.policy, self.state.candidates)
        if not request.routed and request.requested not in self._warned_pins:
            self._warn_of_pin(request.requested)
        return request

    async def aread(self, model: str | None, messages: Any, kwargs: Mapping[str, Any]) -> Request:
        """Do what `read` does; on a thread where it takes long: the first time, and long texts."""
        import asyncio

        if self._is_warm and not _is_long(messages):
            request = self._read(model, messages, kwargs)
        else:
            request = await asyncio.to_thread(self._read_warming, model, messages, kwargs)
        if self.embeddings is None or not are_looked_at(self.state):
            return request
        return replace(request, embedding=await self.embeddings.of_one(request.query.text))

    def _read_warming(self, model: str | None, messages: Any, kwargs: Mapping[str, Any]) -> Request:
        if not self._is_warm:
            self.client.warm_up()
        request = self._read(model, messages, kwargs)
        if not self._is_warm:
            self._is_warm = True
            self._try_out(lambda: self.desk.decider.estimates(self.state, [request]))
        return request

    def read_item(self, item: Any, common: Mapping[str, Any]) -> Request:
        """Read one batch item, all but its embedding; its own arguments win over the common ones.

        Raises: ConfigError.
        """
        arguments = {**common, **item_arguments(item)}
        return self._read(arguments.pop("model", AUTO), arguments.pop("messages", None), arguments)

    def read_or_error(self, item: Any, common: Mapping[str, Any]) -> Request | Exception:
        """Read one batch item, or return what is wrong with it."""
        try:
            return self.read_item(item, common)
        except ConfigError as error:
            return error

    def embed(self, texts: Sequence[str]) -> list[Dense | None]:
        """Return the texts' embeddings; None where there is none, or nobody would look at it."""
        if self.embeddings is None or not are_looked_at(self.state):
            return [None] * len(texts)
        return self.embeddings.of(texts)

    def embedded(self, requests: Sequence[Read]) -> list[Read]:
        """Return requests with the embeddings of their texts; what is no request stays."""
        return list(requests) if self.embeddings is None else with_embeddings(requests, self.embed)

    def batch(self, asked: BatchAsked, advance: Callable[[], None]) -> BatchJob:
        """Read and plan a batch; one that survives is held from here on, until it is worked off.

        Raises: InfeasiblePolicyError before anything is spent; ConfigError, BatchBusyError.
        """
        self._check_open()
        check_policy(asked.policy, self.state.candidates)
        check_survival(asked.batch_id, asked.interrupted)
        read = [self.read_or_error(item, asked.common) for item in asked.items]
        requests = self.embedded(read)
        held = self._held(asked)
        try:
            return prepare_batch(
                self.desk.decider,
                self.state,
                requests,
                asked.policy,
                batch_id=new_id() if held is None else held.batch_id,
                on_done=advance,
                money=self.money,
                held=held,
            )
        except BaseException:
            if held is not None:
                held.close()
            raise

    def _held(self, asked: BatchAsked) -> HeldBatch | None:
        if asked.batch_id is None:
            return None
        keys = request_keys(asked.items, asked.common, self.config.feature_key)
        return hold_batch(self.store, self.client, asked.batch_id, keys, asked.interrupted)

    @contextmanager
    def working_off(self, job: BatchJob) -> Iterator[None]:
        """Have `close` stop a batch: it hands nothing more out, and what is left fails.

        Raises: RouterError once closed.
        """
        with nullcontext() if job.held is None else closing(job.held):
            with self._swap:
                self._check_open()
                self._jobs[id(job)] = job
            try:
                yield
            finally:
                del self._jobs[id(job)]
        if self._closed:
            job.results[:] = [_closed_error() if r is None else r for r in job.results]

    def store_thread(self) -> StoreThread:
        """The one thread of this process on which async calls use the store.

        Raises: RouterError once closed.
        """
        self._check_open()
        pid = os.getpid()
        if pid not in self._threads:
            with self._swap:
                self._threads.setdefault(pid, StoreThread())
        return self._threads[pid]

    def retrain(self) -> RetrainReport:
        """Refit on the log here and now, and take over what is published.

        Writes that cannot be waited for are left out; the report's reason counts them.
        """
        left = self.flush(FLUSH_S)
        report = self._refits.now(self.state.candidates)
        if left:
            report = replace(report, reason=f"{report.reason}; {left} writes are still waiting")
        self.take_over()
        return report

    def flush(self, timeout_s: float) -> int:
        """Wait for grading and late writes; return how many writes are still waiting."""
        left = self.writer.flush(timeout_s)
        if not left:
            self.count_labels()
        return left

    def close(self) -> int:
        """Write what waits and release everything; return how many writes were lost.

        New calls are refused from here on, batches hand out no more; calls in flight are written
        when they end.
        """
        with self._swap:
            if self._closed:
                return 0
            self._closed = True
            jobs = list(self._jobs.values())
        for job in jobs:
            job.stop()
        self.housekeeper.stop()
        self._bookkeeper.stop()
        left = self.writer.close(CLOSE_S)
        self.money.close()
        executor = self._threads.get(os.getpid())
        if executor is not None:
            executor.shutdown()
        self.store.close()
        return left

    def take_over(self) -> None:
        """Serve with the published predictor from the next call on."""
        version = self.store.current_predictor()
        if version == _version(self.state):
            return
        snapshot = load_version(self.store, version)
        if snapshot is None and self.state.snapshot is not None:
            return  # unreadable here, perhaps another version's: the one at hand still serves
        aims: dict[Policy, LiveAim] = {}
        self._prepare_aim(replace(self.state, snapshot=snapshot, aims=aims))
        with self._swap:
            self.state = replace(self.state, snapshot=snapshot, aims=aims)
        self._warn_of_foreign(snapshot)

    def _check_open(self) -> None:
        if self._closed:
            raise _closed_error()

    def _prepare_aim(self, state: RouterState) -> None:
        """Work out what the policy means for single requests, before one of them has to wait."""
        self._try_out(lambda: state.aim_of(state.policy))

    def _try_out(self, action: Callable[[], object]) -> None:
        """Do early what a decision will need; a decision guards itself against the same fault."""
        try:
            action()
        except Exception:
            self.desk.decider.n_faults += 1
            logger.exception("the router could not get ready; %s may answer", self.config.default)

    def count_labels(self) -> None:
        """Look up how many decisions are graded."""
        self._set_labels(self.store.n_graded())

    def learn_newcomers(self) -> None:
        """Take over candidates of which the published predictor has no label, but the log has."""
        self.count_labels()
        self._try_out(self._join)

    def _join(self) -> None:
        names = self._joins.when_due(self.state, self.state.n_labels)
        if names and not self._closed:
            message = f"joined the published predictor: {', '.join(names)}"
            self.writer.log_event("join", message, {"candidates": list(names)})
            self.take_over()

    def _warn_of_pin(self, name: str) -> None:
        self._warned_pins.add(name)
        if self.state.position(name) >= 0 and self.state.mode == "route":
            logger.warning(
                "%r names a candidate and was called as asked (a pin): pass model='auto', or add "
                "it to `route_models`, to have such calls routed",
                name,
            )

    def _warn_of_foreign(self, snapshot: Snapshot | None) -> None:
        remark = foreign_to(self.embeddings, snapshot)
        if remark is not None:
            logger.warning(remark)

    def _keep_house(self) -> None:
        """Take over a newly published predictor; join new candidates; refit when it is due."""
        self.take_over()
        n_graded = self.store.n_graded()
        self._set_labels(n_graded)
        self._join()
        report = self._refits.when_due(self.state, n_graded)
        if report is not None and not self._closed:
            self.writer.log_event("refit", report.reason, {"n_labels": report.n_labels})
            self.take_over()

    def _keep_books(self) -> None:
        look_after(self.money, self.state)

    def _set_labels(self, n_labels: int) -> None:
        with self._swap:
            if n_labels != self.state.n_labels:
                self.state = replace(self.state, n_labels=n_labels)


def _closed_error() -> RouterError:
    return RouterError("this router is closed and makes no more calls: make another `Router`")


def _is_long(messages: Any) -> bool:
    """Whether reading messages takes long; parts, which may hold images, count as long."""
    if not isinstance(messages, list | tuple):
        return False
    contents = [m.get("content") for m in messages if isinstance(m, Mapping)]
    lengths = (len(c) if isinstance(c, str) else LONG_CHARACTERS for c in contents if c)
    return sum(lengths) >= LONG_CHARACTERS


def _litellm_client() -> Client:
    from optllm_router.completion.litellm_client import LiteLLMClient

    return LiteLLMClient()


def _candidates(client: Client, config: Config) -> tuple[Candidate, ...]:
    """Describe the configured candidates. Raises: UnpricedCandidateError."""
    known = tuple(client.candidate(c.model, c.overrides()) for c in config.candidates)
    for candidate in known:
        if candidate.price is None and candidate.worst_case_nusd is None:
            raise UnpricedCandidateError(candidate.name)
    return known


def _version(state: RouterState) -> str | None:
    return state.snapshot.version if state.snapshot is not None else None
