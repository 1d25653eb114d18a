"""Where chance comes from in a simulation: one seed for all of it.

Three sources, and no fourth. `chances` gives each part of the world and of the engine a generator
of its own, so that a change in one part does not shift the choices of another. `run_simulated`
makes trio's scheduler draw its order from the seed too: trio shuffles the tasks that are ready, on
purpose, and has a switch for tests that must repeat. Time is trio's mock clock, which starts at
zero and jumps whenever nobody can go on. Nothing here depends on the hash seed of the process.
"""

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
from trio.testing import MockClock

T = TypeVar("T")


def chances(seed: int, purpose: str) -> random.Random:
    """Return the generator of `purpose`; text is hashed by `random` itself, the same everywhere."""
    return random.Random(f"{seed}/{purpose}")


def run_simulated(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` in virtual time, scheduled by the seed."""
    with scheduled_by(seed):
        return trio.run(main, clock=MockClock(autojump_threshold=0))


@contextmanager
def scheduled_by(seed: int) -> Iterator[None]:
    """Let trio's scheduler draw from the seed while the block lasts."""
    # Private, but there is no public switch; pytest-trio turns the same one for Hypothesis.
    scheduler: Any = trio._core._run
    was_allowed, state = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler._r.seed(f"{seed}/scheduler")
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = was_allowed
        scheduler._r.setstate(state)
