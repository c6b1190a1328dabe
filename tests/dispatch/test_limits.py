"""Limits per candidate, with a given clock."""

from optllm_router.dispatch.limits import Limit


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_no_more_than_so_many_are_in_at_once():
    limit = Limit(at_once=2, per_minute=None, clock=Clock())

    assert [0.0, 0.0] == [limit.enter(object()), limit.enter(object())]
    assert limit.enter(object()) > 0
    limit.leave()
    assert 0.0 == limit.enter(object())


def test_no_more_than_so_many_get_in_within_any_minute():
    clock = Clock()
    limit = Limit(at_once=None, per_minute=2, clock=clock)
    entered = []
    for _ in range(200):
        wait_s = limit.enter(object())
        if wait_s == 0:
            limit.leave()
            entered.append(clock.now_s)
        clock.now_s += max(wait_s, 7.0)

    assert all(later - earlier >= 60 for earlier, later in zip(entered, entered[2:], strict=False))
    assert 40 < len(entered)


def test_a_full_house_costs_nothing_of_the_minute():
    limit = Limit(at_once=1, per_minute=2, clock=Clock())
    limit.enter(object())
    for _ in range(5):
        limit.enter(object())
    limit.leave()

    assert 0.0 == limit.enter(object())


def test_who_steps_back_has_not_been_in():
    clock = Clock()
    limit = Limit(at_once=1, per_minute=2, clock=clock)
    limit.enter("sent")
    limit.leave()
    for _ in range(5):
        clock.now_s += 1.0
        assert 0.0 == limit.enter("unsent")
        limit.step_back("unsent")
    clock.now_s = 59.0
    limit.enter("late")
    limit.leave()

    assert 1.0 == limit.enter("later")
    clock.now_s = 60.0
    assert 0.0 == limit.enter("later")
