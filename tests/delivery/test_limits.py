import math
from bisect import bisect_right
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config_values import Rate
from engine.delivery.limits import (
    NOT_BY_WAITING,
    Concurrency,
    ConnectionLimit,
    TokenBucket,
    binding_limit,
    restored_bucket,
)
from protocols.records import DestinationRecord

T0 = 1_790_000_000_000


def bucket(rate_per_s: float, burst: int, level: float | None = None) -> TokenBucket:
    full = float(burst) if level is None else level
    return TokenBucket("destination", "x.test", rate_per_s, burst, full, T0)


def test_asking_takes_nothing() -> None:
    limit = bucket(2.0, 3)
    for _ in range(10):
        assert limit.ready_at_unix_ms(T0) == T0
    assert limit.whole_at(T0) == 3


def test_an_empty_bucket_says_when() -> None:
    limit = bucket(2.0, 3, level=0.0)
    assert limit.ready_at_unix_ms(T0) == T0 + 500
    assert limit.ready_at_unix_ms(T0, messages=3) == T0 + 1500
    # More than a burst never passes at once; the question is answered for a burst.
    assert limit.ready_at_unix_ms(T0, messages=50) == T0 + 1500
    assert limit.ready_at_unix_ms(T0 + 500) == T0 + 500


def test_a_change_of_rate_keeps_what_was_earned_and_no_more() -> None:
    limit = bucket(10.0, 100, level=0.0)
    limit.change_rate(Rate(1.0, 100), T0 + 2000)
    assert limit.level_at(T0 + 2000) == 20.0
    assert limit.level_at(T0 + 5000) == 23.0
    limit.change_rate(Rate(50.0, 5), T0 + 5000)
    assert limit.level_at(T0 + 5000) == 5.0


def test_a_clock_set_back_gives_nothing() -> None:
    limit = bucket(10.0, 100, level=7.0)
    limit.charge(7, T0)
    assert limit.whole_at(T0 - 86_400_000) == 0
    assert limit.ready_at_unix_ms(T0 - 86_400_000) == T0 - 86_400_000 + 100


@given(
    st.floats(0.001, 5000.0),
    st.integers(1, 200),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 50)), min_size=1, max_size=80),
)
def test_no_window_ever_holds_more_than_the_limit(
    rate_per_s: float, burst: int, steps: list[tuple[int, int]]
) -> None:
    limit = bucket(rate_per_s, burst)
    now = T0
    passed: list[tuple[int, int]] = []
    for pause_ms, wanted in steps:
        now += pause_ms
        if binding_limit([limit], now)[0] is None:
            count = min(wanted, limit.whole_at(now))
            limit.charge(count, now)
            passed.append((now, count))
    for first in range(len(passed)):
        total = 0
        for at, count in passed[first:]:
            total += count
            # The window from the first to this one, ends included; a hair for rounding.
            allowed = burst + rate_per_s * (at - passed[first][0]) / 1000.0
            assert total <= allowed + 1e-3


@given(st.floats(0.001, 5000.0), st.integers(1, 200), st.floats(0.0, 1.0))
def test_at_the_time_that_was_named_it_is_ready(
    rate_per_s: float, burst: int, fullness: float
) -> None:
    limit = bucket(rate_per_s, burst, level=burst * fullness)
    ready = limit.ready_at_unix_ms(T0, burst)
    assert ready >= T0
    limit.charge(burst, int(ready))
    # And not much sooner: two milliseconds earlier it was not.
    if ready > T0 + 2:
        assert bucket(rate_per_s, burst, level=burst * fullness).whole_at(int(ready) - 2) < burst


def test_a_steady_rate_is_used_up() -> None:
    limit = bucket(20.0, 2)
    now, passed = T0, 0
    while now < T0 + 60_000:
        limit.charge(1, now)
        passed += 1
        now = int(limit.ready_at_unix_ms(now))
    assert 0.98 * 1200 <= passed <= 1202


