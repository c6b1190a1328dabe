"""Policies: what they accept, how they are described, and where on a front they stand."""

import math
from decimal import Decimal

import numpy as np
import pytest

from optllm_router.core.front import pareto_front
from optllm_router.core.policy import (
    SUPPORTED_PER,
    Budget,
    Cheapest,
    Fixed,
    Knee,
    MostAccurate,
    TargetAccuracy,
    WillingnessToPay,
    describe,
    dual_price,
    nearest,
    policy_from_config,
    select,
)
from optllm_router.errors import ConfigError, InfeasiblePolicyError

EVERY_POLICY = [
    Budget(usd=5),
    Budget(usd=5, per="call"),
    TargetAccuracy(0.9),
    WillingnessToPay(0.02),
    Knee(),
    Cheapest(),
    MostAccurate(),
    Fixed("b"),
]


def a_front():
    """Points cost 2, 4, 6 and reach .35, .65, .85; their prices are .3, .2, 0."""
    return pareto_front([[0.2, 0.8, 0.4], [0.5, 0.6, 0.9]], [[1, 3, 2], [1, 2, 3]])


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Budget(usd=0), "`usd` is 0, but a budget is a positive, finite amount"),
        (lambda: Budget(usd=-1), "`usd` is -1, but a budget is a positive"),
        (lambda: Budget(usd=math.inf), "`usd` is inf, but a budget is a positive"),
        (lambda: Budget(usd=math.nan), "`usd` is nan, but a number is needed"),
        (lambda: Budget(usd="5"), "`usd` is '5', but a number is needed"),
        (lambda: Budget(usd=True), "`usd` is True, but a number is needed"),
        (lambda: Budget(usd=None), "`usd` is None, but a number is needed"),
        (lambda: TargetAccuracy(0), "`accuracy` is 0, but a target lies in (0, 1]"),
        (lambda: TargetAccuracy(90), "`accuracy` is 90, but a target lies in (0, 1]: 90 % is 0.9"),
        (lambda: TargetAccuracy(math.nan), "`accuracy` is nan, but a number is needed"),
        (lambda: TargetAccuracy(0.9, confidence=0), "`confidence` is 0, but it lies strictly"),
        (lambda: TargetAccuracy(0.9, confidence=1), "`confidence` is 1, but it lies strictly"),
        (lambda: TargetAccuracy(0.9, confidence=math.nan), "`confidence` is nan, but a number"),
        (lambda: WillingnessToPay(0), "`usd_per_success` is 0, but the worth of a success"),
        (lambda: WillingnessToPay(-0.1), "`usd_per_success` is -0.1, but the worth"),
        (lambda: WillingnessToPay(math.inf), "`usd_per_success` is inf, but the worth"),
        (lambda: WillingnessToPay(math.nan), "`usd_per_success` is nan, but a number"),
        (lambda: Fixed(""), "`column` is '', but it names one candidate"),
        (lambda: Fixed(3), "`column` is 3, but it names one candidate"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_when_it_is_said(build, said):
    with pytest.raises(ConfigError) as caught:
        build()

    assert str(caught.value).startswith(said)


def test_a_budget_of_a_window_across_calls_is_shared():
    assert ["call", "batch"] == [per for per in SUPPORTED_PER if not Budget(5, per=per).is_shared]
    assert Budget(5, per="session").is_shared


@pytest.mark.parametrize(("per", "hint"), [("bath", " (did you mean 'batch'?)"), (7, "")])
def test_an_unknown_window_names_the_nearest_and_the_supported(per, hint):
    with pytest.raises(ConfigError) as caught:
        Budget(usd=5, per=per)

    assert str(caught.value) == (
        f"`per` is {per!r}{hint}: a budget is per 'call', 'batch', 'session', 'hour', 'day', "
        "'week', 'month', 'total'."
    )


def test_numbers_of_every_type_become_floats_and_equal_policies_are_equal():
    assert Budget(usd=5) == Budget(usd=Decimal(5)) == Budget(np.float64(5.0))
    assert type(Budget(usd=5).usd) is float
    assert TargetAccuracy(accuracy=1) == TargetAccuracy(1.0, confidence=0.5)
    assert hash(Knee()) == hash(Knee())


def test_a_policy_cannot_be_changed():
    with pytest.raises(AttributeError):
        Budget(usd=5).usd = 6


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (Budget(usd=5), "budget 5.00 USD per batch"),
        (Budget(usd=0.000125, per="call"), "budget 0.000125 USD per call"),
        (Budget(usd=5, per="day"), "budget 5.00 USD per day"),
        (TargetAccuracy(0.9), "target accuracy 0.9"),
        (TargetAccuracy(0.9, confidence=0.8), "target accuracy 0.9 at confidence 0.8"),
        (WillingnessToPay(0.02), "willingness to pay 0.02 USD per success"),
        (WillingnessToPay(1e-7), "willingness to pay 0.0000001 USD per success"),
        (Knee(), "knee"),
        (Cheapest(), "cheapest"),
        (MostAccurate(), "most accurate"),
        (Fixed("openai/gpt-4o"), "fixed on 'openai/gpt-4o'"),
    ],
)
def test_each_policy_has_a_short_text_for_logs(policy, told):
    assert describe(policy) == told


