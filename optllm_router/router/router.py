"""The object that people put where `litellm.completion` was: composition and lifetime only.

Every method here reads its arguments, calls the rooms below, and returns what they give. Sync and
async methods differ in nothing but the shell that acts a call's conversation out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from optllm_router.completion.base import Client, Messages, Response
from optllm_router.config import CandidateSettings, Config, load_config, make_config
from optllm_router.core.planning import Plan
from optllm_router.core.policy import Policy
from optllm_router.dispatch.calls import Task
from optllm_router.dispatch.effects import arun, run
from optllm_router.dispatch.prepare import plan_requests
from optllm_router.dispatch.probing import ProbeReport
from optllm_router.dispatch.requests import AUTO, checked_concurrency, checked_requests
from optllm_router.dispatch.resuming import Interrupted
from optllm_router.dispatch.workers import arun_batch, run_batch
from optllm_router.errors import NotTrainedError
from optllm_router.grading import Grader
from optllm_router.history import History
from optllm_router.learning import RetrainReport
from optllm_router.ledger import BudgetReport
from optllm_router.outcomes import ImportReport
from optllm_router.records import Candidate
from optllm_router.router import reports
from optllm_router.router.engine import FLUSH_S, BatchAsked, Engine
from optllm_router.router.feedback import FEEDBACK, feedback_outcome, reference_of
from optllm_router.router.importing import import_table
from optllm_router.router.probes import read_probe, run_probe
from optllm_router.router.progress import progress_bar
from optllm_router.router.signatures import ACOMPLETION, BATCH_COMPLETION, COMPLETION, by_name


class Router:
    """Routes every call to the candidate that the policy wants, and keeps the books.

    Args:
        candidates: the LLMs to choose from: LiteLLM model names, dicts, or `CandidateSettings`.
        default: the candidate that answers while nothing is learned, and when we cannot decide;
            may be left out where there is only one candidate.
        config: a ready `Config`, instead of everything else but `client`.
        client: who answers; LiteLLM where it is not given.
        settings: every other key of `optllm.toml` (`policy`, `store`, `route_models`, `mode`,
            `prompts`, `retrain`, `graders`, `predictor="forest"`, `search="destroy_repair"`, ...).
            `embedder` (an `Embedder`, an object with `encode`, or a path "module:name") adds
            embeddings of the texts to what is learned from; forests do not look at them.

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
        self._engine = Engine(config, client)

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
        task = Task(self._engine.read(model, messages, kwargs))
        return run(self._engine.desk.converse(self._engine.state, task), self._engine.client)

    async def acomplete(
        self, model: str | None = AUTO, messages: Messages | None = None, **kwargs: Any
    ) -> Response:
        """Do what `complete` does without blocking the event loop."""
        task = Task(await self._engine.aread(model, messages, kwargs))
        return await arun(
            self._engine.desk.converse(self._engine.state, task),
            self._engine.client,
            self._engine.store_thread(),
        )

    def completion(self, *args: Any, **kwargs: Any) -> Response:
        """`complete` under the signature of `litellm.completion`."""
        return self.complete(**by_name(COMPLETION, args, kwargs))

    async def acompletion(self, *args: Any, **kwargs: Any) -> Response:
        """`acomplete` under the signature of `litellm.acompletion`."""
        return await self.acomplete(**by_name(ACOMPLETION, args, kwargs))

    # -- batches ----------------------------------------------------------------------------

    def complete_batch(  # noqa: PLR0913  # the face: each is an everyday choice
        self,
        requests: Sequence[Any],
        *,
        policy: Policy | None = None,
        concurrency: int = 16,
        progress: bool = False,
        batch_id: str | None = None,
        interrupted: Interrupted = "ask",
        **kwargs: Any,
    ) -> list[Any]:
        """Answer a batch under one policy: planned as a whole, re-planned as money is spent.

        With a `batch_id` the batch survives its process: the log keeps its answers, which is what
        was said, whatever `prompts` says (`forget_answers` and `optllm forget` erase it). Calling
        again with the same requests returns the answers that are there and asks the rest, failed
        items too; a budget counts what earlier calls spent. One process works on it at a time.

        Args:
            requests: texts, message lists, or dicts of `complete` arguments.
            policy: replaces the configured one; a `Budget` per batch is also a hard cap.
            concurrency: calls at the same time, at least 1.
            progress: draw a progress bar on standard error.
            batch_id: the name under which the batch goes on after a crash.
            interrupted: items that were being asked when an earlier run ended, whose calls are in
                the log at their forecast: "ask" them again, or "skip" them (ItemInterruptedError).
            kwargs: arguments of every item; an item's own win.

        Returns: answers in order; a failed item's exception stands in its place, also of those
            that were not asked because the router was closed meanwhile.

        Raises: InfeasiblePolicyError before anything is spent; ConfigError where `batch_id` began
            with other requests; BatchBusyError where another run is working on it.
        """
        requests = checked_requests(requests)
        asked = BatchAsked(
            items=requests,
            common=kwargs,
            policy=policy,
            batch_id=batch_id,
            interrupted=interrupted,
        )
        with progress_bar(len(requests), "calls", show=progress) as advance:
            job = self._engine.batch(asked, advance)
            with self._engine.working_off(job):
                return run_batch(self._engine.desk, job, checked_concurrency(concurrency))

    async def acomplete_batch(  # noqa: PLR0913  # as `complete_batch`
        self,
        requests: Sequence[Any],
        *,
        policy: Policy | None = None,
        concurrency: int = 16,
        progress: bool = False,
        batch_id: str | None = None,
        interrupted: Interrupted = "ask",
        **kwargs: Any,
    ) -> list[Any]:
        """Do what `complete_batch` does without blocking the event loop."""
        import asyncio

        requests, concurrency = checked_requests(requests), checked_concurrency(concurrency)
        asked = BatchAsked(
            items=requests,
            common=kwargs,
            policy=policy,
            batch_id=batch_id,
            interrupted=interrupted,
        )
        with progress_bar(len(requests), "calls", show=progress) as advance:
            job = await asyncio.to_thread(self._engine.batch, asked, advance)
            with self._engine.working_off(job):
                thread = self._engine.store_thread()
                return await arun_batch(self._engine.desk, job, concurrency, thread)

    def batch_completion(self, *args: Any, **kwargs: Any) -> list[Any]:
        """`complete_batch` under the signature of `litellm.batch_completion`."""
        given = by_name(BATCH_COMPLETION, args, kwargs)
        workers = int(given.pop("max_workers", None) or 16)
        messages: Sequence[Any] = given.pop("messages", None) or []
        return self.complete_batch(
            [{"messages": item} for item in messages], concurrency=workers, **given
        )

    def forget_answers(self, batch_id: str) -> int:
        """Erase the answers that are kept of a batch; its calls stay in the log.

        The batch begins anew when it is asked again.

        Returns: how many answers there were.

        Raises: BatchBusyError while a run is working on it.
        """
        return self._engine.store.forget_answers(batch_id)

    def plan(self, requests: Sequence[Any], *, policy: Policy | None = None, **kwargs: Any) -> Plan:
        """Decide a batch and spend nothing.

        Raises: NotTrainedError before the first fit, NoCandidateError, InfeasiblePolicyError.
        """
        read = [self._engine.read_item(item, kwargs) for item in checked_requests(requests)]
        read = self._engine.embedded(read)
        desk = self._engine.desk
        return plan_requests(desk.decider, self._engine.state, read, policy, money=desk.money)

    # -- learning ---------------------------------------------------------------------------

    def feedback(self, reference: Any, score: float, *, source: str = FEEDBACK) -> bool:
        """Say how good an answer was; may come days later, and again with another score.

        Args:
            reference: the response (or stream), a decision id, or the response's own id.
            score: in [0, 1]; True and False are 1 and 0.
            source: who says so; a decision holds one score per source.

        Returns: whether anything changed.

        Raises: ValueError for a score outside [0, 1], UnknownDecisionError.
        """
        outcome = feedback_outcome(
            self._engine.store, reference_of(reference), score, source=source
        )
        changed = self._engine.store.add_outcomes([outcome]) > 0
        if self._engine.state.snapshot is None:  # only "not fitted: n/50 labels" needs the count
            self._engine.count_labels()
        self._engine.housekeeper.ensure()
        return changed

    def probe(  # noqa: PLR0913  # the face: each is an everyday choice
        self,
        queries: Sequence[Any],
        references: Sequence[Any] | None = None,
        tasks: Sequence[str] | None = None,
        *,
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
            concurrency: calls at the same time, at least 1.
            progress: draw a progress bar on standard error.
            kwargs: arguments of every call.

        Raises: ConfigError before anything is spent, also where no grader would grade anything.
        """
        asked = read_probe(self._engine, queries, references=references, tasks=tasks, common=kwargs)
        concurrency = checked_concurrency(concurrency)
        return run_probe(
            self._engine, asked, grader=grader, concurrency=concurrency, progress=progress
        )

    def import_outcomes(self, path: str | Path) -> ImportReport:
        """Take the user's own labels (query, model, score, ...) into the log, all or nothing read.

        Importing the same file again changes nothing. Raises: ConfigError for a file with errors.
        """
        report = import_table(
            path,
            self._engine.store,
            self._engine.state,
            count_text=self._engine.client.count_text,
            embed=self._engine.embed,
        )
        self._engine.learn_newcomers()
        return report

    def retrain(self) -> RetrainReport:
        """Refit on the log, and publish the result unless it is worse; takes over what is new."""
        return self._engine.retrain()

    # -- looking ----------------------------------------------------------------------------

    def front(self) -> reports.PublishedFront:
        """Return the front of recent traffic. Raises: NotTrainedError before the first fit."""
        snapshot = self._engine.state.snapshot
        if snapshot is None:
            raise NotTrainedError(
                f"{self._engine.state.unfit_reason}: there is no front yet; probe, give feedback "
                "or import outcomes, then `retrain`",
                n_labels=self._engine.state.n_labels,
                min_labels=self._engine.state.min_labels,
            )
        return reports.published_front(snapshot)

    def explain(
        self, text: str | None = None, *, messages: Messages | None = None, **kwargs: Any
    ) -> reports.Explanation:
        """Say what would be done with a request, and why; calls and logs nothing."""
        if text is not None:
            messages = [{"role": "user", "content": text}]
        request = self._engine.read(kwargs.pop("model", AUTO), messages, kwargs)
        return reports.explain(self._engine.state, self._engine.desk.decider, request)

    @cached_property
    def history(self) -> History:
        """What people ask of the log."""
        return History(self._engine.store, {c.name: c.model for c in self.candidates})

    def budgets(self, *, session_id: str | None = None) -> list[BudgetReport]:
        """Return where the shared budgets of the store stand, by name.

        Of a budget per session it is the session given, else the fullest one.
        """
        return self.history.budgets(session_id=session_id)

    def check(self) -> list[str]:
        """Return remarks on what is missing or weak in this set-up; an empty list is good."""
        from optllm_router.router.checks import remarks

        engine = self._engine
        return remarks(self.config, engine.state, engine.store, engine.embeddings)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The LLMs that are chosen from, with prices and limits."""
        return self._engine.state.candidates

    @property
    def model_list(self) -> list[dict[str, Any]]:
        """The candidates in the form of `litellm.Router.model_list`, "auto" first."""
        names = [
            AUTO,
            *sorted(self._engine.route_models),
            *(c.name for c in self._engine.state.candidates),
        ]
        return [{"model_name": name, "litellm_params": {"model": name}} for name in names]

    @property
    def default_litellm_params(self) -> dict[str, Any]:
        """Arguments that would go with every call; none."""
        return {}

    # -- lifetime ---------------------------------------------------------------------------

    def flush(self, timeout_s: float = FLUSH_S) -> int:
        """Wait for grading and late writes; return how many writes are still waiting."""
        return self._engine.flush(timeout_s)

    def close(self) -> int:
        """Write what waits and release everything; return how many writes were lost."""
        return self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
