"""What the router's tests share: routers over a scripted client, real SQLite, and their log."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from optllm_router import Cheapest, Router
from optllm_router.records import Attempt, Decision, Usage
from optllm_router.store.base import LoggedDecision
from optllm_router.testing.scripted import Line, ScriptedClient

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

PRICES = {"cheap": (1, 1), "middling": (3, 3), "dear": (10, 10)}
NAMES = list(PRICES)
USAGE = Usage(prompt_tokens=100, completion_tokens=50)
LINES = {name: Line(text=f"{name} says", usage=USAGE) for name in NAMES} | {"other": Line()}


@pytest.fixture
def client() -> ScriptedClient:
    """Three candidates of 100 + 50 tokens a call: 150, 450 and 1,500 micro-USD."""
    return ScriptedClient(LINES, prices=PRICES)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'log.db'}"


@pytest.fixture
def make_router(client, url) -> Iterator[Callable[..., Router]]:
    """Build a router that is closed at the end."""
    made: list[Router] = []

    def make(candidates: Sequence[object] = NAMES, **settings: object) -> Router:
        given = {
            "default": "middling",
            "policy": Cheapest(),
            "store": url,
            "client": client,
            "predictor": {"n_bootstraps": 5},
            **settings,
        }
        made.append(Router(candidates, **given))
        return made[-1]

    yield make
    for router in made:
        router.close()


@pytest.fixture
def trained(make_router, taught, tmp_path) -> Callable[..., Router]:
    """Build a router that has learned: dear is right on all, cheap on those that are easy."""

    def make(**settings: object) -> Router:
        shutil.copy(taught, tmp_path / "log.db")
        return make_router(**settings)

    return make


@pytest.fixture(scope="session")
def taught(tmp_path_factory) -> Path:
    """The log of a router that has learned, made once."""
    path = tmp_path_factory.mktemp("taught") / "log.db"
    client = ScriptedClient(LINES, prices=PRICES)
    settings = {"store": f"sqlite:///{path}", "predictor": {"n_bootstraps": 5}, "client": client}
    with Router(NAMES, default="middling", **settings) as router:
        teach(router, client)
    return path


@pytest.fixture
def train(client) -> Callable[[Router], None]:
    """Have a router probe and fit."""
    return lambda router: teach(router, client)


def teach(router: Router, client: ScriptedClient) -> None:
    texts = [f"{kind} question number {i}" for i in range(15) for kind in KINDS]
    scripts, client._scripts = client._scripts, {name: _knows(name) for name in NAMES}
    router.probe(texts, grader=lambda text, _reference: float(text.startswith("right")))
    client._scripts = scripts
    report = router.retrain()
    assert report.published, report.reason
    client.calls.clear()


KINDS = ("easy", "hard")


def _knows(name: str) -> Callable[..., Line]:
    def line(arguments) -> Line:
        text = arguments["messages"][-1]["content"]
        is_right = name == "dear" or text.startswith("easy")
        return Line(text="right" if is_right else "wrong", usage=USAGE)

    return line


@pytest.fixture
def logged() -> Callable[[Router], list[LoggedDecision]]:
    """Return what the log holds, without probes, oldest first."""

    def read(router: Router, limit: int = 1000) -> list[LoggedDecision]:
        found = router._engine.store.decisions(limit=limit)
        return [one for one in reversed(found) if one.decision.kind != "probe"]

    return read


@pytest.fixture
def only(logged) -> Callable[[Router], tuple[Decision, Attempt]]:
    """Return the one decision and its one attempt that the log holds."""

    def read(router: Router) -> tuple[Decision, Attempt]:
        (one,) = logged(router)
        (attempt,) = one.attempts
        return one.decision, attempt

    return read


def ask(text: str = "how many?") -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(name="ask")
def ask_fixture() -> Callable[..., list[dict[str, str]]]:
    return ask
