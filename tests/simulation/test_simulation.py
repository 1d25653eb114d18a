"""Whole days in seconds: the composed engine, receivers with moods, and deaths at any moment."""

from pathlib import Path

import pytest

from tests.simulation.law import faults_of
from tests.simulation.run import simulate


@pytest.mark.slow
def test_the_law_holds(seed: int, url: str, data_dir: Path) -> None:
    seen = simulate(seed, url, data_dir)
    faults = faults_of(seen)
    again = f"again with: python -m pytest tests/simulation -k law --seed {seed}"
    assert not faults, "\n".join([f"seed {seed} on {url}, {again}", *faults])
    # A run in which nothing happened would keep any law.
    assert seen.events
    assert seen.steps.steps > 50
    assert seen.follower.sessions > 1
    assert seen.operator.spans
