"""A tarpit and a throttled domain with a long queue take nothing from 98 good destinations.

`python -m bench isolation` has the figures at full size. Here is what holds on any machine: the
good ones are through while the bad ones still wait, and not at a fraction of the pace that they
have alone, in the same minute on the same machine.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import rig
from bench.children import NameServer, Receiver, Sink

pytestmark = pytest.mark.slow

GOOD = 98
MESSAGES = 98 * 100
THROTTLED_WAITING = 20_000
THROTTLED_PER_S = 10
TARPIT_WAITING = 200
TARPIT_DELAY_S = 5
OCTETS = 2_000
TARPIT, THROTTLED = "127.9.1.1", "127.9.2.1"
# The promise is 97 percent, over several rounds and a longer queue. A single short run may err by a
# third on a machine that others use too; one of three does not. One line for all would never end.
KEPT_MIN = 0.5
TRIES = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the good ones got, and how far the bad ones were at that moment."""

    rate: float
    by_host: dict[str, int]
    throttled_taken: int
    throttled_refused: int
    tarpit_taken: int
    tarpit_sessions: int


def drain(place: Path, *, beside_bad_ones: bool) -> Outcome:
    """Drain the good ones' queue; the bad ones' mail, if any, is older."""
    with (
        Sink(address="127.9.0.1", hosts=GOOD) as sink,
        Receiver(TARPIT, sink.port, reply_delay_s=TARPIT_DELAY_S) as tarpit,
        Receiver(THROTTLED, sink.port, rate_per_s=THROTTLED_PER_S) as throttler,
        NameServer(
            {"good": (sink.address, GOOD), "tarpit": (TARPIT, 1), "throttled": (THROTTLED, 1)}
        ) as name_server,
    ):
        engine, _ = rig.new_engine(place, rig.settings(name_server, sink.port))
        queues = {"good": (MESSAGES, GOOD)}
        if beside_bad_ones:
            queues = {"throttled": (THROTTLED_WAITING, 1), "tarpit": (TARPIT_WAITING, 1)} | queues
        for group, (messages, destinations) in queues.items():
            rig.prefill(
                engine, messages=messages, destinations=destinations, octets=OCTETS, group=group
            )
        engine.start()
        try:
            baseline = rig.wait_for_first(engine, sink)
            drained = rig.wait_for_last(engine, sink, baseline, MESSAGES)
            throttled, stuck = throttler.ask("report"), tarpit.ask("report")
        finally:
            engine.kill()
        return Outcome(
            drained.recipients / max(drained.seconds, 1e-9),
            sink.report()["recipients_by_host"],
            throttled["accepted"],
            throttled["refused"],
            stuck["accepted"],
            stuck["connections"],
        )


def test_the_good_ones_are_through_while_the_bad_ones_wait(tmp_path: Path) -> None:
    kept: list[float] = []
    while len(kept) < TRIES and (not kept or max(kept) < KEPT_MIN):
        place = tmp_path / str(len(kept))
        alone = drain(place / "alone", beside_bad_ones=False)
        beside = drain(place / "beside", beside_bad_ones=True)
        assert sorted(beside.by_host.values()) == [MESSAGES // GOOD] * GOOD
        # The bad ones were in play, and are far from their end.
        assert beside.throttled_refused
        assert beside.tarpit_sessions
        assert beside.throttled_taken < THROTTLED_WAITING // 2
        assert beside.tarpit_taken < TARPIT_WAITING // 2
        kept.append(beside.rate / alone.rate)
    assert max(kept) >= KEPT_MIN, kept
