"""The wall clock jumps two days back and two days on while mail waits: nothing stalls or expires.

Expiry is after three days here, so that two of them are no reason for it.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.scene import Scene, scene
from tests.scenarios.stepping_clock import SteppingClock

pytestmark = pytest.mark.slow

TWO_DAYS_MS = 2 * 86_400_000


@pytest.fixture
def clock(tmp_path: Path) -> SteppingClock:
    return SteppingClock(tmp_path / "clock")


@pytest.fixture
def at_odds(tmp_path: Path, clock: SteppingClock) -> Iterator[Scene]:
    with scene(tmp_path, "[delivery]\nretry_s = [1]\n", command=clock.command()) as made:
        yield made


def waiting(name: str) -> list[str]:
    """Addresses whose mail waits for a second attempt."""
    return [f"451-after-rcpt.1+{name}{number}@d{number}.fast.test" for number in range(5)]


def wait_for_deferrals(at_odds: Scene, count: int) -> None:
    at_odds.wait_for("deferrals", lambda: at_odds.counts().get("deferred") == count)


@pytest.mark.parametrize("off_ms", [-TWO_DAYS_MS, TWO_DAYS_MS])
def test_mail_goes_on_through_a_step_and_back(
    at_odds: Scene, clock: SteppingClock, off_ms: int
) -> None:
    addresses: list[str] = []
    for number, step in enumerate((off_ms, 0)):
        before = waiting(f"before-{number}-")
        at_odds.send(before)
        wait_for_deferrals(at_odds, len(before))
        clock.step(step)
        after = waiting(f"after-{number}-")
        at_odds.send(after)
        addresses += before + after
        assert at_odds.wait_until_final() == {"delivered": len(addresses)}
    assert sorted(at_odds.delivered()) == sorted(addresses), "each once"


def test_an_engine_that_starts_with_a_clock_set_back_goes_on(
    at_odds: Scene, clock: SteppingClock
) -> None:
    clock.step(TWO_DAYS_MS)
    addresses = waiting("ahead")
    at_odds.send(addresses)
    wait_for_deferrals(at_odds, len(addresses))
    at_odds.engine.kill()
    # Two days behind everything that its spool knows.
    clock.step(0)
    at_odds.engine.start()
    at_odds.engine.wait_until_ready()
    later = waiting("behind")
    at_odds.send(later)
    assert at_odds.wait_until_final() == {"delivered": 2 * len(later)}
    assert set(at_odds.delivered()) == {*addresses, *later}
