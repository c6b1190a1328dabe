"""Single calls aim at the front of the snapshot that is served, never at an older one's."""

import pytest

from optllm_router import Budget, Knee, TargetAccuracy
from optllm_router.core.planning import live_aim
from optllm_router.testing.scripted import Line

KINDS = ("easy", "hard")
POLICIES = [
    pytest.param(TargetAccuracy(0.8), id="target accuracy"),
    pytest.param(Budget(usd=0.008), id="budget"),
    pytest.param(Knee(), id="knee"),
]


@pytest.fixture
def shifted(client):
    """Probe a router again where middling, too, is right on what is hard."""

    def shift(router) -> None:
        scripts = client._scripts
        client._scripts = {
            name: lambda call, name=name: Line(
                text="right"
                if name != "cheap" or call["messages"][0]["content"].startswith("easy")
                else "wrong"
            )
            for name in scripts
        }
        texts = [f"{kind} question of another day {i}" for i in range(30) for kind in KINDS]
        router.probe(texts, grader=lambda text, _reference: float(text == "right"))
        client._scripts = scripts

    return shift


def aim_of(router, policy):
    return live_aim(router._engine.state.snapshot, policy).price


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("is_configured", [True, False], ids=["configured", "asked for"])
def test_after_a_retrain_the_next_single_call_aims_at_the_new_front(
    trained, shifted, logged, ask, policy, is_configured
):
    router = trained(policy=policy) if is_configured else trained()
    asked = {} if is_configured else {"policy": policy}
    router.complete(messages=ask("hard question"), **asked)
    before = aim_of(router, policy)
    shifted(router)

    assert router.retrain().published
    router.complete(messages=ask("hard question"), **asked)

    first, then = [one.decision for one in logged(router)]
    assert before != aim_of(router, policy)
    assert [before, aim_of(router, policy)] == [first.dual_price, then.dual_price]
    assert first.predictor_version < then.predictor_version


@pytest.mark.parametrize("policy", POLICIES)
def test_a_predictor_published_by_another_router_brings_its_aim_along(
    trained, make_router, shifted, logged, ask, policy
):
    serving, learning = trained(policy=policy), make_router()
    before = aim_of(serving, policy)
    serving.complete(messages=ask("hard question"))
    shifted(learning)

    assert learning.retrain().published
    serving._engine.take_over()
    serving.complete(messages=ask("hard question"))

    first, then = [one.decision for one in logged(serving)]
    assert before != aim_of(learning, policy)
    assert [before, aim_of(learning, policy)] == [first.dual_price, then.dual_price]
