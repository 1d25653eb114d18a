"""`kill -9` at any moment, again and again, under load: nothing that was promised is lost.

The long form is `pytest --crash-rounds 500`, or `python -m tests.scenarios.crash`, which tells of
each round.
"""

import random
import sys
from pathlib import Path

import pytest

from tests.scenarios import crash
from tests.scenarios.small_bound import UNSETTLED_MAX

pytestmark = pytest.mark.slow

CONTROL_ROUNDS = 4


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    given: int | None = request.config.getoption("--crash-seed")
    chosen = random.SystemRandom().randrange(1 << 32) if given is None else given
    # Shown with whatever fails.
    crash.say(f"--crash-seed {chosen}")
    return chosen


def test_nothing_promised_is_lost_doubled_or_left_untold(
    tmp_path: Path, seed: int, request: pytest.FixtureRequest
) -> None:
    rounds: int = request.config.getoption("--crash-rounds")
    books = crash.run(tmp_path, rounds, seed, tell=crash.say)
    assert crash.faults(books) == [], books.summary()
    # The kills came while mail was coming in and going out, or they proved nothing.
    assert books.kills == rounds
    assert len(books.ledger.acknowledged) > 10 * rounds
    assert books.ledger.unanswered
    assert books.ledger.repeats
    assert books.heard.connections > rounds // 4
    assert any(len(places) > 1 for places in books.taken.values())


def test_the_bound_on_duplicates_is_what_bounds_them(tmp_path: Path, seed: int) -> None:
    """With a bound far below what is otherwise in flight, no kill repeats more than that."""
    command = (sys.executable, "-m", "tests.scenarios.small_bound")
    books = crash.run(tmp_path, CONTROL_ROUNDS, seed, command=command)
    assert crash.faults(books) == [], books.summary()
    again = books.duplicates()
    assert 0 < max(again) <= UNSETTLED_MAX, again


def test_control_an_answer_before_the_commit_loses_mail(tmp_path: Path, seed: int) -> None:
    command = (sys.executable, "-m", "tests.scenarios.early_answer")
    books = crash.run(tmp_path, CONTROL_ROUNDS, seed, command=command)
    assert any("no event" in fault for fault in crash.lost(books)), books.summary()


def test_control_a_subscriber_that_starts_over_has_holes(tmp_path: Path, seed: int) -> None:
    books = crash.run(tmp_path, CONTROL_ROUNDS, seed, resumes=False)
    found = list(crash.unheard(books))
    assert any("follows" in fault for fault in found), books.summary()
    assert "the subscriber did not hear what the log says" in found
