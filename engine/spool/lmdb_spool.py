"""The `lmdb:` adapter: a spool in one LMDB environment below the data directory.

This module answers the calls of `engine.spool.interface`: it keeps the claims, hands reads to a
thread and changes to the writer, and tells listeners what was committed. What the calls mean is in
the pure modules beside it; what is on disk is in `lmdb_layout`.
"""

import random
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from engine.clock import Clock, Stamp
from engine.spool import (
    RunBlocking,
    lmdb_accept,
    lmdb_counts,
    lmdb_invariants,
    lmdb_listing,
    lmdb_place,
    lmdb_quick_look,
    lmdb_reading,
    lmdb_settle,
)
from engine.spool.disk_calls import DiskRoom
from engine.spool.doubts import settle_doubts
from engine.spool.handed_over import NAME, HandedOver, open_handed_over
from engine.spool.holds import Holds
from engine.spool.interface import (
    Accepted,
    AcceptRequest,
    AgendaRow,
    Ahead,
    AttemptResult,
    Checked,
    CommitNotice,
    Content,
    Decision,
    DestinationRow,
    EventFilter,
    EventPage,
    Group,
    Rest,
    SpoolError,
    SpoolFailed,
    SpoolSettings,
    SpoolStatistics,
    StatisticsRow,
    TryNow,
    Window,
    WindowPosition,
)
from engine.spool.invariants import OPEN_INDEXES
from engine.spool.listing_calls import EnvelopeFilter, EnvelopePage
from engine.spool.lmdb_account_calls import LmdbAccountCalls
from engine.spool.lmdb_campaign_calls import LmdbCampaignCalls
from engine.spool.lmdb_changes import Changes
from engine.spool.lmdb_environment import MAP_OCTETS, Store, open_store
from engine.spool.lmdb_figures import LmdbFigures
from engine.spool.lmdb_files import locked, prepare_directory
from engine.spool.lmdb_hold_calls import LmdbHoldCalls
from engine.spool.lmdb_notes import LmdbNotes
from engine.spool.lmdb_reading import Damage, WindowRead
from engine.spool.lmdb_shared_reads import READERS, SharedReads
from engine.spool.lmdb_sweeping import Sweeper
from engine.spool.lmdb_waiting import LmdbWaiting
from engine.spool.lmdb_writer import Turn, Writer
from protocols.records import DestinationRecord, Envelope, Event

# More threads would only queue for the interpreter; fewer would wait behind one cold page.
READING_MAX: Final = 4

RELEASE_ROWS_MAX: Final = 500

# A listing that has looked at so many rows, some tenths of a second's worth, says where to go on.
FIND_ROWS_MAX: Final = 100_000

T = TypeVar("T")


