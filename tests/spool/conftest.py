"""Every contract test runs over every adapter."""

from pathlib import Path

import pytest

from tests.spool.harness import ADAPTERS, Harness


@pytest.fixture(params=ADAPTERS)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    return Harness(request.param, tmp_path)
