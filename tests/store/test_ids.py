"""Ids: valid UUIDs of version 7 whose order is the order of time."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from optllm_router.store.ids import IdSource, new_id, uuid7

MOMENTS = st.integers(min_value=0, max_value=2**47 * 1_000_000)
RANDOM = st.integers(min_value=0, max_value=2**54 - 1)


@given(MOMENTS, RANDOM)
def test_an_id_is_a_uuid_of_version_7_that_holds_its_milliseconds(now_ns, rand):
    found = uuid.UUID(uuid7(now_ns, rand))

    assert 7 == found.version
    assert uuid.RFC_4122 == found.variant
    assert now_ns // 1_000_000 == found.int >> 80


@given(MOMENTS, MOMENTS, RANDOM, RANDOM)
def test_ids_sort_like_their_nanoseconds(one_ns, other_ns, one_rand, other_rand):
    one, other = uuid7(one_ns, one_rand), uuid7(other_ns, other_rand)

    if one_ns != other_ns:
        assert (one < other) == (one_ns < other_ns)


def test_the_layout_is_time_version_fraction_variant_and_random_bits():
    assert "00000000-0001-7abc-b7bf-ffffffffffff" == uuid7(1_000_000 + 0xABCDE, 2**54 - 1)
    assert "00000000-0000-7000-8000-000000000000" == uuid7(0, 2**54)


def test_ids_grow_while_the_clock_stands_or_steps_back():
    clock = iter([5_000, 5_000, 4_000, 4_000, 6_000])
    source = IdSource(clock_ns=lambda: next(clock), randbits=lambda _bits: 0)
    ids = [source() for _ in range(5)]

    assert sorted(set(ids)) == ids


def test_ids_of_many_threads_are_distinct_and_each_thread_sees_them_grow():
    with ThreadPoolExecutor(8) as threads:
        batches = list(threads.map(lambda _: [new_id() for _ in range(1_000)], range(8)))

    assert 8_000 == len({one for batch in batches for one in batch})
    assert all(sorted(batch) == batch for batch in batches)
