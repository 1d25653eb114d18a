"""The event hub: what was committed, for many readers at once.

It is told of commits by the spool and keeps the newest events in a ring, each
encoded at most once for each format. A subscriber is a place in the log: it asks
for the batch after its place, from the ring if that reaches back so far, else
from the spool. Subscribers at the same place with the same filter and format get
the same octets. The hub wakes all of them at most once in 25 ms and holds nothing
for anybody, so a slow one costs a place in a wait queue.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

import trio

from engine.spool.interface import CommitNotice, EventFilter, Spool
from protocols.records import Event
from protocols.stream_frames import (
    Frames,
    JsonFrames,
    MsgpackFrames,
    cursor_text,
    gap_frame,
    parse_cursor,
    stream_event,
    websocket_frame,
)

# Every frame costs each subscriber a system call and the loop a few steps, however much is in it.
# At 2,000 events a second this makes frames of 50, and nobody sees 25 ms.
PERIOD_S: Final = 0.025
BATCH_EVENTS_MAX: Final = 1_000
# Two seconds at 2,000 a second, at most 10 MB: whoever falls behind more than that reads the log.
RING_EVENTS: Final = 4_096
# Batches are shared within one period; more different ones than this are built and not kept.
SHARED_MAX: Final = 4_096


@dataclass(frozen=True, slots=True)
class Batch:
    """What comes after a place: `events` of `frame` and up to where was looked.

    `frames` are whole websocket messages: a gap notice where the log no longer
    reaches back, then the batch. `seq` is the place to go on from.
    """

    frames: bytes
    events: int
    seq: int
    has_gap: bool = False


class _Recent:
    """One event of the ring and its octets, made when somebody first asks for them."""

    __slots__ = ("event", "json", "msgpack")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.json = b""
        self.msgpack = b""


@dataclass(slots=True)
class HubStatistics:
    subscribers: int
    events: int
    batches_built: int
    batches_shared: int
    log_reads: int


class EventHub:
    """Recent events and the waking of those who read them. Runs while `run` runs."""

    def __init__(self, spool: Spool, *, ring_events: int = RING_EVENTS) -> None:
        self._spool = spool
        self.ring_events = ring_events
        self._ring: list[_Recent] = []
        self._seqs: list[int] = []
        # Before this place the ring knows nothing: it begins with what is committed from now on.
        self._ring_after_seq = spool.head()
        self._head_seq = self._ring_after_seq
        self._news = trio.Event()
        self._grown = trio.Event()
        self._shared: dict[tuple[int, int, EventFilter, bool], Batch] = {}
        self._passed: dict[tuple[int, EventFilter], int] = {}
        self._json, self._msgpack = JsonFrames(), MsgpackFrames()
        self.subscribers = 0
        self._batches_built = self._batches_shared = self._log_reads = self._events = 0
        spool.add_listener(self._committed)

    @property
    def stream_id(self) -> str:
        return self._spool.stream_id

    @property
    def head_seq(self) -> int:
        """The newest place that subscribers may be told of."""
        return self._head_seq

    def frames_for(self, *, binary: bool) -> Frames:
        return self._msgpack if binary else self._json

    async def run(self) -> None:
        """Wake the readers when the log has grown, at most once a period. Runs until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            # Readers see the log grow here and not with each commit, or those who are woken last
            # would see more than the first, and share nothing.
            self._head_seq = max(self._head_seq, self._seqs[-1])
            self._shared.clear()
            self._passed.clear()
            self._grown.set()
            self._grown = trio.Event()
            await trio.sleep(PERIOD_S)

    async def wait_beyond(self, seq: int) -> None:
        """Wait until the log has grown beyond `seq`."""
        while self._head_seq <= seq:
            await self._grown.wait()

    def passed_over(self, seq: int, wanted: EventFilter) -> int:
        """Return the place up to which nothing fits after `seq`, as far as memory can tell.

        That is `seq` itself where only the log knows. Whoever waits for news asks this first: a
        look into the log for each of hundreds who wait costs more than the mail they hear of.
        """
        if seq < self._ring_after_seq:
            return seq
        key = (seq, wanted)
        passed_seq = self._passed.get(key)
        if passed_seq is None:
            first, end = bisect_right(self._seqs, seq), bisect_right(self._seqs, self._head_seq)
            fitting = (e.event.seq for e in self._ring[first:end] if wanted.admits(e.event))
            passed_seq = next(fitting, max(seq, self._head_seq) + 1) - 1
            if len(self._passed) < SHARED_MAX:
                self._passed[key] = passed_seq
        return passed_seq

    async def batch_after(
        self, seq: int, told_seq: int, wanted: EventFilter, *, binary: bool
    ) -> Batch:
        """Return the next batch of a subscriber that has looked up to `seq` and was told so
        up to `told_seq`: that is its batch's `after`, so that nobody can doubt the chain.
        """
        if seq < self._ring_after_seq:
            return await self._batch_from_log(seq, told_seq, wanted, binary)
        key = (seq, told_seq, wanted, binary)
        batch = self._shared.get(key)
        if batch is not None:
            self._batches_shared += 1
            return batch
        batch = self._batch_from_ring(seq, told_seq, wanted, binary)
        if len(self._shared) < SHARED_MAX:
            self._shared[key] = batch
        return batch

    def statistics(self) -> HubStatistics:
        return HubStatistics(
            self.subscribers,
            self._events,
            self._batches_built,
            self._batches_shared,
            self._log_reads,
        )

    def _committed(self, notice: CommitNotice) -> None:
        if not notice.events:
            return
        for event in notice.events:
            self._ring.append(_Recent(event))
            self._seqs.append(event.seq)
        self._events += len(notice.events)
        if len(self._ring) >= 2 * self.ring_events:
            # Cut rarely and in one piece: a list gives up its front only as a whole.
            cut = len(self._ring) - self.ring_events
            self._ring_after_seq = self._seqs[cut - 1]
            del self._ring[:cut], self._seqs[:cut]
        self._news.set()

    def _batch_from_ring(self, seq: int, told_seq: int, wanted: EventFilter, binary: bool) -> Batch:
        self._batches_built += 1
        admits = wanted.admits
        chosen: list[bytes] = []
        last_seq = max(seq, self._head_seq)
        first, end = bisect_right(self._seqs, seq), bisect_right(self._seqs, last_seq)
        for recent in self._ring[first:end]:
            if admits(recent.event):
                chosen.append(self._encoded(recent, binary))
                if len(chosen) == BATCH_EVENTS_MAX:
                    last_seq = recent.event.seq
                    break
        return self._batch(told_seq, chosen, last_seq, binary)

    async def _batch_from_log(
        self, seq: int, told_seq: int, wanted: EventFilter, binary: bool
    ) -> Batch:
        self._log_reads += 1
        page = await self._spool.events(seq, wanted, BATCH_EVENTS_MAX)
        gap = b""
        if page.gap is not None:
            gap = self.gap(cursor_text(self.stream_id, told_seq), page.gap[1], binary=binary)
            told_seq = page.gap[1]
        frames = self.frames_for(binary=binary)
        encoded = [frames.encode(stream_event(event, self.stream_id)) for event in page.events]
        batch = self._batch(told_seq, encoded, page.seq, binary)
        return Batch(gap + batch.frames, batch.events, batch.seq, has_gap=bool(gap))

    def gap(self, from_cursor: str, to_seq: int, *, binary: bool) -> bytes:
        """The notice that what lies between is gone."""
        value = gap_frame(from_cursor, cursor_text(self.stream_id, to_seq))
        return websocket_frame(self.frames_for(binary=binary).encode(value), binary=binary)

    def _batch(self, told_seq: int, events: list[bytes], seq: int, binary: bool) -> Batch:
        payload = self.frames_for(binary=binary).batch(
            cursor_text(self.stream_id, told_seq), events, cursor_text(self.stream_id, seq)
        )
        return Batch(websocket_frame(payload, binary=binary), len(events), seq)

    def _encoded(self, recent: _Recent, binary: bool) -> bytes:
        if binary:
            if not recent.msgpack:
                recent.msgpack = self._msgpack.encode(stream_event(recent.event, self.stream_id))
            return recent.msgpack
        if not recent.json:
            recent.json = self._json.encode(stream_event(recent.event, self.stream_id))
        return recent.json


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader begins. `lost_from` is the cursor it asked for, if the log has not all of
    what came after it; then `seq` is the last place that is gone.
    """

    seq: int
    lost_from: str = ""


def place_of(spool: Spool, head_seq: int, after: str) -> Place:
    """Return the place that `after` ("now", "start" or a cursor) stands for.

    Raises FrameError "bad_cursor" for what is none of these. A cursor of another
    log, or from beyond the end of this one, begins at the oldest event we have.
    """
    oldest_seq = spool.spool_statistics().oldest_seq
    before_oldest = max(0, min(oldest_seq - 1, head_seq))
    if after == "now":
        return Place(head_seq)
    if after == "start":
        return Place(before_oldest)
    stream_id, seq = parse_cursor(after)
    if stream_id != spool.stream_id:
        return Place(before_oldest, after)
    if seq > head_seq:
        return Place(head_seq, after)
    if seq < before_oldest:
        return Place(before_oldest, after)
    return Place(seq)
