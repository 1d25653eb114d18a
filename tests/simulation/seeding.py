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

# Each round of trio's loop is one step of every task that can go on.
ROUNDS_MAX = 20_000


def chances(seed: int, purpose: str) -> random.Random:
    """Return the generator of `purpose`; text is hashed by `random` itself, the same everywhere."""
    return random.Random(f"{seed}/{purpose}")


def run_simulated(seed: int, main: Callable[["Standstill"], Awaitable[T]]) -> T:
    """Run `main` in virtual time, scheduled by the seed."""
    standstill = Standstill()
    with scheduled_by(seed):
        clock = MockClock(autojump_threshold=0)
        return trio.run(main, standstill, clock=clock, instruments=[standstill])


class Standstill(trio.abc.Instrument):
    """Ends `scope` when tasks go round and round and virtual time does not move.

    A busy loop of the engine's would never end here, where time moves only when all wait.
    """

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self._at_s = -1.0
        self._rounds = 0

    def before_io_wait(self, timeout: float) -> None:
        now_s = trio.current_time()
        self._rounds = self._rounds + 1 if now_s == self._at_s else 0
        self._at_s = now_s
        if self._rounds > ROUNDS_MAX:
            self.scope.cancel()


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
