"""The public API as a type checker sees it: checked by `mypy --strict`, never run.

    mypy --strict tests/typing/api.py

Whatever a user may write stands here once; a name that loses its type, or an argument that becomes
an error, fails the check.
"""

from __future__ import annotations

from decimal import Decimal
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

from optllm_router import (
    BatchBusyError,
    Budget,
    BudgetExceededError,
    CandidateSettings,
    Cheapest,
    Config,
    ConfigError,
    Contains,
    Embedder,
    Exact,
    Fixed,
    InfeasiblePolicyError,
    ItemInterruptedError,
    JsonSchema,
    Knee,
    MostAccurate,
    NoCandidateError,
    NotTrainedError,
    ParetoFront,
    Plan,
    PolicyError,
    Regex,
    Router,
    RouterError,
    SchemaVersionError,
    StoreError,
    SuccessEstimate,
    SuccessPredictor,
    TargetAccuracy,
    UnknownDecisionError,
    UnpricedCandidateError,
    WillingnessToPay,
    __version__,
    load_config,
    pareto_front,
)
from optllm_router.core.policy import Policy
from optllm_router.history import HistoryBatch, HistoryDecision, HistoryRow
from optllm_router.integrations.langchain import ChatOptLLM
from optllm_router.learning import RetrainReport
from optllm_router.ledger import BudgetReport
from optllm_router.records import Candidate
from optllm_router.store.shares import Override

MESSAGES = [{"role": "user", "content": "hello"}]
POLICIES: list[Policy] = [
    Budget(usd=2.0, per="batch"),
    Budget(0.01, per="call"),
    TargetAccuracy(0.9, confidence=0.8),
    WillingnessToPay(usd_per_success=0.02),
    Knee(),
    Cheapest(),
    MostAccurate(),
    Fixed("openai/gpt-4o"),
]


def routers() -> list[Router]:
    """Every way to make one."""
    config: Config = load_config("optllm.toml", mode="shadow")
    return [
        Router.from_config("optllm.toml"),
        Router.from_config(store="sqlite:///other.db"),
        Router(config=config),
        Router(["openai/gpt-4o-mini", {"model": "openai/gpt-4o"}], default="openai/gpt-4o"),
        Router(
            candidates=[CandidateSettings(model="openai/gpt-4o")],
            policy=Budget(usd=5.0),
            store="sqlite:///optllm.db",
            route_models=["gpt-4o"],
            prompts="hash",
        ),
    ]


def counts(texts: list[str]) -> NDArray[np.float32]:
    """An embedder."""
    return np.array([[len(text), text.count(" ")] for text in texts], dtype=np.float32)


class LocalModel:
    """As local sentence-transformers models are: callable for something else."""

    def __call__(self, features: dict[str, int]) -> dict[str, int]:
        return features

    def encode(self, sentences: list[str], batch_size: int = 32) -> NDArray[np.float32]:
        return counts(sentences)


def embedders(scores: NDArray[np.float64]) -> list[Router]:
    """Every way to bring an embedder."""
    embedder: Embedder = counts
    for each in (counts, embedder):
        SuccessPredictor(embedder=each).fit(["a", "b"], scores)
    SuccessPredictor(embedder=LocalModel()).fit(["a", "b"], scores)
    return [
        Router(["openai/gpt-4o"], embedder=counts),
        Router(["openai/gpt-4o"], embedder=LocalModel()),
        Router.from_config("optllm.toml", embedder="my_module:embed"),
    ]


def calls(router: Router) -> None:
    """Calls, a stream and a batch; answers are LiteLLM's own and stay opaque."""
    response = router.complete(messages=MESSAGES, task="triage", tags=["a"], policy=Cheapest())
    router.complete("auto", MESSAGES, temperature=None, stream=True)
    router.completion(model="gpt-4o", messages=MESSAGES)
    assert_type(router.feedback(response, score=1.0), bool)
    router.feedback("a decision id", score=0.5)
    answers = router.complete_batch(
        ["a text", MESSAGES, {"messages": MESSAGES, "task": "t"}],
        policy=Budget(usd=2.0, per="batch"),
        concurrency=8,
        progress=True,
    )
    assert_type(len(answers), int)
    router.complete_batch(["a text"], batch_id="nightly", interrupted="skip")
    assert_type(router.forget_answers("nightly"), int)
    router.batch_completion(model="auto", messages=[MESSAGES])