@pytest.mark.parametrize(
    ("kind", "settings", "policy"),
    [
        ("budget", {"usd": 2}, Budget(usd=2)),
        ("budget", {"usd": 2.0, "per": "call"}, Budget(usd=2, per="call")),
        ("budget", {"usd": 2.0, "per": "month"}, Budget(usd=2, per="month")),
        ("target_accuracy", {"accuracy": 0.8}, TargetAccuracy(0.8)),
        ("willingness_to_pay", {"usd_per_success": 0.02}, WillingnessToPay(0.02)),
        ("knee", {}, Knee()),
        ("cheapest", {}, Cheapest()),
        ("most_accurate", {}, MostAccurate()),
        ("fixed", {"column": "gpt"}, Fixed("gpt")),
    ],
)
def test_each_kind_is_built_from_its_settings(kind, settings, policy):
    assert policy_from_config(kind, **settings) == policy


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("buget", {"usd": 2}, "no policy of kind 'buget' (did you mean 'budget'?)"),
        (None, {}, "no policy of kind None: the kinds are 'budget', 'target_accuracy'"),
        ("budget", {"ust": 2}, "has no setting 'ust' (did you mean 'usd'?): it takes 'usd', 'per'"),
        ("knee", {"usd": 2}, "the policy 'knee' has no setting 'usd': it takes no settings."),
        ("budget", {"per": "call"}, "the policy 'budget' needs the setting 'usd'"),
        ("budget", {"usd": "much"}, "`usd` is 'much', but a number is needed"),
        ("budget", {"usd": 2, "per": "dya"}, "`per` is 'dya' (did you mean 'day'?): a budget is"),
    ],
)
def test_a_mistake_in_the_config_names_the_nearest_valid_word(kind, settings, said):
    with pytest.raises(ConfigError) as caught:
        policy_from_config(kind, **settings)

    assert said in str(caught.value)


def test_a_budget_fills_what_its_point_leaves_over():
    selection = select(Budget(usd=5), a_front())

    assert selection.choice.tolist() == [1, 1]
    assert selection.point == 1
    assert selection.reason == "budget 5.00 USD per batch: 5.00 USD expected"
    assert selection.feasible


def test_a_budget_per_call_gives_each_query_its_best_column_within_it():
    selection = select(Budget(usd=2, per="call"), a_front())

    assert selection.choice.tolist() == [2, 1]
    assert selection.point is None
    assert selection.reason == "budget 2.00 USD per call"


