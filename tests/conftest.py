"""What holds for every test: how the property tests are run, how long the crash test is."""

import os

import pytest
from hypothesis import settings

# A deadline for each example measures the machine, not the code. A build has to end the same way
# twice, so there the examples are always the same; at a desk they are new ones each time.
settings.register_profile("eilpost", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("eilpost")


def pytest_addoption(parser: pytest.Parser) -> None:
    crash = parser.getgroup("crash", "the engine under load, killed")
    crash.addoption("--crash-rounds", type=int, default=20, help="how often it is killed")
    crash.addoption("--crash-seed", type=int, help="which moments; without it, others each time")
