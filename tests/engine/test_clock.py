"""Wall time that may step, and the stamp that may not."""

import time

import pytest
import trio
from trio.testing import MockClock

from engine.clock import CATCH_UP_PACE, Stamp, SystemClock, VirtualClock


class SetClock:
    """A wall clock that is set by hand."""

    def __init__(self, now_unix_ms: int) -> None:
        self.at_unix_ms = now_unix_ms
        self.at_s = 0.0

    def now_unix_ms(self) -> int:
        return self.at_unix_ms

    def walk(self, seconds: float) -> None:
        self.at_s += seconds
        self.at_unix_ms += int(seconds * 1000)


def stamp_of(clock: SetClock, high_water_unix_ms: int = 0) -> Stamp:
    return Stamp(clock, high_water_unix_ms=high_water_unix_ms, monotonic_s=lambda: clock.at_s)


def test_the_system_clock_tells_milliseconds_since_1970() -> None:
    before = time.time() * 1000
    assert before - 1 <= SystemClock().now_unix_ms() <= time.time() * 1000


async def test_virtual_time_follows_trio(autojump_clock: MockClock) -> None:
    clock = VirtualClock(1_000_000)
    assert clock.now_unix_ms() == 1_000_000
    await trio.sleep(3_600.25)
    assert clock.now_unix_ms() == 4_600_250


def test_a_stamp_is_wall_time_while_that_goes_forward() -> None:
    clock = SetClock(5_000)
    stamp = stamp_of(clock)
    for _ in range(3):
        assert stamp.now_unix_ms() == clock.at_unix_ms
        clock.walk(1.5)
    clock.at_unix_ms += 3_600_000
    assert stamp.now_unix_ms() == clock.at_unix_ms
    assert stamp.ahead_ms == 0


def test_after_a_step_back_a_stamp_goes_on_and_wall_time_catches_up() -> None:
    clock = SetClock(10_000_000)
    stamp = stamp_of(clock)
    before = stamp.now_unix_ms()
    clock.at_unix_ms -= 60_000
    assert stamp.now_unix_ms() == before
    assert stamp.ahead_ms == 60_000
    clock.walk(100.0)
    assert stamp.now_unix_ms() == before + 100_000 * CATCH_UP_PACE
    # 60 s at a twentieth of the pace are made good in 1200 s.
    last = stamp.now_unix_ms()
    for _ in range(1300):
        clock.walk(1.0)
        now = stamp.now_unix_ms()
        assert now > last
        last = now
    assert stamp.ahead_ms == 0
    assert last == clock.at_unix_ms


@pytest.mark.parametrize("calls", [1, 1000])
def test_how_often_it_is_asked_changes_nothing(calls: int) -> None:
    clock = SetClock(0)
    stamp = stamp_of(clock, high_water_unix_ms=1_000_000)
    for _ in range(calls):
        clock.at_s += 10.0 / calls
        stamp.now_unix_ms()
    assert abs(stamp.now_unix_ms() - (1_000_000 + 10_000 * CATCH_UP_PACE)) <= 1


def test_a_restart_begins_where_the_last_run_ended() -> None:
    clock = SetClock(1_000)
    assert stamp_of(clock, high_water_unix_ms=9_000).now_unix_ms() == 9_000
    assert stamp_of(clock, high_water_unix_ms=500).now_unix_ms() == 1_000
