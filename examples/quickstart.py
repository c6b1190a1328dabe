"""Drop-in quickstart: put `router.completion` where `litellm.completion` was.

The code that calls an LLM keeps its model name, its arguments and its answers. "gpt-4o" is among
the `route_models`, so calls that name it are routed. Until enough answers are graded the default
answers, as before; every call is logged with its cost, and feedback is what the router learns from.

The LLMs here are SIMULATED, on this machine: no key, no network, no money. For real ones change
the two lines that are marked.
"""

import tempfile

from optllm_router import Router
from optllm_router.demo.providers import SimulatedProvider
from optllm_router.demo.tasks import is_right, make_queries

QUESTIONS = make_queries(4, seed=1)

with (
    tempfile.TemporaryDirectory() as folder,
    SimulatedProvider(QUESTIONS, seed=1) as llms,
    Router(
        candidates=llms.candidates(),  # real: ["openai/gpt-4o-mini", "openai/gpt-4o"]
        default="openai/simulated-frontier",  # real: "openai/gpt-4o"
        route_models=["gpt-4o"],
        store=f"sqlite:///{folder}/optllm.db",
    ) as router,
):
    for question in QUESTIONS:
        # This line was: response = litellm.completion(
        response = router.completion(
            model="gpt-4o", messages=[{"role": "user", "content": question.text}]
        )
        answer = response.choices[0].message.content
        facts = response._hidden_params["optllm"]
        router.feedback(response, score=is_right(answer, question.reference))

        print(f"Q: {question.text}\nA: {answer}")
        print(f"   {facts['candidate']}, ${facts['cost_usd']:.6f}, {facts['reason']}\n")

    for row in router.history.summary(by="candidate"):
        print(f"{row.key}: {row.n_decisions} answers for ${row.cost_usd:.6f}", end=", ")
        print(f"mean score {row.mean_score:.2f}")
