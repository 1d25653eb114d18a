import random

import pytest

from engine.delivery.retry import RetrySchedule

SCHEDULE = RetrySchedule((300, 600, 1200, 2400, 4800, 9600, 14400), (300, 900))


class Middle(random.Random):
    """Chance without chance: always the middle."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@pytest.mark.parametrize(
    ("failures", "wait_s"),
    [(1, 300), (2, 600), (3, 1200), (6, 9600), (7, 14400), (8, 14400), (500, 14400)],
)
def test_the_last_wait_repeats(failures: int, wait_s: int) -> None:
    assert SCHEDULE.wait_ms(failures, Middle()) == wait_s * 1000


@pytest.mark.parametrize(("failures", "wait_s"), [(1, 300), (2, 600), (3, 900), (9, 900)])
def test_greylisting_never_waits_longer(failures: int, wait_s: int) -> None:
    assert SCHEDULE.wait_ms(failures, Middle(), greylisted=True) == wait_s * 1000


def test_without_a_greylisting_schedule_the_ordinary_one_serves() -> None:
    assert RetrySchedule((7,), ()).wait_ms(1, Middle(), greylisted=True) == 7000


def test_jitter_spreads_over_a_fifth_to_both_sides() -> None:
    rand = random.Random(1)
    waits = [SCHEDULE.wait_ms(1, rand) for _ in range(2000)]
    assert 240_000 <= min(waits) < 246_000
    assert 354_000 < max(waits) <= 360_000
    assert abs(sum(waits) / len(waits) - 300_000) < 3000
