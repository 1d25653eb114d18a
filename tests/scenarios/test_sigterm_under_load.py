"""SIGTERM under load: an end in order. Nothing is lost, and nothing is delivered twice."""

import random
from pathlib import Path

import pytest

from engine.rehearsal.engine_process import EngineProcess
from tests.scenarios import crash

pytestmark = pytest.mark.slow

ROUNDS = 4


def test_what_was_begun_is_finished_and_nothing_goes_twice(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    crash.say(f"seed {seed}")
    ended_with: list[int] = []

    def end(engine: EngineProcess) -> None:
        ended_with.append(engine.stop())

    books = crash.run(tmp_path, ROUNDS, seed, end=end)
    assert ended_with == [0] * ROUNDS
    assert crash.faults(books) == [], books.summary()
    assert sum(books.duplicates()) == 0
    assert len(books.ledger.acknowledged) > 10 * ROUNDS
    assert "Traceback" not in (tmp_path / "engine.log").read_text()
