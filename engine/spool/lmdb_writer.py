"""The one writer: gathers what waits, commits it together, then answers everybody.

Results of attempts go before new mail, so that a flood of mail makes nobody deliver twice. A full
map refuses the new mail of its commit and tries the rest again. Any other failed commit is the end
(fail-stop): after it nobody knows what the disk holds, so every waiter is told, everything after is
refused, and the task raises. It decides nothing about mail; it is handed works.
"""

import logging
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

import lmdb
import trio

from engine.spool import RunBlocking
from engine.spool.interface import SpoolFailed, SpoolFull
from engine.spool.lmdb_changes import Changes
from engine.spool.lmdb_environment import Committed, Store, Work

# A commit's cost is shared by so many and waited for by all of them.
COMMIT_ITEMS_MAX: Final = 500
COMMIT_OCTETS_MAX: Final = 4 * 1024 * 1024

# New mail that waits for its commit is in memory: more of it is refused.
WAITING_OCTETS_MAX: Final = 64 * 1024 * 1024

logger = logging.getLogger(__name__)


class Turn(IntEnum):
    """In which order what waits goes into a commit."""

    RESULTS = 0
    HOUSEKEEPING = 1  # one a commit: each is a whole small step
    INTAKE = 2


class _Waiting:
    """A work with its size, and where its answer will be."""

    __slots__ = ("answer", "done", "ids", "items", "octets", "was_passed_over", "work")

    def __init__(self, work: Work, items: int, octets: int, ids: frozenset[int]) -> None:
        self.work = work
        self.items = items
        self.octets = octets
        self.ids = ids
        self.done = trio.Event()
        self.answer: Any = None
        self.was_passed_over = False