def test_a_target_takes_the_first_point_that_reaches_it():
    selection = select(TargetAccuracy(0.65), a_front())

    assert (selection.point, selection.choice.tolist()) == (1, [1, 0])
    assert selection.reason == "target accuracy 0.65: point 2 of 3"


def test_a_target_believes_the_honest_accuracy_also_where_it_falls():
    honest = np.array([0.3, 0.62, 0.6])

    assert select(TargetAccuracy(0.6), a_front(), honest_accuracy=honest).point == 1
    assert select(TargetAccuracy(0.62), a_front(), honest_accuracy=honest).point == 1
    assert select(TargetAccuracy(0.3), a_front(), honest_accuracy=honest).point == 0


def test_a_point_of_unknown_accuracy_reaches_no_target():
    honest = np.array([np.nan, 0.5, 0.7])

    assert select(TargetAccuracy(0.1), a_front(), honest_accuracy=honest).point == 1
    with pytest.raises(InfeasiblePolicyError):
        select(TargetAccuracy(0.1), a_front(), honest_accuracy=np.full(3, np.nan))


@pytest.mark.parametrize(
    ("usd_per_success", "point"),
    [(3.0, 0), (1 / 0.301, 0), (1 / 0.299, 1), (1 / 0.201, 1), (1 / 0.199, 2), (1000.0, 2)],
)
def test_a_willingness_to_pay_buys_every_cheaper_success(usd_per_success, point):
    assert select(WillingnessToPay(usd_per_success), a_front()).point == point


def test_a_success_that_costs_exactly_what_it_is_worth_is_not_bought():
    front = pareto_front([[0.25, 0.75]], [[0, 1]])

    assert select(WillingnessToPay(2.0), front).choice.tolist() == [0]
    assert select(WillingnessToPay(2.1), front).choice.tolist() == [1]


@pytest.mark.parametrize(("policy", "point"), [(Knee(), 1), (Cheapest(), 0), (MostAccurate(), 2)])
def test_the_knee_and_both_ends_are_points(policy, point):
    front = a_front()
    selection = select(policy, front)

    assert selection.point == point
    assert selection.choice.tolist() == front.choice(point).tolist()


def test_a_fixed_column_serves_every_query():
    selection = select(Fixed("b"), a_front(), columns=["a", "b", "c"])

    assert (selection.point, selection.choice.tolist()) == (None, [1, 1])
    assert selection.reason == "fixed on 'b'"


def test_queries_that_cannot_use_the_fixed_column_get_their_most_accurate():
    allowed = [[True, False, True], [True, True, True]]
    front = pareto_front([[0.2, 0.8, 0.4], [0.5, 0.6, 0.9]], [[1, 3, 2], [1, 2, 3]], allowed)
    selection = select(Fixed("b"), front, columns=["a", "b", "c"])

    assert selection.choice.tolist() == [2, 1]
    assert selection.reason == "fixed on 'b': 1 of 2 queries cannot use it"


def test_a_fixed_column_that_does_not_exist_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        select(Fixed("gpt-4p"), a_front(), columns=["gpt-4o", "claude", "llama"])

    assert str(caught.value) == (
        "the policy fixed on 'gpt-4p' names no column (did you mean 'gpt-4o'?): the columns are "
        "'gpt-4o', 'claude', 'llama'."
    )


def test_column_names_and_honest_accuracies_must_fit_the_front():
    with pytest.raises(ValueError, match="`columns` has 0 names for the front's 3 columns"):
        select(Fixed("b"), a_front())
    with pytest.raises(
        ValueError, match=r"`honest_accuracy` has shape \(2,\), but the front has 3"
    ):
        select(TargetAccuracy(0.5), a_front(), honest_accuracy=np.ones(2))


