"""Lives of the engine's process, and how they end: in the middle of anything, without a word.

A crash is one moment. From then on nothing reaches the spool, every wire is broken, and what the
tasks still do while they unwind is done by the dead. The moment is chosen by counting what
happens (the seventh settle, the third mail that a receiver took over), because most of virtual
time is spent waiting, and a moment chosen by the clock would nearly always be a dull one.
"""

import inspect
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import lmdb
import trio

from engine.spool.interface import Spool, SpoolFailed
from engine.spool.memory import MemorySpool

T = TypeVar("T")

# Commits take up to so long; deaths find results that wait for one.
COMMIT_S = 0.02
# Most commits are quick, which also keeps the number of virtual moments down.
SLOW_COMMITS = 0.3

# What is counted. "committed" is on disk and nobody has been told; "taken" is a mail that a
# receiver took over and has not answered; "answered" has its 250 on the wire.
POINTS = (
    "before settle",
    "after settle",
    "before accept",
    "after accept",
    "committed",
    "after window",
    "after content",
    "before due_destinations",
    "before destination",
    "after release",
    "connect",
    "asked",
    "taken",
    "answered",
)


# One more way to end: the disk fails this commit and all after it, and the engine has to stop.
FAILING_COMMIT = "failing commit"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a life ends: at the `count`-th time that `point` is reached, or after `within_s`.

    `in_order` is a stop that waits for what is in flight; else it is a crash.
    """

    point: str
    count: int
    within_s: float
    in_order: bool = False


@dataclass(eq=False, slots=True)
class Life:
    """One life, from the start of the process to its end. Times are trio's clock."""

    number: int
    ending: Ending | None
    began_s: float
    when_over: Callable[[], None]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    stop: trio.Event = field(default_factory=trio.Event)
    is_up: bool = False
    has_crashed: bool = False
    # After that nothing of this life reaches the spool or a wire.
    is_over: bool = False
    # From then on it meets no fate and goes on for as long as anybody looks.
    is_spared: bool = False
    stopping_s: float | None = None
    failed_s: float | None = None
    ended_s: float = float("inf")
    ended_by: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    _visitors: dict[trio.CancelScope, None] = field(default_factory=dict)

    def reach(self, point: str) -> None:
        """Count that `point` was reached; dies there if that is this life's fate."""
        if not self.is_over and self._is_fate(point):
            self.end(f"{point} {self.counts[point]}")

    def commit_fails(self) -> bool:
        """Say whether the disk fails the commit that begins now: once, and then for ever."""
        if self.failed_s is None and self._is_fate(FAILING_COMMIT):
            self.failed_s = trio.current_time()
        return self.failed_s is not None

    def _is_fate(self, point: str) -> bool:
        count = self.counts[point] = self.counts.get(point, 0) + 1
        ending = None if self.is_spared else self.ending
        return ending is not None and ending.point == point and count >= ending.count

    def end(self, why: str) -> None:
        if self.is_over or self.is_spared or self.stop.is_set():
            return
        self.ended_by = why
        if self.ending is not None and self.ending.in_order:
            self.stopping_s = trio.current_time()
            self.stop.set()
        else:
            self.die()

    def die(self) -> None:
        """Crash now."""
        self.has_crashed = True
        self.be_over()

    def be_over(self) -> None:
        """Shut every door: the process is gone."""
        if not self.is_over:
            self.is_over = True
            self.ended_s = trio.current_time()
            self.when_over()
            self.scope.cancel()
            for scope in self._visitors:
                scope.cancel()

    async def pass_on(self, point: str) -> None:
        """Reach `point`; only the living come back."""
        self.reach(point)
        await self.stay_alive()

    async def stay_alive(self) -> None:
        """Return if this life goes on; a dead one waits here for its cancellation."""
        if self.is_over:
            await trio.sleep_forever()

    async def visit(self, call: Callable[..., Awaitable[T]], *arguments: Any) -> T | None:
        """Run a task of the engine's for somebody outside; None if the process died under it."""
        found: T | None = None
        if self.is_over:
            return None
        with trio.CancelScope() as scope:
            self._visitors[scope] = None
            try:
                found = await call(*arguments)
            finally:
                del self._visitors[scope]
        return None if scope.cancelled_caught else found


class MortalSpool:
    """A spool that serves one life and is out of reach after it. `checked` sees each step.

    All calls but the ones here go through `__getattr__`; which calls there are is the
    interface's affair.
    """

    def __init__(
        self,
        inner: Spool,
        life: Life,
        rand: random.Random,
        checked: Callable[[Spool, Life], Awaitable[None]],
    ) -> None:
        self.inner = inner
        self.life = life
        self.rand = rand
        self.checked = checked

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not inspect.iscoroutinefunction(found):
            # What does not wait touches no disk: it reads, or ends a claim that died anyhow.
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            await self.life.pass_on(f"before {name}")
            answer = await found(*arguments, **named)
            await self.life.pass_on(f"after {name}")
            return answer

        return call

    def handing_over(self, envelopes: Any) -> None:
        # What the dead still do while they unwind, no process does.
        if not self.life.is_over:
            self.inner.handing_over(envelopes)

    async def settle(self, results: Any, decisions: Any = ()) -> None:
        # The model has no disk of its own to fail.
        if isinstance(self.inner, MemorySpool) and self.life.commit_fails():
            if self.rand.random() < 0.5:
                await self.inner.settle(results, decisions)
            raise SpoolFailed("the disk fails, and whether it has the commit nobody knows")
        await self._slowly(self.inner.settle, results, decisions)

    async def accept(self, requests: Any) -> Any:
        return await self._slowly(self.inner.accept, requests)

    async def release(self, until_unix_ms: int) -> int:
        await self.life.stay_alive()
        released = await self.inner.release(until_unix_ms)
        if released:
            await self.checked(self.inner, self.life)
            await self.life.pass_on("after release")
        return released

    async def sweep(self, now_unix_ms: int, rows_max: int) -> bool:
        head = self.inner.head()
        await self.life.stay_alive()
        has_more = await self.inner.sweep(now_unix_ms, rows_max)
        if self.inner.head() != head:
            await self.checked(self.inner, self.life)
            await self.life.pass_on("after sweep")
        return has_more

    async def _slowly(self, call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        await self._wait()
        await self.life.pass_on(f"before {call.__name__}")
        answer = await call(*arguments)
        await self.checked(self.inner, self.life)
        await self._wait()
        await self.life.pass_on(f"after {call.__name__}")
        return answer

    async def _wait(self) -> None:
        if self.rand.random() < SLOW_COMMITS:
            await trio.sleep(self.rand.uniform(0.0, COMMIT_S))

    def as_spool(self) -> Spool:
        return cast(Spool, self)


class MortalThreads:
    """The engine's `run_blocking` seam: work in line, with commits that take their time."""

    def __init__(self, life: Life, rand: random.Random) -> None:
        self._life = life
        self._rand = rand

    async def __call__(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        await self._life.stay_alive()
        if getattr(function, "__name__", "") != "commit":
            return function(*arguments)
        if self._life.commit_fails():
            if self._rand.random() < 0.5:
                function(*arguments)
            raise lmdb.Error("the disk fails, and whether it has the commit nobody knows")
        if self._rand.random() < SLOW_COMMITS:
            await trio.sleep(self._rand.uniform(0.0, COMMIT_S))
            await self._life.stay_alive()
        answer = function(*arguments)
        self._life.reach("committed")
        if self._rand.random() < SLOW_COMMITS:
            await trio.sleep(self._rand.uniform(0.0, COMMIT_S))
        await self._life.stay_alive()
        return answer
