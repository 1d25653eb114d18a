"""What explain names is what holds a mail: lift it and the mail moves, lift all else and it stays.

In the whole engine, after crashes and beside holds, quotas and throttles that come as the seed has
them. `tests/delivery/test_holding_truth.py` has each cause alone, against each of the others.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from engine.delivery.holding import Facts, Holding, holding
from engine.watch import explain
from protocols.records import Envelope
from tests.simulation.inquiry import LIFTS, Inquiry
from tests.simulation.plan import SPANS
from tests.simulation.run import simulate

# In parts of the time for which people send; by the last one, many have been waiting for long.
MOMENTS = (0.3, 1.0, 2.0)
# Between them they have every cause, and some that were hiding another.
SEEDS = (5, 9, 11, 12, 29, 38)


def inquire(seeds: Iterable[int], data_dir: Path) -> list[Inquiry]:
    """Ask at each moment of each seed, once to lift what is named and once to lift all else."""
    asked: list[Inquiry] = []
    for seed in seeds:
        for moment in MOMENTS:
            at_s = SPANS[seed % len(SPANS)].sending_s * moment
            for lifts_named in (False, True):
                inquiry = Inquiry(at_s, lifts_named)
                # Each in a place of its own: keys that are there already are not drawn again.
                own_dir = data_dir / str(len(asked))
                own_dir.mkdir(parents=True)
                simulate(seed, "memory:", own_dir, inquiry=inquiry)
                asked.append(inquiry)
    return asked


@pytest.mark.slow
def test_what_is_named_is_what_holds_it(request: pytest.FixtureRequest, data_dir: Path) -> None:
    many = request.config.getoption("--seeds", None)
    asked = inquire(SEEDS if many is None else range(many), data_dir)
    faults = [fault for inquiry in asked for fault in inquiry.faults]
    assert not faults, "\n".join(faults)
    lifted = {LIFTS.get(code) for inquiry in asked for code in inquiry.codes}
    assert lifted >= set(LIFTS.values())


def _first_that_says_no(envelope: Envelope, facts: Facts) -> Holding | None:
    """A plausible lie: the mail's own wait is named, whatever else holds it for longer."""
    held = holding(envelope, facts)
    return replace(held, code="retry_wait") if held and held.code in LIFTS else held


@pytest.mark.slow
def test_a_plausible_lie_is_found(data_dir: Path) -> None:
    with mock.patch.object(explain, "holding", _first_that_says_no):
        asked = inquire(SEEDS[:1], data_dir)
    faults = [fault for inquiry in asked for fault in inquiry.faults]
    assert any("moved when everything else was lifted" in fault for fault in faults)
    assert any("did not move although" in fault for fault in faults)
