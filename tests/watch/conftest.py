"""The room that most tests look into."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.spool.harness import Harness
from tests.watch.looking import Look, looking


@pytest.fixture
async def look(tmp_path: Path) -> AsyncIterator[Look]:
    async with looking(Harness("memory", tmp_path)) as room:
        yield room
