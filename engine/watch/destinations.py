"""One destination as people see it: how much waits, in which state it is, and what holds it.

Put together from counts and the remembered record (spool), the live actor (delivery's statistics),
and what explain says to hold it. A pure function of them and the time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from engine.delivery.holding import waiting_in
from engine.spool.agenda import UNREACHABLE_CAUSES
from engine.spool.hold_calls import NO_END_UNIX_MS, Hold
from engine.spool.interface import DestinationRow, Spool
from engine.watch.hold_views import HeldMails, held_mails
from protocols.records import STATUSES, DestinationRecord, Status
from protocols.replies import without_mailboxes
from protocols.timestamps import time_text_or_none

PLACE_OF: Final = {status: place for place, status in enumerate(STATUSES)}
WAITING: Final = (Status.QUEUED, Status.DEFERRED, Status.PAUSED)


class LiveDestination(Protocol):
    """What delivery says of a destination that has an actor now."""

    @property
    def state(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def connections(self) -> int: ...
    @property
    def rate_per_s(self) -> float: ...


LiveDestinations = Callable[[], Mapping[str, LiveDestination]]


class HeldBy(msgspec.Struct, frozen=True):
    """The one thing that holds mail back. `limit` is what a throttle allows, as text."""

    code: str
    scope: str
    key: str
    since: str | None
    limit: str | None
    reply: str
    reason: str | None
    text: str


class DestinationView(msgspec.Struct, frozen=True):
    """`state` is idle, flowing, throttled, unreachable or held; `since` is when it began.

    `held` is how many of its waiting mails are held by an account, a campaign, the destination or
    its site, and `holds` are the holds that do it, the most first. Held mails that are chosen one
    by one (by reply, age or address) are not among them.
    """

    destination: str
    site: str
    queued: int
    deferred: int
    paused: int
    state: str
    held_by: HeldBy | None
    since: str | None
    last_reply: str
    reason: str | None
    next_attempt_at: str | None
    rate_per_s: float
    connections: int
    held: int
    holds: list[HeldMails]


@dataclass(frozen=True, slots=True)
class WholeHold:
    """A hold of all mail at a destination, the account it is about, and when the first may go."""

    hold: Hold
    account: str | None
    until_unix_ms: int


def destination_view(
    row: DestinationRow,
    live: LiveDestination | None,
    now_unix_ms: int,
    *,
    held_by: HeldBy | None,
    hold: WholeHold | None = None,
    is_operator: bool = False,
) -> DestinationView:
    """`held_by` is what explain says of it, `hold` what `hold_of_row` found.

    An account is told of replies without the names of mailboxes in them.
    """
    record = row.record if is_operator else told_to_accounts(row.record)
    queued, deferred, paused = (row.counts[PLACE_OF[each]] for each in WAITING)
    # Where nothing waits nothing is held back, whatever the last mail met.
    is_empty = not queued + deferred + paused
    cause = "" if is_empty else cause_now(record, live, now_unix_ms)
    next_unix_ms = next_attempt_unix_ms(row, live, now_unix_ms, hold=hold)
    since_unix_ms = record.since_unix_ms if cause else 0
    if hold is not None:
        since_unix_ms = hold.hold.since_unix_ms
    state = "held" if hold is not None else _state(cause, live, is_empty=is_empty)
    if state == "idle" and held_by is not None and held_by.code == "rate_limit":
        state = "throttled"  # Its mail waits for limits of its accounts.
    return DestinationView(
        destination=row.destination,
        site=(live.site if live else "") or record.site,
        queued=queued,
        deferred=deferred,
        paused=paused,
        state=state,
        held_by=held_by,
        since=time_text_or_none(since_unix_ms),
        last_reply=record.reply,
        reason=record.reason.value if record.reason and cause else None,
        next_attempt_at=time_text_or_none(next_unix_ms or 0),
        rate_per_s=round(live.rate_per_s, 3) if live else 0.0,
        connections=live.connections if live else 0,
        held=row.held.mails if row.held else 0,
        holds=holds_of(row),
    )


def holds_of(row: DestinationRow) -> list[HeldMails]:
    """The holds that keep mail of a destination back, the most first."""
    parts = row.held.parts if row.held else ()
    return [held_mails(part.hold, part.account, part.mails) for part in parts]


def next_attempt_unix_ms(
    row: DestinationRow, live: LiveDestination | None, now_unix_ms: int, *, hold: WholeHold | None
) -> int | None:
    """When the next of what is queued or deferred goes; None if nothing is, or nobody can tell."""
    next_unix_ms = row.wake_unix_ms
    if next_unix_ms is None or not any(
        row.counts[PLACE_OF[each]] for each in (Status.QUEUED, Status.DEFERRED)
    ):
        return None
    if cause_now(row.record, live, now_unix_ms):
        next_unix_ms = max(next_unix_ms, row.record.not_before_unix_ms)
    if hold is not None:
        next_unix_ms = max(next_unix_ms, hold.until_unix_ms)
    return next_unix_ms if next_unix_ms < NO_END_UNIX_MS else None


def told_to_accounts(record: DestinationRecord) -> DestinationRecord:
    """The record without mailbox names: its reply may have been for somebody else's recipient."""
    reply = without_mailboxes(record.reply)
    return record if reply == record.reply else msgspec.structs.replace(record, reply=reply)


def cause_now(record: DestinationRecord, live: LiveDestination | None, now_unix_ms: int) -> str:
    """What holds the whole destination now, "" if nothing.

    A destination that is being tried again is unreachable until it answers; once its
    actor sees mail flow, what is remembered of it is history.
    """
    if live is not None and live.state == "flowing":
        return ""
    return record.cause if record.failures or record.not_before_unix_ms > now_unix_ms else ""


def hold_of_row(
    spool: Spool, row: DestinationRow, account_id: int | None = None
) -> WholeHold | None:
    """What holds all mail of a destination: it as such, or each flow that has some there.

    Of several holds the one that holds the most, and of equals the one that ends last. With an
    account, whose row it is, none that is about another's mail.
    """
    waiting, held = waiting_in(row), row.held
    if held is not None and held.mails >= waiting:
        return WholeHold(held.parts[0].hold, held.parts[0].account, held.until_unix_ms)
    if waiting and row.wake_unix_ms is not None and row.wake_unix_ms >= NO_END_UNIX_MS:
        # Mail by mail: each of them is held, by what fits there.
        fitting = (
            hold
            for hold in spool.holds()
            if not hold.wanted.is_of_flow
            and hold.wanted.fits_place(row.destination, row.record.site)
            and (account_id is None or hold.wanted.account_id in (None, account_id))
        )
        last = max(fitting, key=lambda hold: hold.end_unix_ms, default=None)
        return None if last is None else WholeHold(last, None, row.wake_unix_ms)
    return None


def just_before(name: str) -> str:
    """A text that sorts before `name` with no domain name in between.

    Names are ASCII letters, digits, dots, hyphens and underscores, all of them before DEL.
    """
    if not name or name[-1] == "\0":
        return name  # No name has that.
    return f"{name[:-1]}{chr(ord(name[-1]) - 1)}\x7f"


def _state(cause: str, live: LiveDestination | None, *, is_empty: bool) -> str:
    if is_empty:
        return "flowing" if live is not None and live.state == "flowing" else "idle"
    if live is not None and live.state != "idle":
        return live.state
    if cause in UNREACHABLE_CAUSES:
        return "unreachable"
    if cause == "hold":
        return "held"
    return "throttled" if cause else "idle"
