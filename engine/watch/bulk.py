"""Decisions about much waiting mail at once: retry now and cancel, by the filter of holds.

Walks the mail that may fit, newest first, a page at a time, and settles each page: a decision about
a million mails is a few thousand short commits, between which results of attempts have their turn.
Decides nothing about mail that is with a server: `in_flight` counts it.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import trio

from engine.spool.agenda import backs_off
from engine.spool.hold_calls import Hold, MailFilter
from engine.spool.interface import Decision, Finish, RetryAt, Spool, TryNow
from engine.spool.listing_calls import EnvelopeFilter, EnvelopePage
from protocols.records import Envelope, Status

WAITING: Final = frozenset({Status.QUEUED, Status.DEFERRED})
OPEN: Final = WAITING | {Status.PAUSED}

PAGE: Final = 500
# After so many pages whoever asks gets an answer, with where to go on: some seconds at most.
PAGES_PER_STEP: Final = 20
# Mails that are looked at between two turns of other tasks: there can be a thousand holds.
MAILS_AT_ONCE: Final = 50
# Should the process end in the middle of a cancellation, its hold does not outlive it for long.
CANCEL_HOLDS_MS: Final = 60_000


class Deed(Enum):
    RETRY = "retry"
    CANCEL = "cancel"


@dataclass(slots=True)
class Decided:
    """What one step came to. `after` is the mail to go on behind, None at the end.

    Of a retry `held` has the mails that stay where they are, each with the hold that ends last, and
    `destinations` those that could not be reached and are tried now, in the order found.
    """

    after: int | None
    matched: Counter[Status] = field(default_factory=Counter)
    changed: int = 0
    in_flight: int = 0
    held: Counter[Hold] = field(default_factory=Counter)
    destinations: dict[str, None] = field(default_factory=dict)


async def decide(
    spool: Spool, deed: Deed, wanted: MailFilter, after: int | None, *, is_dry: bool, why: str = ""
) -> Decided:
    """Do one step of a deed to the mail that fits; a dry one only counts.

    What is cancelled has in its story `why`, if that is given.

    Retry makes mail due now and has its destination tried now if that could not be reached, unless
    all of this mail is held there; a rate and a hold stay what they are. Cancel takes back what an
    actor has claimed and not yet given to a server; what is with a server is left alone.
    """
    if deed is Deed.RETRY or is_dry:
        return await _step(spool, deed, wanted, after, is_dry=is_dry, why=why)
    async with _held(spool, wanted):
        return await _step(spool, deed, wanted, after, is_dry=False, why=why)


@asynccontextmanager
async def _held(spool: Spool, wanted: MailFilter) -> AsyncIterator[None]:
    """Let no actor pull this mail meanwhile; what it has pulled goes back."""
    now_unix_ms = spool.now_unix_ms()
    hold = await spool.put_hold(
        Hold(0, wanted, now_unix_ms + CANCEL_HOLDS_MS, "engine", "is being cancelled", now_unix_ms)
    )
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await spool.lift_holds([hold.hold_id])


async def _step(
    spool: Spool, deed: Deed, wanted: MailFilter, after: int | None, *, is_dry: bool, why: str
) -> Decided:
    decided = Decided(after)
    now_unix_ms = spool.now_unix_ms()
    sites = _Sites(spool)
    for _ in range(PAGES_PER_STEP):
        page = await _page(spool, deed, wanted, decided.after)
        fitting = [
            envelope
            for envelope in page.envelopes
            if wanted.fits(
                envelope,
                await sites.of(envelope) if wanted.site is not None else "",
                now_unix_ms,
            )
        ]
        decided.matched.update(envelope.state.status for envelope in fitting)
        claimed = spool.in_flight(envelope.fixed.envelope_id for envelope in fitting)
        decided.in_flight += len(claimed)
        free = [each for each in fitting if each.fixed.envelope_id not in claimed]
        decisions = _decisions(deed, free, now_unix_ms, why)
        decided.changed += len(decisions)
        if deed is Deed.RETRY:
            going = await _not_held(spool, free, sites, decided.held)
            decisions += await _tried_now(spool, going, decided.destinations, now_unix_ms)
        if decisions and not is_dry:
            await spool.settle([], decisions)
        decided.after = page.after
        if page.after is None:
            break
    return decided


async def _page(spool: Spool, deed: Deed, wanted: MailFilter, after: int | None) -> EnvelopePage:
    return await spool.find(
        EnvelopeFilter(
            account_id=wanted.account_id,
            statuses=WAITING if deed is Deed.RETRY else OPEN,
            destination=wanted.destination,
            campaign=wanted.campaign,
            address=wanted.address,
        ),
        after,
        PAGE,
    )


class _Sites:
    """The sites of destinations, each looked up once."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._known: dict[str, str] = {}

    async def of(self, envelope: Envelope) -> str:
        name = envelope.fixed.destination
        if name not in self._known:
            record = await self._spool.destination(name)
            self._known[name] = record.site if record is not None else ""
        return self._known[name]


def _decisions(deed: Deed, free: Iterable[Envelope], now_unix_ms: int, why: str) -> list[Decision]:
    if deed is Deed.CANCEL:
        # In brackets, as everything that no server has said.
        said = f"(cancelled: {' '.join(why.split())})" if why.strip() else ""
        return [
            Finish(
                each.fixed.envelope_id,
                Status.CANCELLED,
                now_unix_ms,
                None,
                said or each.state.reply,
            )
            for each in free
        ]
    return [
        RetryAt(each.fixed.envelope_id, now_unix_ms, unless_in_flight=True)
        for each in free
        if each.state.due_unix_ms > now_unix_ms
    ]


async def _not_held(
    spool: Spool, free: list[Envelope], sites: _Sites, held: Counter[Hold]
) -> list[Envelope]:
    """Return the mails that no hold keeps back; count the others in `held`."""
    if not spool.holds():
        return free
    going: list[Envelope] = []
    for number, envelope in enumerate(free):
        if number % MAILS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
        hold = spool.hold_of(envelope, await sites.of(envelope))
        if hold is None:
            going.append(envelope)
        else:
            held[hold] += 1
    return going


async def _tried_now(
    spool: Spool, going: Iterable[Envelope], tried: dict[str, None], now_unix_ms: int
) -> list[Decision]:
    """Have the destinations tried that back off, once in a step: they may fail while it goes on."""
    fresh = [
        name
        for name in sorted({each.fixed.destination for each in going} - tried.keys())
        if backs_off(await spool.destination(name), now_unix_ms)
    ]
    tried.update(dict.fromkeys(fresh))
    return [TryNow(name) for name in fresh]
