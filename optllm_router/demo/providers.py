"""Seven simulated LLMs behind a real loopback HTTP server: no network, no keys, no money.

They are simulations and are named so. Each answers a question right with a probability that
depends on its skill at that kind of question and on the question's hidden difficulty; whether it
does is drawn once per (seed, LLM, question) by a hash, so asking again, in any order, from any
thread, gives the same answer. Prices, verbosity and latency differ as they do between real ones:
a strong and dear one, a nearly as strong one at a quarter of its price, specialists that beat both
at their own subject for a fraction, a cheap one that is good enough for easy questions, and one
that is dominated, as every price list has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Self

from optllm_router.demo.tasks import DemoQuery, wrong_answer
from optllm_router.testing.openai_server import FakeOpenAIServer, Reply

STEEPNESS = 9.0  # how fast success falls once difficulty exceeds skill
CEILING = 0.985  # nobody is always right


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedLLM:
    """One simulated LLM; prices in USD per 1M tokens, `skill` per kind of question.

    A skill of 0.5 means even odds (nearly) at difficulty 0.5; above 1 even hard questions mostly
    go well. `verbosity` multiplies the tokens of an answer, thinking included.
    """

    model: str
    input_usd_per_1m: str
    output_usd_per_1m: str
    skill: Mapping[str, float]
    verbosity: float
    latency_s: float

    def prob(self, query: DemoQuery) -> float:
        """Return the probability that this LLM answers a question right."""
        margin = self.skill[query.task] - query.difficulty
        return CEILING / (1.0 + math.exp(-STEEPNESS * margin))

    def answers_right(self, query: DemoQuery, *, seed: int) -> bool:
        """Return whether it does: drawn once per (seed, LLM, question), then always the same."""
        return _draw(self.model, query.text, seed) / 2**64 < self.prob(query)

    def reply(self, query: DemoQuery, *, seed: int) -> Reply:
        """Return its answer with the tokens that it bills and the time that it takes."""
        answer = query.reference
        if not self.answers_right(query, seed=seed):
            answer = wrong_answer(answer, draw=_draw(self.model, query.text, seed + 1))
        if self.verbosity > 1.5:
            answer = f"(simulated reasoning, {self.model})\nAnswer: {answer}"
        return Reply(
            text=answer,
            prompt_tokens=_n_tokens(query.text) + 8,
            completion_tokens=self.completion_tokens(query),
            delay_s=self.latency_s,
        )

    def completion_tokens(self, query: DemoQuery) -> int:
        """Return the tokens it answers with: the answer's own, and more thinking when harder."""
        thinking = 20.0 + 120.0 * query.difficulty
        return max(1, round(self.verbosity * (_n_tokens(query.reference) + thinking)))

    def cost_nusd(self, query: DemoQuery) -> int:
        """Return what an answer costs, in nano-USD, rounded up as the log does."""
        prompt = (_n_tokens(query.text) + 8) * Decimal(self.input_usd_per_1m)
        completion = self.completion_tokens(query) * Decimal(self.output_usd_per_1m)
        return math.ceil((prompt + completion) * 1_000)  # USD per 1M tokens = 1,000 nano-USD each


def _skills(*levels: float) -> dict[str, float]:
    kinds = ("arithmetic", "dates", "units", "extraction", "logs", "words")
    return dict(zip(kinds, levels, strict=True))


SIMULATED_LLMS = (
    SimulatedLLM(
        model="openai/simulated-nano",
        input_usd_per_1m="0.05",
        output_usd_per_1m="0.20",
        skill=_skills(0.35, 0.25, 0.45, 0.45, 0.35, 0.55),
        verbosity=0.6,
        latency_s=0.002,
    ),
    SimulatedLLM(
        model="openai/simulated-mini",
        input_usd_per_1m="0.15",
        output_usd_per_1m="0.60",
        skill=_skills(0.60, 0.45, 0.65, 0.65, 0.50, 0.90),
        verbosity=0.8,
        latency_s=0.003,
    ),
    SimulatedLLM(
        model="openai/simulated-coder",
        input_usd_per_1m="0.30",
        output_usd_per_1m="1.20",
        skill=_skills(0.55, 0.45, 0.45, 1.00, 1.15, 0.55),
        verbosity=0.9,
        latency_s=0.004,
    ),
    SimulatedLLM(
        model="openai/simulated-math",
        input_usd_per_1m="0.40",
        output_usd_per_1m="1.60",
        skill=_skills(1.10, 0.90, 1.00, 0.40, 0.30, 0.35),
        verbosity=1.8,
        latency_s=0.006,
    ),
    SimulatedLLM(
        model="openai/simulated-legacy",
        input_usd_per_1m="2.00",
        output_usd_per_1m="6.00",
        skill=_skills(0.55, 0.60, 0.60, 0.65, 0.55, 0.70),
        verbosity=1.0,
        latency_s=0.006,
    ),
    SimulatedLLM(
        model="openai/simulated-large",
        input_usd_per_1m="1.25",
        output_usd_per_1m="5.00",
        skill=_skills(0.80, 0.85, 0.85, 0.80, 0.75, 0.95),
        verbosity=1.0,
        latency_s=0.006,
    ),
    SimulatedLLM(
        model="openai/simulated-frontier",
        input_usd_per_1m="4.00",
        output_usd_per_1m="16.00",
        skill=_skills(1.00, 0.95, 1.00, 1.00, 0.95, 1.00),
        verbosity=1.2,
        latency_s=0.010,
    ),
)


class SimulatedProvider:
    """A loopback OpenAI-compatible server that answers the demo's own questions; nothing else.

    Use it as a context manager: the server runs inside the block.
    """

    def __init__(
        self,
        queries: Sequence[DemoQuery],
        *,
        seed: int,
        llms: Sequence[SimulatedLLM] = SIMULATED_LLMS,
    ) -> None:
        """Know the questions by text and the LLMs by name."""
        self._queries = {query.text: query for query in queries}
        self._llms = {llm.model.partition("/")[2]: llm for llm in llms}
        self._seed = seed
        self._server = FakeOpenAIServer(self._respond)

    def __enter__(self) -> Self:
        """Start the server on a free loopback port."""
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop the server."""
        self._server.stop()

    def candidates(self) -> list[dict[str, object]]:
        """Return the LLMs as candidate settings that point to this server."""
        return [self._settings(llm) for llm in self._llms.values()]

    def _settings(self, llm: SimulatedLLM) -> dict[str, object]:
        return {
            "model": llm.model,
            "input_usd_per_1m": llm.input_usd_per_1m,
            "output_usd_per_1m": llm.output_usd_per_1m,
            "max_output_tokens": 512,
            "api_base": self._server.url,
            "arguments": {"api_key": "simulated"},
        }

    def _respond(self, request: Mapping[str, Any]) -> Reply:
        text = request["messages"][-1]["content"]
        llm, query = self._llms.get(request["model"]), self._queries.get(text)
        if llm is None or query is None:
            known = "this simulation only knows the demo's own questions and LLMs"
            return Reply(text=known, prompt_tokens=1, completion_tokens=len(known) // 4)
        return llm.reply(query, seed=self._seed)


def _draw(model: str, text: str, seed: int) -> int:
    key = f"{seed}|{model}".encode()
    return int.from_bytes(blake2b(text.encode(), key=key[:64], digest_size=8).digest())


def _n_tokens(text: str) -> int:
    return max(1, math.ceil(len(text) / 4))