@pytest.mark.parametrize(
    ("policy", "asked", "least", "choice", "point"),
    [
        (Budget(usd=1.5), 1.5, 2.0, [0, 0], 0),
        (Budget(usd=0.5, per="call"), 0.5, 1.0, [0, 0], None),
        (TargetAccuracy(0.95), 0.95, 0.85, [1, 2], 2),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_plan_and_approached_in_a_live_call(
    policy, asked, least, choice, point
):
    with pytest.raises(InfeasiblePolicyError) as caught:
        select(policy, a_front())
    selection = nearest(policy, a_front())

    assert caught.value.asked == asked
    assert caught.value.nearest == pytest.approx(least, abs=1e-15)
    assert (selection.choice.tolist(), selection.point) == (choice, point)
    assert not selection.feasible
    assert selection.reason.startswith(f"{describe(policy)} is out of reach, nearest is ")


def test_a_budget_per_call_that_one_query_breaks_keeps_the_others_within_it():
    front = pareto_front([[0.1, 0.9], [0.1, 0.9]], [[1, 2], [3, 4]])

    with pytest.raises(
        InfeasiblePolicyError, match=r"1 of 2 queries, the first in row 1"
    ) as caught:
        select(Budget(usd=2, per="call"), front)

    assert caught.value.nearest == 3.0
    assert nearest(Budget(usd=2, per="call"), front).choice.tolist() == [1, 0]


def test_the_nearest_to_an_honest_target_is_the_cheapest_point_that_comes_highest():
    honest = np.array([0.5, 0.7, 0.7])
    selection = nearest(TargetAccuracy(0.9), a_front(), honest_accuracy=honest)

    assert selection.point == 1
    assert selection.reason == "target accuracy 0.9 is out of reach, nearest is 0.7"


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_nearest_is_the_selection_where_that_is_feasible(policy):
    front = pareto_front([[0.2, 0.9, 0.95]], [[1, 3, 4]])
    expected = select(policy, front, columns=["a", "b", "c"])
    selection = nearest(policy, front, columns=["a", "b", "c"])

    assert selection.choice.tolist() == expected.choice.tolist()
    assert (selection.point, selection.reason) == (expected.point, expected.reason)
    assert selection.feasible


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_an_empty_batch_satisfies_every_policy(policy):
    front = pareto_front(np.zeros((0, 3)), np.zeros((0, 3)))
    selection = select(policy, front, columns=["a", "b", "c"])

    assert selection.choice.tolist() == []
    assert selection.choice.dtype == np.int64


@pytest.mark.parametrize(
    ("policy", "price"),
    [
        (Budget(usd=5), 0.2),
        (Budget(usd=2), 0.3),
        (Budget(usd=100), 0.0),
        (Budget(usd=1), math.inf),
        (Budget(usd=1, per="call"), 0.0),
        (TargetAccuracy(0.5), 0.2),
        (TargetAccuracy(0.99), 0.0),
        (WillingnessToPay(0.02), 50.0),
        (Knee(), 0.2),
        (Cheapest(), math.inf),
        (MostAccurate(), 0.0),
        (Fixed("b"), 0.0),
    ],
)
def test_each_policy_puts_a_price_on_money(policy, price):
    assert dual_price(policy, a_front()) == pytest.approx(price, abs=1e-15)


def test_the_price_of_an_honest_target_is_that_of_its_point():
    honest = np.array([0.2, 0.3, 0.4])

    assert dual_price(TargetAccuracy(0.35), a_front(), honest_accuracy=honest) == 0.0
    assert dual_price(TargetAccuracy(0.15), a_front(), honest_accuracy=honest) == pytest.approx(0.3)


def test_single_requests_at_the_dual_price_spend_the_batchs_budget():
    rng = np.random.default_rng(0)
    prob, cost = rng.random((2000, 5)), rng.random((2000, 5))
    front = pareto_front(prob, cost)
    usd = 0.5 * (front.cost_usd[0] + front.cost_usd[-1])
    price = dual_price(Budget(usd=usd), front)
    choice = (prob - price * cost).argmax(axis=1)

    assert front.cost_of(choice) == pytest.approx(usd, rel=1e-3)