class Writer:
    """Runs the commits of one store. `told` is called in the loop after each, before the answers.

    `busy` are the envelopes that the commit under way may change.
    """

    def __init__(
        self,
        store: Store,
        run_blocking: RunBlocking,
        now_unix_ms: Callable[[], int],
        claims: dict[int, Any],
        told: Callable[[Changes], None],
    ) -> None:
        self._store = store
        self._run_blocking = run_blocking
        self._now_unix_ms = now_unix_ms
        self._claims = claims
        self._told = told
        self._queues: dict[Turn, deque[_Waiting]] = {turn: deque() for turn in Turn}
        self._wake = trio.Event()
        self._is_closing = False
        self._failure: SpoolFailed | None = None
        self.busy: frozenset[int] = frozenset()
        self.commits = 0
        self.items_committed = 0
        self.waiting_items = 0
        self.waiting_octets = 0
        self.is_intake_open = True

    async def do(
        self,
        turn: Turn,
        apply: Callable[[Changes], Any],
        *,
        items: int = 1,
        octets: int = 0,
        ids: frozenset[int] = frozenset(),
    ) -> Any:
        """Have `apply` done in a commit and return its answer once that is durable.

        `ids` are the envelopes it may change that nobody has claimed. Raises what it raised, or
        SpoolFull, or SpoolFailed. A waiter that is cancelled does not cancel the commit.
        """
        waiting = self.submit(turn, apply, items=items, octets=octets, ids=ids)
        return await self.wait(waiting)

    def submit(
        self,
        turn: Turn,
        apply: Callable[[Changes], Any],
        *,
        items: int = 1,
        octets: int = 0,
        ids: frozenset[int] = frozenset(),
    ) -> _Waiting:
        """Queue a work for a commit, to be waited for with `wait`."""
        is_intake = turn is Turn.INTAKE
        waiting = _Waiting(Work(apply, is_intake=is_intake), items, octets, ids)
        if self._failure is not None:
            self._answer(waiting, SpoolFailed(str(self._failure)))
        elif self._is_closing:
            self._answer(waiting, SpoolFailed("the spool is being closed"))
        elif is_intake and self.waiting_octets + octets > max(WAITING_OCTETS_MAX, octets):
            self._answer(waiting, SpoolFull("too much mail waits to be stored"))
        else:
            self.waiting_items += items
            self.waiting_octets += octets
            self._queues[turn].append(waiting)
            self._wake.set()
        return waiting

    async def wait(self, waiting: _Waiting) -> Any:
        await waiting.done.wait()
        if isinstance(waiting.answer, Exception):
            # A fresh one each: waiters of one failed commit share the answer.
            raise type(waiting.answer)(*waiting.answer.args)
        return waiting.answer

    def check(self) -> None:
        """Raise SpoolFailed once a commit has failed: what is read then may not be so."""
        if self._failure is not None:
            raise SpoolFailed(str(self._failure))

    def note_room(self, has_room: bool) -> None:
        """Say whether mail would be taken in now."""
        self.is_intake_open = has_room and self._failure is None

    def close(self) -> None:
        """Let the writer end once everything that waits is committed."""
        self._is_closing = True
        self._wake.set()

    async def run(self) -> None:
        """Commit until closed. Raises SpoolFailed when a commit fails."""
        try:
            while True:
                batch = self._next_batch()
                if batch:
                    await self._commit(batch)
                elif self._is_closing:
                    return
                else:
                    self._wake = trio.Event()
                    await self._wake.wait()
        finally:
            # Cancelled or failed: nobody may wait for a commit that will not come.
            self._is_closing = True
            failure = self._failure or SpoolFailed("the spool was closed before it was stored")
            for queue in self._queues.values():
                while queue:
                    self._answer(queue.popleft(), failure)

    def _next_batch(self) -> list[_Waiting]:
        """Take what goes into the next commit: about so much, and nobody is passed over twice.

        Without that, a large request would never fit beside a stream of results that never ends.
        """
        batch: list[_Waiting] = []
        items = octets = 0
        for turn, queue in self._queues.items():
            while queue:
                head = queue[0]
                fits = (
                    items + head.items <= COMMIT_ITEMS_MAX
                    and octets + head.octets <= COMMIT_OCTETS_MAX
                )
                if batch and not fits and not head.was_passed_over:
                    head.was_passed_over = True
                    break
                items += head.items
                octets += head.octets
                batch.append(queue.popleft())
                if turn is Turn.HOUSEKEEPING:
                    break
        return batch

    async def _commit(self, batch: list[_Waiting]) -> None:
        self.busy = frozenset().union(*(each.ids for each in batch))
        try:
            committed = await self._run(batch)
            if committed is None:
                batch = self._refuse_intake(batch)
                committed = await self._run(batch) if batch else None
                if batch and committed is None:
                    # The part of the map that is kept for results is used up.
                    raise SpoolFailed("the spool's map has no room left for results")
        except (lmdb.Error, OSError, SpoolFailed) as error:
            self._fail(batch, error)
            raise self._failure from error  # type: ignore[misc]  # _fail has just set it
        except trio.Cancelled:
            # Before it began: a commit that has begun is waited for.
            closed = SpoolFailed("the spool was closed before it was stored")
            for each in batch:
                self._answer(each, closed, was_waiting=True)
            raise
        except BaseException as error:
            self._fail(batch, error)
            raise
        finally:
            self.busy = frozenset()
        if committed is not None:
            self._finish(batch, committed)

    async def _run(self, batch: list[_Waiting]) -> Committed | None:
        """Commit; None if the map is full and nothing was stored."""
        works = [each.work for each in batch]
        try:
            committed: Committed = await self._run_blocking(
                self._store.commit, works, self._claims, self._now_unix_ms()
            )
        except lmdb.MapFullError:
            return None
        return committed

    def _refuse_intake(self, batch: list[_Waiting]) -> list[_Waiting]:
        self.is_intake_open = False
        for each in batch:
            if each.work.is_intake:
                self._answer(each, SpoolFull("the spool's map is full"), was_waiting=True)
        return [each for each in batch if not each.work.is_intake]

    def _finish(self, batch: list[_Waiting], committed: Committed) -> None:
        self._store.adopt(committed.changes)
        self.commits += 1
        for each in batch:
            self.items_committed += each.items
        self._told(committed.changes)
        for each, answer in zip(batch, committed.answers, strict=True):
            if each.work.is_intake:
                self.is_intake_open = not isinstance(answer, SpoolFull)
            self._answer(each, answer, was_waiting=True)

    def _fail(self, batch: list[_Waiting], error: BaseException) -> None:
        # With the place and its room: the library calls a write that a full disk cut short an
        # input/output error.
        where = self._store.disk.described()
        self._failure = SpoolFailed(f"the spool could not commit: {error} ({where})")
        logger.critical("%s; nothing is acknowledged any more", self._failure)
        self.is_intake_open = False
        # If it was the disk that is full, the next start needs room for its first deletions.
        self._store.disk.give_up_ballast_if_full()
        for each in batch:
            self._answer(each, self._failure, was_waiting=True)

    def _answer(self, waiting: _Waiting, answer: Any, *, was_waiting: bool = False) -> None:
        if was_waiting:
            self.waiting_items -= waiting.items
            self.waiting_octets -= waiting.octets
        waiting.answer = answer
        waiting.done.set()
