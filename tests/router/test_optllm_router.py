"""A router that predicts and searches as OptLLM does: chosen in the settings, kept in the log."""

import pytest

from optllm_router import (
    Budget,
    ConfigError,
    Knee,
    MostAccurate,
    TargetAccuracy,
    WillingnessToPay,
)
from optllm_router.core.forest import ForestPredictor

FOREST = {"kind": "forest", "n_bootstraps": 2}
TEXTS = [f"{kind} question number {i}" for i in range(12) for kind in ("easy", "hard")]


@pytest.fixture(scope="module")
def forested(tmp_path_factory):
    """The log of a router that has learned by forests, made once."""
    return tmp_path_factory.mktemp("forested") / "log.db"


def by_forest(make_router, train, forested, **settings):
    is_new = not forested.exists()
    router = make_router(predictor=FOREST, store=f"sqlite:///{forested}", **settings)
    if is_new:
        train(router)
    return router


def test_a_forest_is_fitted_published_and_read_back(make_router, train, forested):
    first = by_forest(make_router, train, forested)
    second = make_router(store=f"sqlite:///{forested}")
    kept, read = (router._engine.state.snapshot for router in (first, second))

    assert "forest" == kept.kind == read.kind == read.metrics["kind"]
    assert isinstance(read.predictor, ForestPredictor)
    assert kept.to_bytes() == read.to_bytes()
    plans = [router.plan(TEXTS, policy=TargetAccuracy(0.9)) for router in (first, second)]
    assert plans[0].choice.tolist() == plans[1].choice.tolist()
    assert plans[0].estimates.prob.tobytes() == plans[1].estimates.prob.tobytes()


def test_a_forest_routes_easy_questions_to_cheap_and_hard_ones_to_dear(
    make_router, train, forested, client, ask
):
    router = by_forest(make_router, train, forested, policy=WillingnessToPay(0.005))
    router.complete("auto", ask("easy question number 3"))
    router.complete("auto", ask("hard question number 3"))
    router.complete_batch(TEXTS, concurrency=1)

    assert ["cheap", "dear"] == [call.candidate for call in client.calls[:2]]
    assert ["cheap", "dear"] * 12 == [call.candidate for call in client.calls[2:]]


def test_check_says_when_another_kind_is_configured_than_published(make_router, trained):
    router = trained(predictor=FOREST)

    assert (
        "the published predictor is a ridge, the settings say 'forest': the next refit brings it, "
        "or `retrain`"
    ) in router.check()
    assert router.retrain().published
    assert not [remark for remark in router.check() if "predictor is a" in remark]


def test_a_kind_may_stand_for_the_predictors_table(make_router):
    router = make_router(predictor="forest")

    assert ("forest", 50) == (router.config.predictor.kind, router.config.predictor.n_bootstraps)
    with pytest.raises(ConfigError, match="'ridge' or 'forest'"):
        make_router(predictor="trees")


def test_a_plan_takes_what_destroy_and_repair_finds(trained):
    exact, searching = trained(), trained(search="destroy_repair")
    for policy in (Knee(), MostAccurate(), TargetAccuracy(0.9), Budget(0.02)):
        ours, found = (router.plan(TEXTS, policy=policy) for router in (exact, searching))

        assert found.reason.endswith("by destroy and repair")
        assert not ours.reason.endswith("by destroy and repair")
        assert ours.front.cost_usd.tolist() == found.front.cost_usd.tolist()


def test_a_searched_batch_keeps_to_its_budget(trained, client):
    router = trained(search="destroy_repair")
    answers = router.complete_batch(TEXTS, policy=Budget(0.02), concurrency=1, max_tokens=200)
    spent = sum({"cheap": 150, "middling": 450, "dear": 1_500}[c.candidate] for c in client.calls)

    assert 24 == len(answers)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert spent <= 20_000
    assert {"cheap", "dear"} <= {call.candidate for call in client.calls}


def test_single_calls_are_decided_by_the_price_of_the_exact_front_as_ever(trained):
    for policy in (Knee(), TargetAccuracy(0.9)):
        aims = [
            router._engine.state.aim_of(policy)
            for router in (trained(), trained(search="destroy_repair"))
        ]

        assert aims[0] == aims[1]
