"""The law can be broken: an engine without one of its guarantees is found out."""

from pathlib import Path

import pytest

from tests.simulation.faults import FAULTS
from tests.simulation.law import faults_of
from tests.simulation.run import simulate

# Not every run meets every fault; these are the shortest.
SEEDS = (0, 3, 6, 9, 12)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_guarantee_is_found(name: str, data_dir: Path) -> None:
    fault, words = FAULTS[name]
    breaches: list[str] = []
    for seed in SEEDS:
        with fault() as wrap:
            breaches += faults_of(simulate(seed, "memory:", data_dir, wrap))
        if any(words in breach for breach in breaches):
            return
    assert not breaches, f"found out, but not for {words!r}: {breaches}"
    raise AssertionError(f"an engine that {name} kept the law over the seeds {SEEDS}")