async def awaited_calls(router: Router) -> None:
    """The same, awaited."""
    await router.acomplete(messages=MESSAGES)
    await router.acompletion(model="gpt-4o", messages=MESSAGES)
    assert_type(len(await router.acomplete_batch(["a text"], policy=TargetAccuracy(0.9))), int)


def learning(router: Router) -> None:
    """Labels in, predictor and front out."""
    probe = router.probe(["2 + 2?"], ["4"], tasks=["sums"], grader=Exact())
    router.probe(["2 + 2?"], ["4"], grader=lambda answer, reference: answer == reference)
    assert_type(probe.mean_score, dict[str, float])
    router.import_outcomes("labels.csv")
    report = router.retrain()
    assert_type(report, RetrainReport)
    assert_type(report.published, bool)


def looking(router: Router) -> None:
    """What a router tells of itself."""
    plan = router.plan(["a text"], policy=TargetAccuracy(0.9))
    assert_type(plan, Plan)
    assert_type(plan.expected_cost_usd, float)
    assert_type(plan.expected_accuracy, float)
    assert_type(plan.cost_range_usd, tuple[float, float] | None)
    assert_type(plan.worst_cost_usd, float | None)
    router.front()
    router.explain("a text")
    router.explain(messages=MESSAGES)
    assert_type(router.history.summary(by="candidate"), list[HistoryRow])
    assert_type(router.history.decision("an id"), HistoryDecision)
    assert_type(router.history.batch("nightly"), HistoryBatch | None)
    bill = router.history.reconcile("bill.csv", only=["openai/gpt-4o"], tolerance="2%")
    assert_type(bill.difference_usd, Decimal)
    assert_type(router.budgets(session_id="s"), list[BudgetReport])
    assert_type(router.history.budgets(), list[BudgetReport])
    assert_type(router.history.budget_overrides(), list[Override])
    assert_type(router.candidates, tuple[Candidate, ...])
    assert_type(router.check(), list[str])
    assert_type(router.flush(), int)
    with router as same:
        assert_type(same, Router)
    assert_type(router.close(), int)


def arrays(prob: NDArray[np.float64], cost_usd: NDArray[np.float64]) -> None:
    """The core on arrays of one's own."""
    front = pareto_front(prob, cost_usd, allowed=prob > 0.1)
    assert_type(front, ParetoFront)
    assert_type(front.cost_usd, NDArray[np.float64])
    assert_type(front.accuracy, NDArray[np.float64])
    assert_type(front.at_budget(1.0), int)
    assert_type(front.at_accuracy(0.9), int)
    assert_type(front.knee(), int)
    assert_type(front.price(0), float)
    assert_type(front.gap(1.0), float)
    front.choice(front.knee())
    front.fill(1.0)

    predictor = SuccessPredictor(n_bootstraps=50, seed=0).fit(["a", "b"], prob, tasks=["t", "t"])
    estimate = predictor.predict(["c"], tasks=None)
    assert_type(estimate, SuccessEstimate)
    assert_type(estimate.prob, NDArray[np.float64])
    assert_type(estimate.std, NDArray[np.float64])


def graders() -> list[float | None]:
    """Every grader, by itself."""
    return [
        Exact().grade("4", "4"),
        Contains().grade("It is 4.", "4"),
        Regex(r"(\d+)", 1).grade("It is 4.", "4"),
        JsonSchema({"type": "object"}).grade("{}", None),
    ]


def errors(router: Router) -> str:
    """Every error, with its facts."""
    text = ""
    try:
        router.complete(messages=MESSAGES)
    except InfeasiblePolicyError as error:
        text = f"{error.nearest:.3f}"
    except NoCandidateError as error:
        text = ", ".join(error.reasons)
    except BudgetExceededError as error:
        text = f"{error.budget}: {error.left_usd:.2f} of {error.limit_usd:.2f}"
    except NotTrainedError as error:
        text = f"{error.n_labels}/{error.min_labels}"
    except UnpricedCandidateError as error:
        text = error.candidate
    except ItemInterruptedError as error:
        text = f"{error.batch_id} {error.item}: {error.decision_id}"
    except BatchBusyError as error:
        text = error.batch_id
    except (SchemaVersionError, UnknownDecisionError, StoreError, PolicyError) as error:
        text = str(error)
    except (ConfigError, RouterError) as error:
        text = f"{__version__}: {error}"
    return text


def chat_model(router: Router) -> ChatOptLLM:
    """The LangChain model."""
    return ChatOptLLM(router=router, temperature=0.0, task="triage", policy=Budget(usd=0.01))
