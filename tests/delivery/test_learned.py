"""What replies teach, as arithmetic: tables in virtual time, and a bucket that never breaks it."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config_values import Rate, Step
from engine.delivery.learned import (
    FALLS_APART_MS,
    MINUTE_MS,
    RATE_PER_S_MIN,
    Learned,
    fallen,
    pinned,
    reacted,
    suspended,
    text_of,
    unpinned,
)
from engine.delivery.throttles import Flow, Throttle
from protocols.named_waits import named_wait_ms

T0 = 1_790_000_000_000
REPLY = "421 4.7.0 too many messages"


def fall(
    learned: Learned, now_unix_ms: int, flow_per_s: float = 20.0, connections: int = 8
) -> Learned:
    after = fallen(
        learned,
        now_unix_ms,
        flow_per_s=flow_per_s,
        open_connections=connections,
        reply=REPLY,
    )
    assert after is not None
    return after


@pytest.mark.parametrize(
    ("minutes", "rate"),
    [(0, 10.0), (0.99, 10.0), (1, 12.0), (5, 20.0), (10, 30.0), (34, 78.0), (35, math.inf)],
)
def test_a_rate_falls_by_half_and_rises_by_a_tenth_a_minute(minutes: float, rate: float) -> None:
    learned = fall(Learned(), T0)
    assert learned.rate_at(T0 + round(minutes * MINUTE_MS)) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("minutes", "connections"), [(0, 4), (1.9, 4), (2, 5), (8, 8), (54, 31), (56, None)]
)
def test_connections_fall_by_half_and_rise_one_by_one(
    minutes: float, connections: int | None
) -> None:
    learned = fall(Learned(), T0)
    assert learned.connections_at(T0 + round(minutes * MINUTE_MS)) == connections


def test_one_burst_of_refusals_is_one_fall_and_a_later_one_another() -> None:
    learned = fall(Learned(), T0)
    for later_ms in (0, 1, FALLS_APART_MS - 1):
        assert (
            fallen(learned, T0 + later_ms, flow_per_s=10, open_connections=4, reply=REPLY) is None
        )
    again = fall(learned, T0 + FALLS_APART_MS, 10.0)
    assert again.rate_at(T0 + FALLS_APART_MS) == 5.0
    # It falls from what flowed, not from what would have been allowed.
    assert fall(again, T0 + 10 * MINUTE_MS, 1.0).rate_at(T0 + 10 * MINUTE_MS) == 0.5


def test_there_is_a_floor() -> None:
    learned, now = Learned(), T0
    for _ in range(20):
        learned = fall(learned, now, 0.1, 1)
        now += FALLS_APART_MS
    assert learned.rate_at(now) == RATE_PER_S_MIN
    assert learned.connections_at(now) == 1


def test_a_suspension_lasts_and_the_same_one_again_is_nothing_new() -> None:
    learned = suspended(Learned(), T0, 300_000, REPLY)
    assert learned is not None
    assert learned.suspended_until(T0) == T0 + 300_000
    assert suspended(learned, T0 + 1000, 300_000, REPLY) is None
    assert suspended(learned, T0 + 1000, 600_000, REPLY) is not None
    assert learned.is_nothing(T0 + 300_000)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("rate x0.25", "5/s"),
        ("rate 10/min for 30min", "10/min"),
        ("connections 1 for 30min", "1 connection"),
        ("suspend 2h", "nothing for 7200 s"),
    ],
)
def test_reactions(step: str, said: str) -> None:
    learned = reacted(Learned(), T0, Step.parse(step), flow_per_s=20.0, reply=REPLY)
    assert learned is not None
    assert text_of(learned, T0) == said
    assert text_of(learned, T0 + 4 * 3_600_000) == "no limit"
    assert reacted(learned, T0 + 10, Step.parse(step), flow_per_s=20.0, reply=REPLY) is None


def test_since_is_of_what_holds_now() -> None:
    first = fall(Learned(), T0)
    assert fall(first, T0 + 5 * MINUTE_MS).since_unix_ms == T0
    much_later = T0 + 10_000 * MINUTE_MS
    assert first.is_nothing(much_later)
    assert fall(first, much_later).since_unix_ms == much_later


def test_pinned_stands_still_and_goes_on_from_there() -> None:
    learned = pinned(fall(Learned(), T0), T0 + MINUTE_MS, rate=None, connections=None)
    much_later = T0 + 1000 * MINUTE_MS
    assert learned.rate_at(much_later) == 12.0
    assert fallen(learned, much_later, flow_per_s=12, open_connections=4, reply=REPLY) is None
    again = unpinned(learned, much_later)
    assert again.rate_at(much_later) == 12.0
    assert again.rate_at(much_later + MINUTE_MS) == 14.0
    own = pinned(Learned(), T0, rate=Rate.parse("30/min"), connections=3)
    assert (own.rate_at(much_later), own.connections_at(much_later)) == (0.5, 3)


def test_after_an_operators_own_limits_what_was_learned_before_rises_from_there() -> None:
    before = fall(Learned(), T0)
    own = pinned(before, T0 + MINUTE_MS, rate=Rate.parse("30/min"), connections=1)
    again = pinned(own, T0 + 2 * MINUTE_MS, rate=Rate.parse("10/min"), connections=None)
    as_it_is = pinned(again, T0 + 3 * MINUTE_MS, rate=None, connections=None)
    much_later = T0 + 1000 * MINUTE_MS
    for learned in (own, again, as_it_is):
        after = unpinned(learned, much_later)
        assert after.rate_at(much_later) == before.rate_at(T0 + MINUTE_MS) == 12.0
        assert after.rate_at(much_later + MINUTE_MS) == 14.0
        assert after.connections_at(much_later) == before.connections_at(T0 + MINUTE_MS)
        assert (after.under_pin, after.pinned_unix_ms) == (None, 0)
    nothing = pinned(Learned(), T0, rate=Rate.parse("1/s"), connections=None)
    assert text_of(unpinned(nothing, much_later), much_later) == "no limit"


def test_a_time_that_was_named_runs_on_under_an_operators_own_limits() -> None:
    asked = suspended(Learned(), T0, 300_000, REPLY)
    assert asked is not None
    own = pinned(asked, T0 + 1000, rate=Rate.parse("1/s"), connections=None)
    assert own.suspended_until(T0 + 2000) <= T0 + 2000
    assert unpinned(own, T0 + MINUTE_MS).suspended_until(T0 + MINUTE_MS) == T0 + 300_000
    held = pinned(asked, T0 + 1000, rate=None, connections=None)
    assert unpinned(held, T0 + MINUTE_MS).suspended_until(T0 + MINUTE_MS) == T0 + 359_000


def test_a_pin_that_an_older_program_stored_is_read() -> None:
    fields = [*msgspec.to_builtins(pinned(fall(Learned(), T0), T0, rate=None, connections=None))]
    stored = msgspec.msgpack.encode(fields[:-1])
    read = msgspec.msgpack.decode(stored, type=Learned)
    assert read.under_pin is None
    assert unpinned(read, T0 + MINUTE_MS).rate_at(T0 + MINUTE_MS) == read.rate


@pytest.mark.parametrize(
    ("reply", "wait_s"),
    [
        ("421 4.7.0 Slow down, try again in 5 minutes", 300),
        ("451 rate limit; retry after 120 seconds please", 120),
        ("450 too many, wait 1h", 3600),
        ("450 Try again in 99999 hours", 86_400),
        ("421 too many connections from 10.0.0.1", None),
        ("421 4.7.0 limit of 5 minutes", None),
        ("421 in 0 seconds", None),
    ],
)
def test_a_time_named_in_a_reply(reply: str, wait_s: int | None) -> None:
    assert named_wait_ms(reply) == (None if wait_s is None else wait_s * 1000)


def test_a_flow_is_measured_from_its_first_second_on() -> None:
    flow = Flow()
    for each in range(40):
        flow.add(1, T0 + each * 50)
    assert flow.per_s(T0 + 2000) == pytest.approx(20.0)
    for each in range(40, 400):
        flow.add(1, T0 + each * 50)
    assert flow.per_s(T0 + 20_000) == pytest.approx(20.0, rel=0.1)
    assert flow.per_s(T0 + 60_000) == 0.0


@given(
    st.lists(
        st.tuples(st.integers(1, 20_000), st.sampled_from(["go", "fall", "rule", "restart"])),
        max_size=60,
    ),
    st.floats(0.2, 50.0),
)
def test_no_window_is_above_the_limits_that_held_in_it(
    steps: list[tuple[int, str]], flow_per_s: float
) -> None:
    throttle = Throttle("site", "mx.test", T0)
    throttle.learned = fall(Learned(), T0, flow_per_s)
    now, sent, allowed = T0, 0, 0.0
    burst_max = 1
    for wait_ms, step in steps:
        before = throttle.limits(now)[-1].rate_per_s  # type: ignore[attr-defined]  # it has a bucket
        now += wait_ms
        # The rate rises within a wait at most to what holds at its end.
        after = throttle.learned.rate_at(now)
        if math.isinf(after):
            return
        rule = throttle.rule.per_s if throttle.rule else math.inf
        allowed += max(before, min(after, rule)) * wait_ms / 1000.0
        if step == "fall":
            again = fallen(
                throttle.learned, now, flow_per_s=flow_per_s, open_connections=2, reply=REPLY
            )
            throttle.learned = again or throttle.learned
        elif step == "rule":
            throttle.rule = Rate(flow_per_s / 3, 1) if throttle.rule is None else None
        elif step == "restart":
            throttle = Throttle("site", "mx.test", now, throttle.rule, throttle.learned)
        (bucket,) = throttle.limits(now)
        whole = bucket.whole_at(now)  # type: ignore[attr-defined]  # it is a bucket
        burst_max = max(burst_max, bucket.burst)  # type: ignore[attr-defined]  # it is a bucket
        throttle.charge(whole, now)
        sent += whole
        assert sent <= allowed + burst_max + 1e-3
