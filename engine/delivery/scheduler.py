"""Which destinations have an actor now. Only names travel; actors pull their mail themselves.

Reads the head of the agenda, starts one actor for each destination that is due and
lets it run until it rests. This is one of the two places that start tasks for others:
all actors live in the nursery of `Scheduler.run`. Looks at no mail, decides no retry and
scans nothing: what is beyond the cap of resident actors stays on the agenda, where a
destination that gave up its place stands behind those that were due before.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final, Generic, Protocol, TypeVar

import trio

from engine.clock import Clock
from engine.spool.interface import CommitNotice, Spool

# A resident actor costs some 10 kB and its window; those beyond take turns.
RESIDENT_ACTORS_MAX: Final = 2000
# How many destinations a look starts beyond those that are resident already.
STARTS_PER_LOOK_MAX: Final = 256
# The agenda is looked at this often though nothing points to it: wall time may have been set.
LOOK_EVERY_S: Final = 60.0
# Names that became due while all places were taken wait on the agenda, not in memory.
NEWLY_DUE_MAX: Final = 4096


class Actor(Protocol):
    """A destination's actor, as the scheduler knows it."""

    @property
    def is_ending(self) -> bool:
        """Whether it hands out no more mail: what it is woken for is for the one after it."""
        ...

    def wake(self, *, recall: bool = False) -> None:
        """Note that there is new mail. Called while the actor runs.

        `recall`: holds have changed, so what is not with a server has to be chosen anew.
        """
        ...

    def stop(self) -> None:
        """Ask it to end in order: no more mail, what is in flight to its end."""
        ...

    async def run(self) -> int | None:
        """Deliver what is due; return when it wants to be looked at again (wall ms), if ever.

        When it returns, its rest is on the agenda. After a `wake` that came too late for it,
        it wants to be looked at now.
        """
        ...


A = TypeVar("A", bound=Actor)


class Scheduler(Generic[A]):
    """Starts actors for due destinations until it is stopped."""

    def __init__(
        self,
        spool: Spool,
        clock: Clock,
        actor_for: Callable[[str], A],
        *,
        residents_max: int = RESIDENT_ACTORS_MAX,
    ) -> None:
        self._spool = spool
        self._clock = clock
        self._actor_for = actor_for
        self._residents_max = residents_max
        self._residents: dict[str, A] = {}
        self._newly_due: dict[str, None] = {}
        # Those that the agenda has for later: who calls them has room for them now.
        self._called: dict[str, None] = {}
        # Of those the ones whose actor was on its way to rest.
        self._called_at_end: set[str] = set()
        self._next_look_unix_ms: float = 0.0
        self._is_behind = False
        self._is_stopping = False
        self._poke = trio.Event()
        spool.add_listener(self._committed)

    @property
    def residents(self) -> Mapping[str, A]:
        """The actors there are, by destination."""
        return self._residents

    @property
    def others_wait(self) -> bool:
        """Whether destinations are due that have no place: then an actor ends its turn."""
        return (self._is_behind or bool(self._called)) and not self._has_place()

    @property
    def is_crowded(self) -> bool:
        """Whether destinations may soon have to wait for a place: then actors look at the clock."""
        return 2 * len(self._residents) >= self._residents_max

    def stop(self) -> None:
        """Start no more actors and ask those there are to end; `run` returns when they have."""
        self._is_stopping = True
        for actor in self._residents.values():
            actor.stop()
        self._poke.set()

    def start_soon(self, name: str) -> bool:
        """Let `name` have an actor although nothing on the agenda says so.

        False if it has one that is at work; after one that is about to rest it has another.
        """
        actor = self._residents.get(name)
        if actor is not None:
            if actor.is_ending:
                self._called_at_end.add(name)
            return actor.is_ending
        # Beyond the bound it looks by itself, when the agenda says so.
        if len(self._called) < NEWLY_DUE_MAX:
            self._called[name] = None
            self._poke.set()
        return True

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while not self._is_stopping:
                self._poke = trio.Event()
                await self._start_due(nursery)
                if self._has_place() and (self._called or self._newly_due or self._is_behind):
                    continue
                wait_s = LOOK_EVERY_S
                if self._has_place():
                    wait_s = (self._next_look_unix_ms - self._clock.now_unix_ms()) / 1000.0
                with trio.move_on_after(min(max(wait_s, 0.0), LOOK_EVERY_S)):
                    await self._poke.wait()
            # The nursery ends when the last actor has ended.

    def _has_place(self) -> bool:
        return len(self._residents) < self._residents_max

    async def _start_due(self, nursery: trio.Nursery) -> None:
        for names in (self._called, self._newly_due):
            while names and self._has_place():
                name = next(iter(names))
                del names[name]
                self._start(nursery, name)
        if self._newly_due:
            # They stay on the agenda, which also has them in the order of their turn.
            self._newly_due.clear()
            self._is_behind = True
        now_unix_ms = self._clock.now_unix_ms()
        if not self._has_place() or (now_unix_ms < self._next_look_unix_ms and not self._is_behind):
            return
        horizon_unix_ms = now_unix_ms + round(LOOK_EVERY_S * 1000)
        self._next_look_unix_ms = min(horizon_unix_ms, self._next_hold_end())
        limit = len(self._residents) + STARTS_PER_LOOK_MAX
        rows = await self._spool.due_destinations(horizon_unix_ms, limit)
        self._is_behind = False
        for row in rows:
            if row.destination in self._residents:
                continue
            if row.wake_unix_ms > now_unix_ms:
                self._look_by(row.wake_unix_ms)
                return
            if not self._has_place():
                self._is_behind = True
                return
            self._start(nursery, row.destination)
        if len(rows) == limit:
            self._is_behind = True
            self._next_look_unix_ms = now_unix_ms

    def _start(self, nursery: trio.Nursery, name: str) -> None:
        if name in self._residents:
            return
        actor = self._residents[name] = self._actor_for(name)
        nursery.start_soon(self._run_actor, name, actor)

    async def _run_actor(self, name: str, actor: Actor) -> None:
        try:
            look_unix_ms = await actor.run()
        finally:
            had_place = self._has_place()
            del self._residents[name]
        if name in self._called_at_end:
            self._called_at_end.remove(name)
            self.start_soon(name)
        if look_unix_ms is not None:
            self._look_by(look_unix_ms)
        if self._is_behind or self._called or not had_place:
            self._poke.set()

    def _next_hold_end(self) -> float:
        """Return when a destination may have to be looked at that rests for a hold."""
        end_unix_ms = self._spool.next_hold_end_unix_ms()
        return math.inf if end_unix_ms is None else end_unix_ms

    def _look_by(self, unix_ms: float) -> None:
        # A look that is overdue is one that `run` still sleeps for: wall time was set meanwhile.
        overdue = self._next_look_unix_ms <= self._clock.now_unix_ms()
        if unix_ms < self._next_look_unix_ms or overdue:
            self._next_look_unix_ms = min(unix_ms, self._next_look_unix_ms)
            self._poke.set()

    def _committed(self, notice: CommitNotice) -> None:
        if notice.holds_changed:
            for resident in self._residents.values():
                resident.wake(recall=True)
            self._look_by(self._next_hold_end())
        # In order, so that one seed gives one trace: a set of names has none across processes.
        for name in sorted(notice.due_destinations):
            actor = self._residents.get(name)
            if actor is not None:
                actor.wake()
            elif len(self._newly_due) < NEWLY_DUE_MAX:
                self._newly_due[name] = None
            else:
                self._is_behind = True
        if self._newly_due or self._is_behind:
            self._poke.set()
