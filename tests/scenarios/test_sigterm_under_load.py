"""SIGTERM under load: an end in order. Nothing is lost, and nothing is delivered twice."""

import os
import random
import signal
import socket
import time
from pathlib import Path

import pytest

from engine.delivery.service import STOP_S
from engine.rehearsal.engine_process import EngineProcess
from tests.scenarios import crash
from tests.scenarios.scene import scene

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


def test_a_second_signal_waits_for_nobody(tmp_path: Path) -> None:
    """A server that never answers holds the end up for a while; who cannot wait says so again."""
    with scene(tmp_path) as stalled:
        ids = stalled.send(["to@d0.stall-rcpt.test", "to@d0.fast.test"])
        stalled.wait_for("the one that can be delivered", stalled.delivered)

        def in_flight() -> object:
            found = stalled.get("/v1/destinations")["destinations"]
            return [
                each for each in found if each["connections"] and "stall" in each["destination"]
            ]

        stalled.wait_for("the session that stalls", in_flight)
        os.kill(stalled.engine.pid, signal.SIGTERM)
        stalled.wait_for("a closed port", lambda: not is_open(stalled.engine.port))
        began = time.monotonic()
        assert stalled.engine.stop() == 0
        assert time.monotonic() - began < STOP_S, "no longer than the first signal would have taken"
        stalled.engine.start()
        stalled.engine.wait_until_ready()
        assert stalled.message(ids["to@d0.stall-rcpt.test"])["status"] == "queued"
        assert stalled.message(ids["to@d0.fast.test"])["status"] == "delivered"
        assert stalled.delivered() == ["to@d0.fast.test"]
        stalled.engine.kill()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
