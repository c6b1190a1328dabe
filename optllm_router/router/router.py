"""The object that people put where `litellm.completion` was: composition and lifetime only.

Every method here reads its arguments, calls the rooms below, and returns what they give. Sync and
async methods differ in nothing but the shell that acts a call's conversation out.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from optllm_router.completion.base import Client, Messages, Response
from optllm_router.config import CandidateSettings, Config, build_policy, load_config, make_config
from optllm_router.core.planning import Plan
from optllm_router.core.policy import Policy
from optllm_router.dispatch.calls import Desk, Task
from optllm_router.dispatch.deciding import Decider, RouterState
from optllm_router.dispatch.effects import arun, run
from optllm_router.dispatch.importing import import_table
from optllm_router.dispatch.journal import Journal
from optllm_router.dispatch.prepare import plan_requests, prepare_batch
from optllm_router.dispatch.privacy import Privacy
from optllm_router.dispatch.probing import ProbeReport, ProbeTally, probe_tasks
from optllm_router.dispatch.requests import AUTO, Request, item_arguments, read_request
from optllm_router.dispatch.workers import BatchJob, arun_batch, run_batch
from optllm_router.errors import ConfigError, NotTrainedError, UnpricedCandidateError
from optllm_router.grading import Grader, as_grader, check_score, graders_from_config
from optllm_router.history import History
from optllm_router.learning import RefitSettings, RetrainReport, load_current, refit, refit_in_child
from optllm_router.outcomes import ImportReport
from optllm_router.records import Candidate, Outcome
from optllm_router.router import reports
from optllm_router.router.housekeeping import Housekeeper, RefitClock
from optllm_router.router.progress import progress_bar
from optllm_router.router.signatures import ACOMPLETION, BATCH_COMPLETION, COMPLETION, by_name
from optllm_router.store.background import BackgroundWriter
from optllm_router.store.ids import new_id
from optllm_router.store.sql import open_store

logger = logging.getLogger("optllm_router")

FEEDBACK = "feedback"


class Router:
    """Routes every call to the candidate that the policy wants, and keeps the books.

    Args:
        candidates: the LLMs to choose from: LiteLLM model names, dicts, or `CandidateSettings`.
        default: the candidate that answers while nothing is learned, and when we cannot decide;
            may be left out where there is only one candidate.
        config: a ready `Config`, instead of everything else but `client`.
        client: who answers; LiteLLM where it is not given.
        settings: every other key of `optllm.toml` (`policy`, `store`, `route_models`, `mode`,
            `prompts`, `retrain`, `graders`, ...).

    Raises: ConfigError, UnpricedCandidateError, StoreError; before any call is made.
    """

    def __init__(
        self,
        candidates: Sequence[str | Mapping[str, Any] | CandidateSettings] | None = None,
        *,
        default: str | None = None,
        config: Config | None = None,
        client: Client | None = None,
        **settings: Any,
    ) -> None:
        if config is None:
            config = make_config(candidates=candidates, default=default, **settings)
        self.config = config
        self._client = client if client is not None else _litellm_client()
        known = _candidates(self._client, config)
        policy = build_policy(config)
        self._store = open_store(config.store, durability=config.durability)
        self._writer = BackgroundWriter(self._store, capacity=100_000)
        self._desk = Desk(
            client=self._client,
            journal=Journal(self._store, self._writer),
            writer=self._writer,
            decider=Decider(self._client),
            graders=graders_from_config(config.graders),
        )
        self._state = RouterState(
            candidates=known,
            default=config.default,
            policy=policy,
            mode=config.mode,
            privacy=Privacy(config.prompts, config.feature_key),
            price_version=self._store.price_version({c.name: c.price for c in known}),
            min_labels=config.retrain.min_labels,
            snapshot=load_current(self._store),
            n_labels=self._store.n_graded(),
        )
        self._routed = frozenset(config.route_models)
        self._clock = RefitClock(
            every_outcomes=config.retrain.every_outcomes,
            every_s=config.retrain.every_s,
            min_labels=config.retrain.min_labels,
        )
        self._housekeeper = Housekeeper(self._keep_house)
        self._warned_pins: set[str] = set()
        self._threads: dict[int, ThreadPoolExecutor] = {}
        self._swap = threading.Lock()
        self._closed = False

    @classmethod
    def from_config(cls, path: str | Path = "optllm.toml", **overrides: Any) -> Self:
        """Build a router from a config file; `overrides` win over it. Raises: ConfigError."""
        client = overrides.pop("client", None)
        return cls(config=load_config(path, **overrides), client=client)

    # -- one call ---------------------------------------------------------------------------

    def complete(
        self, model: str | None = AUTO, messages: Messages | None = None, **kwargs: Any
    ) -> Response:
        """Answer one request: what `litellm.completion` does, by the candidate that fits best.

        Args:
            model: "auto" or a name of `route_models` is routed; any other name is a pin.
            messages: as for LiteLLM.
            kwargs: LiteLLM's arguments; None means unset. Our own: `task`, `policy`, `tags`,
                `session_id`, `reference`.

        Returns: LiteLLM's response (or stream), with our facts in `_hidden_params["optllm"]`.

        Raises: ConfigError, NoCandidateError, BudgetExceededError before anything is spent;
            otherwise LiteLLM's own exceptions, with `.optllm_attempts`.
        """
        task = Task(self._read(model, messages, kwargs))
        return run(self._desk.converse(self._state, task), self._client)

    async def acomplete(
        self, model: str | None = AUTO, messages: Messages | None = None, **kwargs: Any
    ) -> Response:
        """Do what `complete` does without blocking the event loop."""
        task = Task(self._read(model, messages, kwargs))
        return await arun(
            self._desk.converse(self._state, task), self._client, self._store_thread()
        )

    def completion(self, *args: Any, **kwargs: Any) -> Response:
        """`complete` under the signature of `litellm.completion`."""
        return self.complete(**by_name(COMPLETION, args, kwargs))

    async def acompletion(self, *args: Any, **kwargs: Any) -> Response:
        """`acomplete` under the signature of `litellm.acompletion`."""
        return await self.acomplete(**by_name(ACOMPLETION, args, kwargs))

    # -- batches ----------------------------------------------------------------------------

    def complete_batch(
        self,
        requests: Sequence[Any],
        *,
        policy: Policy | None = None,
        concurrency: int = 16,
        progress: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Answer a batch under one policy: planned as a whole, re-planned as money is spent.

        Args:
            requests: texts, message lists, or dicts of `complete` arguments.
            policy: replaces the configured one; a `Budget` per batch is also a hard cap.
            concurrency: calls at the same time, at least 1.
            progress: draw a progress bar on standard error.
            kwargs: arguments of every item; an item's own win.

        Returns: answers in order; a failed item's exception stands in its place.

        Raises: InfeasiblePolicyError before anything is spent.
        """
        with progress_bar(len(requests), "calls", show=progress) as advance:
            job = self._batch(requests, policy, kwargs, advance)
            return run_batch(self._desk, job, _checked_concurrency(concurrency))

    async def acomplete_batch(
        self,
        requests: Sequence[Any],
        *,
        policy: Policy | None = None,
        concurrency: int = 16,
        progress: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Do what `complete_batch` does without blocking the event loop."""
        import asyncio

        concurrency = _checked_concurrency(concurrency)
        with progress_bar(len(requests), "calls", show=progress) as advance:
            job = await asyncio.to_thread(self._batch, requests, policy, kwargs, advance)
            return await arun_batch(self._desk, job, concurrency, self._store_thread())

    def batch_completion(self, *args: Any, **kwargs: Any) -> list[Any]:
        """`complete_batch` under the signature of `litellm.batch_completion`."""
        given = by_name(BATCH_COMPLETION, args, kwargs)
        workers = int(given.pop("max_workers", None) or 16)
        messages = given.pop("messages", None) or []
        return self.complete_batch(
            [{"messages": list(item)} for item in messages], concurrency=workers, **given
        )

    def plan(
        self, requests: Sequence[Any], *, policy: Policy | None = None, **kwargs: Any
    ) -> Plan:
        """Decide a batch and spend nothing.

        Raises: NotTrainedError before the first fit, NoCandidateError, InfeasiblePolicyError.
        """
        read = [self._read_item(item, kwargs) for item in requests]
        return plan_requests(self._desk.decider, self._state, read, policy)

    # -- learning ---------------------------------------------------------------------------

    def feedback(self, reference: Any, score: float, *, source: str = FEEDBACK) -> bool:
        """Say how good an answer was; may come days later, and again with another score.

        Args:
            reference: the response (or stream), a decision id, or the response's own id.
            score: in [0, 1]; True and False are 1 and 0.

        Returns: whether anything changed.

        Raises: ValueError for a score outside [0, 1], UnknownDecisionError.
        """
        outcome = Outcome(
            decision_id=self._store.find(_reference(reference)),
            score=check_score(score),
            source=source,
            created_at=datetime.now(tz=UTC),
        )
        changed = self._store.add_outcomes([outcome]) > 0
        self._count_labels()
        self._housekeeper.ensure()
        return changed

    def probe(
        self,
        queries: Sequence[Any],
        references: Sequence[Any] | None = None,
        *,
        tasks: Sequence[str] | None = None,
        grader: Grader | Any = None,
        concurrency: int = 16,
        progress: bool = False,
        **kwargs: Any,
    ) -> ProbeReport:
        """Ask every candidate about every query, grade and log: a labelled sample, for money.

        Args:
            queries: as for `complete_batch`.
            references: what graders compare with, one per query.
            tasks: one per query.
            grader: grades these answers instead of the task's configured grader; a function
                (text, reference) -> score is fine.
        """
        requests = self._probe_requests(queries, references, tasks, kwargs)
        tally = ProbeTally()
        work = probe_tasks(
            self._state,
            requests,
            tally,
            grader=None if grader is None else as_grader(grader),
            batch_id=new_id(),
        )
        with progress_bar(len(work), "probes", show=progress) as advance:
            job = BatchJob.of_tasks(self._state, work, advance)
            results = run_batch(self._desk, job, _checked_concurrency(concurrency))
        self.flush()
        n_skipped = len(requests) * len(self._state.candidates) - len(work)
        return tally.report(len(requests), n_skipped, results)

    def import_outcomes(self, path: str | Path) -> ImportReport:
        """Take the user's own labels (query, model, score, ...) into the log, all or nothing read.

        Importing the same file again changes nothing. Raises: ConfigError for a file with errors.
        """
        report = import_table(
            path, self._store, self._state, count_text=self._client.count_text
        )
        self._count_labels()
        return report

    def retrain(self) -> RetrainReport:
        """Refit on the log, and publish the result unless it is worse; takes over what is new."""
        self.flush()
        settings = self._refit_settings()
        report = refit(self._store, self._state.candidates, settings)
        self._clock.tried(self._store.n_graded())
        self._take_over()
        return report

    # -- looking ----------------------------------------------------------------------------

    def front(self) -> reports.PublishedFront:
        """Return the front of recent traffic. Raises: NotTrainedError before the first fit."""
        snapshot = self._state.snapshot
        if snapshot is None:
            raise NotTrainedError(
                f"{self._state.unfit_reason}: there is no front yet; probe, give feedback or "
                "import outcomes, then `retrain`",
                n_labels=self._state.n_labels,
                min_labels=self._state.min_labels,
            )
        return reports.published_front(snapshot)

    def explain(
        self, text: str | None = None, *, messages: Messages | None = None, **kwargs: Any
    ) -> reports.Explanation:
        """Say what would be done with a request, and why; calls and logs nothing."""
        if text is not None:
            messages = [{"role": "user", "content": text}]
        request = self._read(kwargs.pop("model", AUTO), messages, kwargs)
        request = replace(request, routed=True)
        state = self._state if self._state.mode == "route" else replace(self._state, mode="route")
        estimates, _ = self._desk.decider.estimates(state, [request])
        decided = self._desk.decider.decide(state, request)
        return reports.explain(state, estimates, decided, request.query)

    @cached_property
    def history(self) -> History:
        """What people ask of the log."""
        return History(self._store)

    def check(self) -> list[str]:
        """Return remarks on what is missing or weak in this set-up; an empty list is good."""
        from optllm_router.router.checks import remarks

        return remarks(self.config, self._state, self._store)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The LLMs that are chosen from, with prices and limits."""
        return self._state.candidates

    @property
    def model_list(self) -> list[dict[str, Any]]:
        """The candidates in the form of `litellm.Router.model_list`, "auto" first."""
        names = [AUTO, *sorted(self._routed), *(c.name for c in self._state.candidates)]
        return [{"model_name": name, "litellm_params": {"model": name}} for name in names]

    @property
    def default_litellm_params(self) -> dict[str, Any]:
        """Arguments that would go with every call; none."""
        return {}

    # -- lifetime ---------------------------------------------------------------------------

    def flush(self, timeout_s: float = 30.0) -> int:
        """Wait for grading and late writes; return how many writes are still waiting."""
        left = self._writer.flush(timeout_s)
        self._count_labels()
        return left

    def close(self) -> int:
        """Write what waits and release everything; return how many writes were lost."""
        if self._closed:
            return 0
        self._closed = True
        self._housekeeper.stop()
        left = self._writer.close()
        for executor in self._threads.values():
            executor.shutdown()
        self._store.close()
        return left

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- inside -----------------------------------------------------------------------------

    def _read(self, model: str | None, messages: Any, kwargs: Mapping[str, Any]) -> Request:
        self._housekeeper.ensure()
        request = read_request(
            model,
            messages,
            kwargs,
            route_models=self._routed,
            count_tokens=self._client.count_tokens,
        )
        if not request.routed and request.requested not in self._warned_pins:
            self._warn_of_pin(request.requested)
        return request

    def _read_item(self, item: Any, common: Mapping[str, Any]) -> Request:
        arguments = {**common, **item_arguments(item)}
        return self._read(arguments.pop("model", AUTO), arguments.pop("messages", None), arguments)

    def _read_or_error(self, item: Any, common: Mapping[str, Any]) -> Request | Exception:
        try:
            return self._read_item(item, common)
        except ConfigError as error:
            return error

    def _batch(
        self, items: Sequence[Any], policy: Policy | None, common: Mapping[str, Any], advance: Any
    ) -> BatchJob:
        return prepare_batch(
            self._desk.decider,
            self._state,
            [self._read_or_error(item, common) for item in items],
            policy,
            batch_id=str(common.get("batch_id") or new_id()),
            on_done=advance,
        )

    def _probe_requests(
        self,
        queries: Sequence[Any],
        references: Sequence[Any] | None,
        tasks: Sequence[str] | None,
        common: Mapping[str, Any],
    ) -> list[Request]:
        for name, values in (("references", references), ("tasks", tasks)):
            if values is not None and len(values) != len(queries):
                raise ConfigError(
                    f"{len(values)} {name} for {len(queries)} queries: pass one per query"
                )
        read = []
        for i, item in enumerate(queries):
            own = item_arguments(item)
            if references is not None:
                own["reference"] = references[i]
            if tasks is not None:
                own["task"] = tasks[i]
            read.append(self._read_item(own, common))
        return read

    def _warn_of_pin(self, name: str) -> None:
        self._warned_pins.add(name)
        if self._state.position(name) >= 0 and self._state.mode == "route":
            logger.warning(
                "%r names a candidate and was called as asked (a pin): pass model='auto', or add "
                "it to `route_models`, to have such calls routed",
                name,
            )

    def _store_thread(self) -> ThreadPoolExecutor:
        """The one thread of this process on which async calls use the store."""
        pid = os.getpid()
        if pid not in self._threads:
            with self._swap:
                self._threads.setdefault(
                    pid, ThreadPoolExecutor(1, thread_name_prefix="optllm-store")
                )
        return self._threads[pid]

    def _refit_settings(self) -> RefitSettings:
        return RefitSettings(
            n_bootstraps=self.config.predictor.n_bootstraps,
            seed=self.config.predictor.seed,
            min_labels=self.config.retrain.min_labels,
        )

    def _keep_house(self) -> None:
        """Take over a newly published predictor; refit when it is due."""
        if self._store.current_predictor() != _version(self._state):
            self._take_over()
        n_graded = self._store.n_graded()
        self._set_labels(n_graded)
        fitted = self._state.snapshot is not None
        if self.config.retrain.enabled and self._clock.is_due(n_graded, fitted=fitted):
            self._clock.tried(n_graded)
            self._refit_aside()

    def _refit_aside(self) -> None:
        settings, state = self._refit_settings(), self._state
        if self._store.url.endswith(("://", ":memory:")):
            report = refit(self._store, state.candidates, settings)
        else:
            report = refit_in_child(
                self._store.url, state.candidates, settings, price_version=state.price_version
            )
        self._writer.log_event("refit", report.reason, {"n_labels": report.n_labels})
        self._take_over()

    def _take_over(self) -> None:
        """Serve with the published predictor from the next call on."""
        if self._store.current_predictor() == _version(self._state):
            return
        snapshot = load_current(self._store)
        with self._swap:
            self._state = replace(self._state, snapshot=snapshot, prices={})

    def _count_labels(self) -> None:
        self._set_labels(self._store.n_graded())

    def _set_labels(self, n_labels: int) -> None:
        with self._swap:
            self._state = replace(self._state, n_labels=n_labels)


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


def _reference(reference: Any) -> str:
    """The decision id of a response, or the id itself."""
    if isinstance(reference, str):
        return reference
    hidden = getattr(reference, "_hidden_params", None)
    facts = hidden.get("optllm") if isinstance(hidden, dict) else None
    if isinstance(facts, dict):
        return str(facts["decision_id"])
    return str(getattr(reference, "id", reference))


def _checked_concurrency(concurrency: int) -> int:
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigError(f"`concurrency={concurrency!r}` is not a whole number of at least 1")
    return concurrency
