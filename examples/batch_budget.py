"""A batch under a budget: learn from a small labelled sample, plan, spend, compare.

`probe` asks every candidate about a few queries whose answers are known; `retrain` fits; `plan`
says what a policy would do and spends nothing; `complete_batch` keeps within its budget.

The LLMs here are SIMULATED, on this machine: no key, no network, no money. For real ones change
the two lines that are marked.
"""

import tempfile

from optllm_router import Budget, Fixed, Router, TargetAccuracy
from optllm_router.demo.providers import SimulatedProvider
from optllm_router.demo.tasks import is_right, make_queries

BEST = "openai/simulated-frontier"  # real: "openai/gpt-4o"
QUERIES = make_queries(180, seed=2)
SAMPLE, BATCH = QUERIES[:60], QUERIES[60:]

with (
    tempfile.TemporaryDirectory() as folder,
    SimulatedProvider(QUERIES, seed=2) as llms,
    Router(
        candidates=llms.candidates(),  # real: ["openai/gpt-4o-mini", "openai/gpt-4o"]
        default=BEST,
        store=f"sqlite:///{folder}/optllm.db",
    ) as router,
):
    probe = router.probe(
        [query.text for query in SAMPLE],
        [query.reference for query in SAMPLE],
        tasks=[query.task for query in SAMPLE],
        grader=is_right,
    )
    print(f"Probe: {probe.n_calls} calls for ${probe.cost_usd:.4f}; mean score per candidate")
    for name, score in sorted(probe.mean_score.items(), key=lambda pair: -pair[1]):
        print(f"  {name:28} {score:.2f} at ${probe.mean_cost_usd[name] * 1000:.3f} per 1,000")
    print(f"Fit: published {router.retrain().published}\n")

    requests = [
        {"messages": [{"role": "user", "content": query.text}], "task": query.task}
        for query in BATCH
    ]
    always_best = router.plan(requests, policy=Fixed(BEST)).expected_cost_usd
    print(f"{len(BATCH)} queries, always {BEST}: ${always_best:.4f} expected")
    budget = Budget(usd=round(0.4 * always_best, 3), per="batch")
    for policy in (Budget(usd=round(0.1 * always_best, 3)), budget, TargetAccuracy(0.85)):
        plan = router.plan(requests, policy=policy)
        print(f"  {policy}: ${plan.expected_cost_usd:.4f}, {plan.expected_accuracy:.2f} right")

    answers = router.complete_batch(requests, policy=budget)
    spent = sum(answer._hidden_params["optllm"]["cost_usd"] for answer in answers)
    texts = [answer.choices[0].message.content for answer in answers]
    right = [is_right(text, query.reference) for text, query in zip(texts, BATCH, strict=True)]
    print(f"\nBudget ${budget.usd}: ${spent:.4f} spent, {sum(right) / len(right):.2f} right")