@pytest.mark.parametrize(
    ("stored", "level", "at"),
    [
        (DestinationRecord(), 10.0, T0 + 5000),  # new: full
        (DestinationRecord(bucket_level=4.0, bucket_unix_ms=T0 + 1000), 4.0, T0 + 1000),
        (DestinationRecord(bucket_level=4.0, bucket_unix_ms=T0 - 1), 0.0, T0),  # crash in between
        (DestinationRecord(bucket_level=4.0, bucket_unix_ms=T0), 0.0, T0),
        (DestinationRecord(bucket_level=400.0, bucket_unix_ms=T0 + 1000), 10.0, T0 + 1000),
    ],
)
def test_a_bucket_comes_back_as_it_was_left(
    stored: DestinationRecord, level: float, at: int
) -> None:
    limit = restored_bucket(
        "x.test", Rate(1.0, 10), stored, started_unix_ms=T0, now_unix_ms=T0 + 5000
    )
    assert (limit.level, limit.at_unix_ms) == (level, at)


def test_restarts_refill_nothing() -> None:
    """A process that crashes every second and has a limit of one mail a minute, burst 5."""
    record = DestinationRecord()
    passed: list[int] = []
    for life in range(600):
        now = T0 + life * 1000
        limit = restored_bucket(
            "x.test", Rate(1 / 60, 5), record, started_unix_ms=now, now_unix_ms=now
        )
        # What the actor does before its first mail: the bucket is on disk before it is used.
        record = DestinationRecord(bucket_level=limit.level, bucket_unix_ms=limit.at_unix_ms)
        count = limit.whole_at(now)
        limit.charge(count, now)
        passed += [now] * count
    assert len(passed) <= 5 + 10
    assert bisect_right(passed, T0 + 60_000) <= 6


def test_the_binding_limit_is_the_one_that_frees_last() -> None:
    connections = ConnectionLimit("site", "mx.test", ceiling=2)
    slow, slower = bucket(1.0, 1, level=0.0), bucket(0.1, 1, level=0.0)
    assert binding_limit([], T0) == (None, T0)
    assert binding_limit([connections], T0) == (None, T0)
    assert binding_limit([slow, connections, slower], T0) == (slower, T0 + 10_000)
    connections.open = 2
    assert binding_limit([slow, connections, slower], T0) == (connections, NOT_BY_WAITING)
    assert connections.code == "connection_limit"
    assert slow.code == "rate_limit"
    assert math.isinf(NOT_BY_WAITING)


def test_concurrency_grows_by_one_for_each_good_cohort() -> None:
    grown = Concurrency(ceiling=5)
    assert grown.allowed == 2
    seen = []
    for _ in range(60):
        grown.delivered(1)
        seen.append(grown.allowed)
    assert seen == sorted(seen)
    # Two connections with three deliveries each, then three with three, and so on.
    assert [seen.index(allowed) + 1 for allowed in (3, 4, 5)] == pytest.approx([7, 17, 30], abs=3)
    assert seen[-1] == 5


def test_concurrency_shrinks_to_what_was_shown_to_fit() -> None:
    grown = Concurrency(ceiling=20, earned=12.0)
    grown.failed(still_open=11)
    assert grown.allowed == 11
    grown.failed(still_open=3)
    assert grown.allowed == 3
    for _ in range(10):
        grown.failed(still_open=0)
    assert grown.allowed == 1
    assert Concurrency(ceiling=1).allowed == 1


def test_one_more_than_fits_is_tried_more_and_more_rarely() -> None:
    grown = Concurrency(ceiling=20, earned=8.0)
    tries: list[int] = []
    for delivery in range(20_000):
        grown.delivered(1)
        if grown.allowed == 9:
            tries.append(delivery)
            grown.failed(still_open=8)
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert waits[0] > 24
    assert all(later >= 1.8 * earlier for earlier, later in pairwise(waits[:4]))
    assert len(tries) < 25


def test_a_receiver_that_changes_its_mind_is_believed() -> None:
    grown = Concurrency(ceiling=20, earned=8.0)
    for _ in range(6):
        grown.failed(still_open=8)
    for _ in range(6000):
        grown.delivered(1)
    assert grown.allowed == 20
