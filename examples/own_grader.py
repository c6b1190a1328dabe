"""Bring your own grader: a function from (answer, reference) to a score in [0, 1].

Named in the config it grades, in the background, every answer of a task; given to `probe` it grades
that sample. It may return None where it cannot tell.

The LLMs here are SIMULATED, on this machine: no key, no network, no money. For real ones change
the two lines that are marked.
"""

import re
import tempfile

from optllm_router import Router
from optllm_router.demo.providers import SimulatedProvider
from optllm_router.demo.tasks import make_queries

QUERIES = [query for query in make_queries(60, seed=5) if query.task == "arithmetic"]


def closeness(answer: str, reference: str | None) -> float | None:
    """Give 1 for the right number, half a point for one that is off by at most 1 %."""
    numbers = re.findall(r"-?\d+", answer)
    if reference is None:
        return None
    if not numbers:
        return 0.0
    error = abs(int(numbers[-1]) - int(reference))
    return 1.0 if error == 0 else 0.5 if error <= 0.01 * abs(int(reference)) else 0.0


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        SimulatedProvider(QUERIES, seed=5) as llms,
        Router(
            candidates=llms.candidates(),  # real: ["openai/gpt-4o-mini", "openai/gpt-4o"]
            default="openai/simulated-mini",  # real: "openai/gpt-4o-mini"
            graders={"sums": {"kind": "callable", "function": "own_grader:closeness"}},
            store=f"sqlite:///{folder}/optllm.db",
        ) as router,
    ):
        for query in QUERIES:
            question = [{"role": "user", "content": query.text}]
            router.complete(messages=question, task="sums", reference=query.reference)
        router.flush()  # grading happens in the background: wait for it before looking
        for row in router.history.summary(by="task"):
            print(f"task {row.key!r}: {row.n_graded} of {row.n_decisions} answers graded", end="")
            print(f", mean score {row.mean_score:.2f}")

        probe = router.probe(
            [query.text for query in QUERIES[:5]],
            [query.reference for query in QUERIES[:5]],
            grader=closeness,
        )
        for name, score in sorted(probe.mean_score.items(), key=lambda pair: -pair[1]):
            print(f"probe: {name:28} {score:.2f}")


if __name__ == "__main__":  # the router imports this file to find the function
    main()
