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

import msgspec
import trio

from engine.spool.agenda import UNREACHABLE_CAUSES
from engine.spool.hold_calls import Hold, MailFilter
from engine.spool.interface import Decision, Finish, Rest, RetryAt, Spool
from engine.spool.listing_calls import EnvelopeFilter, EnvelopePage
from protocols.records import Envelope, Status

WAITING: Final = frozenset({Status.QUEUED, Status.DEFERRED})
OPEN: Final = WAITING | {Status.PAUSED}

PAGE: Final = 500
# After so many pages whoever asks gets an answer, with where to go on: some seconds at most.
PAGES_PER_STEP: Final = 20
# Should the process end in the middle of a cancellation, its hold does not outlive it for long.
CANCEL_HOLDS_MS: Final = 60_000


class Deed(Enum):
    RETRY = "retry"
    CANCEL = "cancel"


@dataclass(slots=True)
class Decided:
    """What one step came to. `after` is the mail to go on behind, None at the end."""

    after: int | None
    matched: Counter[Status] = field(default_factory=Counter)
    changed: int = 0
    in_flight: int = 0


async def decide(
    spool: Spool, deed: Deed, wanted: MailFilter, after: int | None, *, is_dry: bool, why: str = ""
) -> Decided:
    """Do one step of a deed to the mail that fits; a dry one only counts.

    What is cancelled has in its story `why`, if that is given.

    Retry makes mail due now and has its destination tried again if that could not be reached; a
    rate and a hold stay what they are. Cancel takes back what an actor has claimed and not yet
    given to a server; what is with a server is left alone.
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
    sites: dict[str, str] = {}
    for _ in range(PAGES_PER_STEP):
        page = await _page(spool, deed, wanted, decided.after)
        fitting = [
            envelope
            for envelope in page.envelopes
            if wanted.fits(envelope, await _site(spool, wanted, envelope, sites), now_unix_ms)
        ]
        decided.matched.update(envelope.state.status for envelope in fitting)
        claimed = spool.in_flight(envelope.fixed.envelope_id for envelope in fitting)
        decided.in_flight += len(claimed)
        free = [each for each in fitting if each.fixed.envelope_id not in claimed]
        decisions = _decisions(deed, free, now_unix_ms, why)
        decided.changed += len(decisions)
        if deed is Deed.RETRY:
            decisions += await _tried_again(spool, free, now_unix_ms)
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
        ),
        after,
        PAGE,
    )


async def _site(spool: Spool, wanted: MailFilter, envelope: Envelope, sites: dict[str, str]) -> str:
    """Return the site of a mail's destination, if the filter asks for one."""
    name = envelope.fixed.destination
    if wanted.site is not None and name not in sites:
        record = await spool.destination(name)
        sites[name] = record.site if record is not None else ""
    return sites.get(name, "")


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


async def _tried_again(spool: Spool, free: Iterable[Envelope], now_unix_ms: int) -> list[Decision]:
    """Return rests that end the back-off of destinations; those have no actor that could differ."""
    rests: list[Decision] = []
    for name in sorted({each.fixed.destination for each in free}):
        record = await spool.destination(name)
        if (
            record is not None
            and record.cause in UNREACHABLE_CAUSES
            and record.not_before_unix_ms > now_unix_ms
        ):
            rests.append(Rest(name, msgspec.structs.replace(record, not_before_unix_ms=0)))
    return rests
