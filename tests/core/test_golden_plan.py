"""One table, one seed, one plan: whoever changes a decision changes this file knowingly."""

import pytest

from optllm_router.core.estimates import estimate
from optllm_router.core.features import hash_text
from optllm_router.core.planning import aligned_optimism, plan_batch
from optllm_router.core.policy import Budget, Knee, TargetAccuracy, WillingnessToPay
from optllm_router.dispatch.deciding import RouterState, decide_row
from optllm_router.dispatch.privacy import Privacy


@pytest.fixture
def planned(snapshot, queries, candidates):
    texts = [hash_text(query.text) for query in queries]
    estimates = estimate(snapshot, queries, texts, candidates)
    optimism = aligned_optimism(snapshot, estimates)
    return lambda policy: plan_batch(estimates, policy, optimism)


def written(choice):
    return "".join(map(str, choice))


@pytest.mark.parametrize(
    ("policy", "choice"),
    [
        (Knee(), "1111111111111111111111111111111111111111"),
        (Budget(usd=0.05), "1101010111010101110101010101110101010101"),
        (TargetAccuracy(0.8), "1111110111111111111111111101111111011111"),
    ],
    ids=str,
)
def test_the_golden_plan_has_not_changed(planned, policy, choice):
    assert choice == written(planned(policy).choice)


def test_the_golden_figures_have_not_changed(planned):
    plan = planned(Knee())

    assert (0.0821327, 0.771937, 36.67886) == pytest.approx(
        (plan.expected_cost_usd, plan.expected_accuracy, plan.dual_price), rel=1e-4
    )


def test_the_golden_live_decisions_and_propensities_have_not_changed(snapshot, queries, candidates):
    state = RouterState(
        candidates=candidates,
        default="large",
        policy=WillingnessToPay(0.015),
        mode="route",
        privacy=Privacy("features"),
        price_version="p",
        min_labels=50,
        snapshot=snapshot,
    )
    made = []
    for query in queries[:12]:
        estimates = estimate(snapshot, [query], [hash_text(query.text)], candidates)
        made.append(decide_row(state, estimates, WillingnessToPay(0.015)))
    position = {candidate.name: j for j, candidate in enumerate(candidates)}

    assert "110101011101" == written(position[decided.chosen] for decided in made)
    assert [1.0] * 12 == [decided.propensity for decided in made]
    assert {"v1"} == {decided.predictor_version for decided in made}
