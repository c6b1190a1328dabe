"""Limits per candidate, with a given clock."""

from optllm_router.dispatch.limits import Limit


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_no_more_than_so_many_are_in_at_once():
    limit = Limit(at_once=2, per_minute=None, clock=Clock())

    assert [0.0, 0.0] == [limit.enter(), limit.enter()]
    assert limit.enter() > 0
    limit.leave()
    assert 0.0 == limit.enter()


def test_no_more_than_so_many_get_in_within_any_minute():
    clock = Clock()
    limit = Limit(at_once=None, per_minute=2, clock=clock)
    entered = []
    for _ in range(200):
        wait_s = limit.enter()
        if wait_s == 0:
            limit.leave()
            entered.append(clock.now_s)
        clock.now_s += max(wait_s, 7.0)

    assert all(later - earlier >= 60 for earlier, later in zip(entered, entered[2:], strict=False))
    assert 40 < len(entered)


def test_a_full_house_costs_nothing_of_the_minute():
    limit = Limit(at_once=1, per_minute=2, clock=Clock())
    limit.enter()
    for _ in range(5):
        limit.enter()
    limit.leave()

    assert 0.0 == limit.enter()
