"""Every contract test runs over every adapter, in a time that only the test moves."""

from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.spool.harness import ADAPTERS, Harness


@pytest.fixture(autouse=True)
def _still_time(mock_clock: MockClock) -> None:
    """The stamp walks with trio's clock; here that one stands still, too."""


@pytest.fixture(params=ADAPTERS)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    return Harness(request.param, tmp_path)