class LmdbSpool(
    LmdbAccountCalls, LmdbCampaignCalls, LmdbHoldCalls, LmdbNotes, LmdbFigures, LmdbWaiting
):
    """See the module. Made by `open_lmdb_spool`, which runs its writer."""

    def __init__(
        self,
        store: Store,
        handed_over: HandedOver,
        *,
        settings: SpoolSettings,
        clock: Clock,
        run_blocking: RunBlocking,
    ) -> None:
        super().__init__()
        self._store = store
        self._settings = settings
        self._run_blocking = run_blocking
        self._stamp = Stamp(clock, high_water_unix_ms=store.marks.time_unix_ms)
        self._reading = trio.Semaphore(READING_MAX)
        self._shared_reads = SharedReads(run_blocking)
        self._claims: dict[int, tuple[Envelope, bytes]] = {}
        self._claimed_at: dict[str, set[int]] = {}
        self._handed_over = handed_over
        self._doubts_at_start = 0
        # Destinations whose window is being read, each with the end of that.
        self._windows: dict[str, trio.Event] = {}
        self._disturbed: list[set[int]] = []
        self._listeners = []
        self.writer = Writer(
            store, run_blocking, self._stamp.now_unix_ms, self._claims, self._after_commit
        )
        self._sweeper = Sweeper(store, self.writer, self._read, self._claims, settings)

    async def run(self) -> None:
        """Write and read for everybody, until closed. Raises SpoolFailed when a commit fails."""
        with lone_exceptions():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.writer.run)
                for _ in range(READERS):
                    nursery.start_soon(self._shared_reads.run)

    def close(self) -> None:
        """Let `run` end, once everything that waits for a commit has it."""
        self.writer.close()
        self._shared_reads.close()

    @property
    def stream_id(self) -> str:
        return self._store.stream_id

    @property
    def start_count(self) -> int:
        return self._store.start_count

    # Writing.

    async def accept(self, requests: Sequence[AcceptRequest]) -> list[Accepted | SpoolError]:
        waiting = [
            self.writer.submit(
                Turn.INTAKE,
                partial(lmdb_accept.accept, request=request, settings=self._settings),
                items=sum(len(message.recipients) for message in request.messages),
                octets=lmdb_accept.octets_of(request),
            )
            for request in requests
        ]
        for each in waiting:
            await each.done.wait()
        return [each.answer for each in waiting]

    async def settle(
        self, results: Sequence[AttemptResult], decisions: Sequence[Decision] = ()
    ) -> None:
        ids = frozenset(
            each.envelope_id for each in decisions if not isinstance(each, Rest | TryNow)
        )
        await self.writer.do(
            Turn.RESULTS,
            partial(lmdb_settle.settle, results=results, decisions=decisions, claimed=self._claims),
            items=len(results) + len(decisions),
            ids=ids,
        )

    async def release(self, until_unix_ms: int) -> int:
        released, has_more = 0, True
        while has_more:
            count, has_more = await self.writer.do(
                Turn.HOUSEKEEPING,
                partial(
                    lmdb_settle.release,
                    until_unix_ms=until_unix_ms,
                    rows_max=RELEASE_ROWS_MAX,
                    max_age_ms=self._settings.max_age_ms,
                ),
                items=RELEASE_ROWS_MAX,
            )
            released += count
        return released

    async def sweep(self, now_unix_ms: int, rows_max: int) -> bool:
        has_more = await self._sweeper.sweep(now_unix_ms, rows_max)
        await self.end_what_is_over()
        return has_more

    def _after_commit(self, changes: Changes) -> None:
        for envelope_id in changes.settled_ids:
            self._drop_claim(envelope_id)
            self._handed_over.clear(envelope_id)
        if changes.accounts_changed:
            self.accounts_have_changed()
        for disturbed in self._disturbed:
            disturbed.update(changes.touched_ids)
        self._sweeper.put_aside(changes.damage)
        if changes.events or changes.due_destinations or changes.holds_changed:
            due = list(changes.due_destinations)
            self._tell(CommitNotice(changes.events, due, changes.holds_changed))

    # Finding work.

    async def due_destinations(self, until_unix_ms: int, limit: int) -> list[AgendaRow]:
        return await self._read(lmdb_reading.read_due, until_unix_ms, limit)

    async def next_wake_unix_ms(self) -> int | None:
        return await self._read(lmdb_reading.read_next_wake)

    async def window(
        self, destination: str, position: WindowPosition, limit: int, now_unix_ms: int
    ) -> Window:
        self.writer.check()
        # What commits change while the thread reads; a set only for those that read just now.
        disturbed: set[int] = set()
        judged_by = self._holds

        def begin() -> Callable[[], WindowRead]:
            nonlocal judged_by
            judged_by = self._holds
            claimed = frozenset(self._claimed_at.get(destination, ()))
            self._disturbed.append(disturbed)
            return partial(
                lmdb_reading.read_window,
                self._store,
                destination,
                position,
                limit,
                now_unix_ms,
                claimed,
                judged_by,
                self._stamp.now_unix_ms(),
            )

        def finish(read: WindowRead) -> Window:
            window = self._claim(destination, read, disturbed, judged_by)
            if len(window.envelopes) < len(read.found):
                # Who goes on from behind them would not see them again.
                position.look_again()
            return window

        # One at a time for a destination: the second has to see what the first one claimed. It is
        # rare that two ask, and a lock takes a tenth of what a small window costs.
        while (other := self._windows.get(destination)) is not None:
            await other.wait()
        ended = self._windows[destination] = trio.Event()
        try:
            return await self._shared_reads.do(begin, finish)
        finally:
            del self._windows[destination]
            ended.set()
            # By identity: two empty sets are equal.
            self._disturbed = [each for each in self._disturbed if each is not disturbed]

    def _claim(
        self, destination: str, read: WindowRead, disturbed: set[int], judged_by: Holds
    ) -> Window:
        """Claim what was read, less what a commit changed meanwhile or may be changing now.

        That is all of it, if the holds that it was judged by are others now.
        """
        self._sweeper.put_aside(read.damage)
        gone: Collection[int] = disturbed | self.writer.busy
        if judged_by is not self._holds:
            gone = read.found.keys()
        mine = {key: value for key, value in read.found.items() if key not in gone}
        if mine:
            self._claims.update(mine)
            self._claimed_at.setdefault(destination, set()).update(mine)
        more = read.more or len(mine) < len(read.found) or bool(read.damage)
        envelopes = [envelope for envelope, _ in mine.values()]
        return Window(envelopes, more, None if more else read.next_due_unix_ms)

    def give_back(self, envelope_ids: Iterable[int]) -> None:
        for envelope_id in envelope_ids:
            self._drop_claim(envelope_id)

    def _drop_claim(self, envelope_id: int) -> None:
        claim = self._claims.pop(envelope_id, None)
        if claim is not None:
            destination = claim[0].fixed.destination
            claimed = self._claimed_at[destination]
            claimed.discard(envelope_id)
            if not claimed:
                del self._claimed_at[destination]

    def handing_over(self, envelopes: Iterable[tuple[int, int]]) -> None:
        self._handed_over.note(envelopes)

    async def settle_doubts(self) -> None:
        """Tell of what the last process had handed over."""
        noted = self._handed_over.noted()
        self._doubts_at_start = await settle_doubts(self, noted)
        for envelope_id in noted:
            self._handed_over.clear(envelope_id)

    async def content(self, content_ids: Collection[int]) -> dict[int, Content]:
        self.writer.check()
        read = partial(lmdb_reading.read_contents, self._store, content_ids)

        def finish(answer: tuple[dict[int, Content], Damage]) -> dict[int, Content]:
            self._sweeper.put_aside(answer[1])
            return answer[0]

        return await self._shared_reads.do(lambda: read, finish)

    async def destination(self, name: str) -> DestinationRecord | None:
        # Each actor begins with one. A hop for each had thousands stand before everybody's reads
        # when an engine was started with many destinations due.
        self.writer.check()
        read = partial(lmdb_reading.read_destination, self._store, name)
        return await self._shared_reads.do(lambda: read, lambda found: found)

    # The read side.

    def head(self) -> int:
        return self._store.marks.head_seq

    async def events(
        self, after_seq: int, wanted: EventFilter, limit: int, scan_max: int = 1000
    ) -> EventPage:
        page, damage = await self._read(
            lmdb_reading.read_events, after_seq, wanted, limit, scan_max
        )
        self._sweeper.put_aside(damage)
        return page

    async def events_at(self, seqs: Sequence[int]) -> list[Event]:
        found, damage = await self._read(lmdb_reading.read_events_at, seqs)
        self._sweeper.put_aside(damage)
        return found

    async def envelope(self, envelope_id: int) -> Envelope | None:
        found, damage = await self._read(lmdb_reading.read_envelope, envelope_id)
        self._sweeper.put_aside(damage)
        return found

    async def find(self, wanted: EnvelopeFilter, after: int | None, limit: int) -> EnvelopePage:
        page, damage = await self._read(lmdb_listing.read_page, wanted, after, limit, FIND_ROWS_MAX)
        self._sweeper.put_aside(damage)
        return page

    async def statistics(
        self,
        group: Group,
        *,
        account_id: int | None = None,
        from_unix_ms: int | None = None,
        to_unix_ms: int | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[StatisticsRow]:
        return await self._read(
            lmdb_counts.read_statistics,
            group,
            account_id,
            from_unix_ms,
            to_unix_ms,
            after,
            limit,
        )

    async def ahead(
        self, envelope: Envelope, position: WindowPosition, looked_at_max: int
    ) -> Ahead:
        claimed = frozenset(self._claimed_at.get(envelope.fixed.destination, ()))
        return await self._read(
            lmdb_place.read_ahead,
            envelope,
            position,
            looked_at_max,
            self._stamp.now_unix_ms(),
            claimed - {envelope.fixed.envelope_id},
            self._holds,
        )

    async def destinations(
        self,
        *,
        account_id: int | None = None,
        campaign: str | None = None,
        after: str = "",
        limit: int = 1000,
    ) -> list[DestinationRow]:
        return await self._read(
            lmdb_counts.read_destinations, account_id, campaign, after, limit, self.holds()
        )

    def spool_statistics(self) -> SpoolStatistics:
        marks, writer = self._store.marks, self.writer
        return SpoolStatistics(
            envelopes_open=sum(marks.counts[index] for index in OPEN_INDEXES),
            in_flight=len(self._claims),
            commits=writer.commits,
            items_committed=writer.items_committed,
            waiting_for_commit=writer.waiting_items,
            head_seq=marks.head_seq,
            oldest_seq=marks.oldest_seq,
            start_count=self._store.start_count,
            quarantined=marks.quarantined,
            intake_open=writer.is_intake_open,
            doubts_at_start=self._doubts_at_start,
        )

    def disk_room(self) -> DiskRoom | None:
        return self._store.disk.room()

    async def check_invariants(self) -> list[str]:
        return await self._read(lmdb_invariants.faults_of, self._stamp.now_unix_ms())

    async def check_some(self) -> Checked:
        return await self._read(lmdb_quick_look.look_quickly)

    async def _read(self, read: Callable[..., T], *arguments: Any) -> T:
        self.writer.check()
        async with self._reading:
            found: T = await self._run_blocking(read, self._store, *arguments)
            return found


@asynccontextmanager
async def open_lmdb_spool(
    data_dir: Path,
    *,
    settings: SpoolSettings,
    clock: Clock,
    run_blocking: RunBlocking,
    random: random.Random,
    map_octets: int = MAP_OCTETS,
) -> AsyncIterator[LmdbSpool]:
    """Open the spool below `data_dir` and run its writer. Raises SpoolUnusable, saying why.

    `map_octets` is the most that the spool can ever hold; only tests have a reason to change it.
    """
    path = data_dir / "spool"
    prepare_directory(path)
    with locked(path / "lock"):
        store = open_store(
            path, free_octets_min=settings.disk_free_bytes_min, map_octets=map_octets
        )
        try:
            store.begin_life(random.randbytes(8).hex())
            store.disk.keep_ballast()
            with open_handed_over(path / NAME) as handed_over, lone_exceptions():
                spool = LmdbSpool(
                    store, handed_over, settings=settings, clock=clock, run_blocking=run_blocking
                )
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(spool.run)
                    await spool.settle_doubts()
                    yield spool
                    spool.close()
        finally:
            store.close()


@contextmanager
def lone_exceptions() -> Iterator[None]:
    """Let an exception pass as it was raised: that there is a nursery here is our own affair.

    Of the many who are told that the spool has failed, the writer's own word is passed on.
    """
    lone: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        # Who was only cancelled because another failed has nothing to add.
        _, rest = group.split(trio.Cancelled)
        if rest is None:
            raise
        if len(rest.exceptions) == 1:
            lone = rest.exceptions[0]
        elif all(isinstance(each, SpoolFailed) for each in rest.exceptions):
            lone = next((each for each in rest.exceptions if each.__cause__), rest.exceptions[0])
        else:
            raise
    if lone is not None:
        # Without the group as its context: it would be told twice.
        raise lone from lone.__cause__
