"""Bring your own embeddings: a function from a list of texts to one vector per text.

The router then learns from them, too, beside its own hashed features. The embedder here is a TOY,
four counts; a real one is a local model with a method `encode`, or a function that asks one:

    embedder = SentenceTransformer("/models/all-MiniLM-L6-v2")  # nothing is downloaded by us

In optllm.toml it is named: embedder = "package.module:name". When it fails in service, queries go
on without embeddings. The log keeps them beside the features (`prompts = "hash"` keeps neither).

The LLMs here are SIMULATED, on this machine: no key, no network, no money. For real ones change
the two lines that are marked.
"""

import tempfile

import numpy as np
from numpy.typing import NDArray

from optllm_router import Embedder, Router
from optllm_router.demo.providers import SimulatedProvider
from optllm_router.demo.tasks import is_right, make_queries

SAMPLE = make_queries(60, seed=4)


def counts(texts: list[str]) -> NDArray[np.float64]:
    """Count digits, words and commas: how long a question is, which hashed words do not tell."""
    rows = [
        [1.0, sum(map(str.isdigit, text)), len(text.split()), text.count(",")] for text in texts
    ]
    return np.log1p(rows)


def brier(embedder: Embedder | None, llms: SimulatedProvider) -> float:
    """Probe, fit, and return the out-of-bag Brier score of the predictions; 0 is perfect."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Router(
            candidates=llms.candidates(),  # real: ["openai/gpt-4o-mini", "openai/gpt-4o"]
            default="openai/simulated-mini",  # real: "openai/gpt-4o-mini"
            store=f"sqlite:///{folder}/optllm.db",
            embedder=embedder,
        ) as router,
    ):
        texts, references = zip(*[(query.text, query.reference) for query in SAMPLE], strict=True)
        router.probe(texts, references, grader=is_right)
        return float(router.retrain().metrics["brier"])


with SimulatedProvider(SAMPLE, seed=4) as llms:
    print(f"Brier score with hashed features only: {brier(None, llms):.3f}")
    print(f"Brier score with embeddings beside them: {brier(counts, llms):.3f}")
