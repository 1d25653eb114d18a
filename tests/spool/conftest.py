"""Every contract test runs over every adapter, in a time that only the test moves."""

from collections.abc import Sequence
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.spool.harness import ADAPTERS, Harness


def run_in_still_time(function: Any, *, clock: Any = None, instruments: Sequence[Any] = ()) -> Any:
    """Run a test with trio's clock standing still: the spool's stamp walks with it."""
    return trio.run(function, clock=clock or MockClock(), instruments=instruments)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    contract = Path(__file__).parent / "test_contract"
    for item in items:
        if isinstance(item, pytest.Function) and (
            str(item.path).startswith(str(contract)) and iscoroutinefunction(item.obj)
        ):
            # In front, because the first marker that names a runner wins.
            item.add_marker(pytest.mark.trio(run=run_in_still_time), append=False)


@pytest.fixture(params=ADAPTERS)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    return Harness(request.param, tmp_path)
