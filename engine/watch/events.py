"""`/v1/events`: the event log by plain HTTP, for those without a websocket.

The same batches as the stream's: `after` is the place before them, `cursor` the
one to go on from, a `gap` is told. With `wait_s` an answer waits for news; with
`last` it has the newest events instead, so that whoever has just come sees what
happened before and can go on from there without a hole.
"""

from collections import Counter
from typing import Final

import msgspec
import trio

from engine.http_server import Access, Request, Response, Route
from engine.spool.interface import EventFilter, EventPage, Spool
from engine.watch.hub import EventHub, place_of
from engine.watch.messages import account_id_of
from engine.watch.queries import (
    LIMIT_MAX,
    Query,
    domain_name,
    known_reason,
    refuse,
    whole_number,
)
from engine.watch.subscriber import event_filter
from protocols.records import Event
from protocols.stream_frames import (
    FrameError,
    StreamEvent,
    Wanted,
    cursor_text,
    gap_frame,
    stream_event,
)

PARAMETERS: Final = frozenset(
    {
        "after",
        "limit",
        "last",
        "wait_s",
        "account",
        "campaign",
        "destination",
        "message_id",
        "status",
        "reason",
    }
)
WAIT_S_MAX: Final = 60
# Each holds a connection; beyond this many, or of one account beyond its share, an answer comes at
# once, and may be empty.
WAITERS_MAX: Final = 500
WAITERS_OF_ACCOUNT_MAX: Final = 100
# Under a narrow filter one answer looks at this many events and gives the place it came to.
SCANNED_MAX: Final = 20 * LIMIT_MAX


class EventBatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """`gap` is `{"from", "to"}` where retention has removed what was asked for."""

    after: str
    events: list[StreamEvent]
    cursor: str
    gap: dict[str, str] | None = None


def routes(spool: Spool, hub: EventHub) -> list[Route]:
    """The log."""
    waiting: Counter[int | None] = Counter()

    def has_place(account_id: int | None) -> bool:
        has_share = account_id is None or waiting[account_id] < WAITERS_OF_ACCOUNT_MAX
        return has_share and waiting.total() < WAITERS_MAX

    async def list_events(request: Request) -> Response:
        query = Query(request, PARAMETERS)
        limit = query.limit()
        wait_s = query.number("wait_s", 0, 0, WAIT_S_MAX)
        account_id = account_id_of(request.identity)
        wanted = _wanted(query, account_id)
        if query.one("last") is not None:
            last = query.number("last", 0, 1, LIMIT_MAX)
            if query.one("after") is not None:
                refuse(
                    "last", "Either `last` or `after`: the newest events, or those after a place."
                )
            return Response.json(await _newest(spool, wanted, last))
        try:
            place = place_of(spool, spool.head(), query.one("after") or "start")
        except FrameError as error:
            refuse("after", error.message)
        page = await _read(spool, place.seq, wanted, limit)
        lost_from = place.lost_from
        if wait_s and not (page.events or page.gap or lost_from) and has_place(account_id):
            waiting[account_id] += 1
            try:
                with trio.move_on_after(wait_s):
                    while not page.events:
                        await hub.wait_beyond(page.seq)
                        seq = hub.passed_over(page.seq, wanted)
                        page = EventPage([], seq)
                        if seq < hub.head_seq:
                            page = await _read(spool, seq, wanted, limit)
            finally:
                waiting[account_id] -= 1
        return Response.json(_batch(spool.stream_id, place.seq, lost_from, page))

    return [Route("GET", "/v1/events", list_events, Access.ACCOUNT)]


async def _read(spool: Spool, seq: int, wanted: EventFilter, limit: int) -> EventPage:
    """One page of the log, however many reads that takes."""
    found: list[Event] = []
    gap: tuple[int, int] | None = None
    end_seq = seq + SCANNED_MAX
    while len(found) < limit and seq < min(spool.head(), end_seq):
        page = await spool.events(seq, wanted, limit - len(found))
        if page.gap is not None:
            if found:
                break  # Retention overtook us; the next answer begins with the gap.
            gap = page.gap
        found += page.events
        seq = page.seq
    return EventPage(found, seq, gap)


async def _newest(spool: Spool, wanted: EventFilter, count: int) -> EventBatch:
    """The newest `count` events that fit, oldest first, among the newest `SCANNED_MAX` of all."""
    head_seq = end_seq = spool.head()
    floor_seq = max(place_of(spool, head_seq, "start").seq, head_seq - SCANNED_MAX)
    found: list[Event] = []
    span = 4 * count
    while len(found) < count and end_seq > floor_seq:
        # Backwards in spans that grow: the first is enough unless the filter is narrow.
        start_seq = seq = max(floor_seq, end_seq - span)
        older: list[Event] = []
        while seq < end_seq:
            page = await spool.events(seq, wanted, LIMIT_MAX)
            older += (each for each in page.events if each.seq <= end_seq)
            seq = page.seq
        found = [*older, *found]
        end_seq, span = start_seq, 4 * span
    stream_id = spool.stream_id
    begin_seq = found[-count].seq - 1 if len(found) > count else end_seq
    return EventBatch(
        after=cursor_text(stream_id, begin_seq),
        events=[stream_event(each, stream_id) for each in found[-count:]],
        cursor=cursor_text(stream_id, head_seq),
    )


def _batch(stream_id: str, begin_seq: int, lost_from: str, page: EventPage) -> EventBatch:
    gap: dict[str, str] | None = None
    if page.gap is not None:
        lost_from = lost_from or cursor_text(stream_id, begin_seq)
        begin_seq = page.gap[1]
    after = cursor_text(stream_id, begin_seq)
    if lost_from:
        gap = gap_frame(lost_from, after)["gap"]
    return EventBatch(
        after=after,
        events=[stream_event(each, stream_id) for each in page.events],
        cursor=cursor_text(stream_id, page.seq),
        gap=gap,
    )


def _wanted(query: Query, account_id: int | None) -> EventFilter:
    return event_filter(
        Wanted(
            accounts=query.set_of("account", str),
            campaigns=query.set_of("campaign", str),
            destinations=query.set_of("destination", domain_name),
            message_ids=query.set_of("message_id", whole_number),
            statuses=query.statuses(),
            reasons=query.set_of("reason", known_reason),
        ),
        account_id,
    )
