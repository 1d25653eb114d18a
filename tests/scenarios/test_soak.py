"""Everything at once, for a few seconds: the short form of `python -m tests.scenarios.soak`."""

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.scenarios import crash, soak
from tests.scenarios.soak_measures import RISE_MAX, Sample, faults_of, growth_of

pytestmark = pytest.mark.slow

SECONDS = 8.0
RATE_PER_S = 20.0


def test_nothing_is_lost_or_told_wrong_with_everything_going_on(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    crash.say(f"seed {seed}")
    report = soak.run(tmp_path, soak.Plan(SECONDS, RATE_PER_S, seed), tell=crash.say)
    assert report.faults == [], report.lines()
    # Everything took part, or it proved nothing.
    books = report.books
    assert len(books.lives) > 1
    assert books.ledger.acknowledged
    assert books.campaigns
    assert all(report.deeds.values())
    assert Counter(story.statuses[-1] for story in books.heard.stories.values())["delivered"]


def test_control_what_leaks_is_said_to_grow() -> None:
    flat = [Sample(float(at), 50_000_000, 40, 8, 20_000_000, at) for at in range(60)]
    assert faults_of(growth_of(flat)) == []
    leaking = [
        Sample(float(at), 50_000_000 + at * 400_000, 40 + 2 * at, 8 + at // 3, at * 10**6, at)
        for at in range(60)
    ]
    assert len(faults_of(growth_of(leaking))) == len(RISE_MAX)
