"""Mail whose record cannot be read any more: it is ended as what the log knows of it.

A damaged record is in `quarantine`, and nothing leads to it; but it still counts as open, in
statistics and in its campaign, and nobody could ever say how it ended. Each event in the log is
self-contained, so that the last one tells whose mail it was and how it stood. What was open is
ended `soft_bounced` with that as its cause, as any mail is: with its one final event and in all
counters. Its record is written anew from the log, so that listings and explain have it; what the
log does not tell (its sender, its subject) is its campaign's, or empty. A content of its own stays,
because nobody knows which one it was. What the log does not reach back to any more stays as it was
counted: a person has to see.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Final

import msgspec

from engine.spool import stamps, transitions
from engine.spool.interface import Finish
from engine.spool.lmdb_changes import Changes
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_layout import (
    PAUSED,
    U32,
    U32_U64,
    U64,
    U64_U64,
    campaign_key,
    campaign_name_key,
    campaign_recipient_key,
)
from engine.spool.lmdb_writer import Turn, Writer
from protocols.addresses import Address, parse_address
from protocols.records import (
    FINAL_STATUSES,
    Campaign,
    DamagedRecord,
    Envelope,
    EnvelopeFixed,
    EnvelopeState,
    Event,
    Reason,
    Status,
    suppressed_address,
    unpack_envelope,
    unpack_record,
)

REPLY: Final = "554 5.3.0 (the stored record of this mail is damaged)"
PUT_ASIDE: Final = b"envelope\0"
# The log is gone through once for so many.
AT_ONCE_MAX: Final = 16
# Rows that one read looks at, some milliseconds' worth, and reads between which nothing expires.
READ_ROWS: Final = 5_000
READS_MAX: Final = 40
# Ids can run ahead of time, and times of events by the length of an attempt.
MARGIN_MS: Final = 3_600_000

logger = logging.getLogger(__name__)

Read = Callable[..., Awaitable[Any]]


@dataclass(slots=True)
class Search:
    """What of some envelopes was found in the log so far; `seq` is None at its end."""

    ids: frozenset[int]
    seq: int | None
    found: dict[int, list[Event]] = field(default_factory=dict)


class LostMail:
    """Those that are to be ended; one per spool. `claims` are the envelopes in flight."""

    def __init__(
        self, store: Store, writer: Writer, read: Read, claims: Mapping[int, Any], max_age_ms: int
    ) -> None:
        self._store = store
        self._writer = writer
        self._read = read
        self._claims = claims
        self._max_age_ms = max_age_ms
        self._noted: dict[int, None] = {}
        self._search: Search | None = None
        self._has_looked_back = False

    def note(self, envelope_id: int) -> None:
        """Have an envelope ended whose record is being put aside."""
        self._noted[envelope_id] = None

    async def end(self) -> bool:
        """End what was noted, at first also what an earlier life of the process has left.

        A long log is gone through in several calls: says whether there is more of it.
        """
        if not self._has_looked_back:
            self._has_looked_back = True
            self._noted.update(dict.fromkeys(await self._read(read_put_aside)))
        for _ in range(READS_MAX):
            search = self._search = self._search or await self._begun()
            if search is None:
                return False
            if search.seq is not None:
                page, search.seq = await self._read(read_traces, search.ids, search.seq)
                for event in page:
                    search.found.setdefault(event.envelope_id, []).append(event)
            if search.seq is None:
                await self._finish(search)
                self._search = None
        return True

    async def _begun(self) -> Search | None:
        """Begin to look for some of those that were noted; None if there are none."""
        # In flight it is whole in memory, and stored again with its outcome.
        ids = frozenset(islice(self._noted.keys() - self._claims.keys(), AT_ONCE_MAX))
        if not ids:
            return None
        return Search(ids, await self._read(seq_at, stamps.accepted_unix_ms_of(min(ids))))

    async def _finish(self, search: Search) -> None:
        for envelope_id in sorted(search.ids - self._claims.keys()):
            if envelope_id in search.found:
                work = partial(
                    end_lost, events=search.found[envelope_id], max_age_ms=self._max_age_ms
                )
                await self._writer.do(Turn.HOUSEKEEPING, work)
            del self._noted[envelope_id]


def read_put_aside(store: Store) -> list[int]:
    """Return the envelopes in `quarantine` that have no record now."""
    found: list[int] = []
    with store.environment.begin() as txn, txn.cursor(store.tables.quarantine) as cursor:
        is_there = cursor.set_range(PUT_ASIDE)
        while is_there and cursor.key().startswith(PUT_ASIDE):
            key = cursor.key().removeprefix(PUT_ASIDE)
            if txn.get(key, db=store.tables.envelope) is None:
                found.append(U64.unpack(key)[0])
            is_there = cursor.next()
    return found


def seq_at(store: Store, at_unix_ms: int) -> int | None:
    """Return a place in the log before all events of that time; None if the log is empty."""
    with store.environment.begin() as txn, txn.cursor(store.tables.event) as cursor:
        if not cursor.last():
            return None
        high: int = U64.unpack(cursor.key())[0]
        cursor.first()
        low: int = U64.unpack(cursor.key())[0]
        while low < high:
            middle = (low + high) // 2
            cursor.set_range(U64.pack(middle))
            try:
                is_before = unpack_record(cursor.value(), Event).at_unix_ms < at_unix_ms - MARGIN_MS
            except DamagedRecord:
                is_before = False
            low, high = (middle + 1, high) if is_before else (low, middle)
    return low


def read_traces(
    store: Store, ids: Collection[int], from_seq: int
) -> tuple[list[Event], int | None]:
    """Return events of these envelopes, and the place to go on from; None at the end of the log."""
    # Encoded as it stands in a record: most rows need no decoding.
    needles = [msgspec.msgpack.encode(envelope_id) for envelope_id in ids]
    found: list[Event] = []
    with store.environment.begin() as txn, txn.cursor(store.tables.event) as cursor:
        is_there = cursor.set_range(U64.pack(from_seq))
        for _ in range(READ_ROWS):
            if not is_there:
                return found, None
            stored = cursor.value()
            if any(needle in stored for needle in needles):
                try:
                    event = unpack_record(stored, Event)
                except DamagedRecord:
                    event = None
                if event is not None and event.envelope_id in ids:
                    found.append(event)
            is_there = cursor.next()
        return found, U64.unpack(cursor.key())[0] if is_there else None


def end_lost(changes: Changes, events: Sequence[Event], *, max_age_ms: int) -> None:
    """Write an envelope anew from its events, and end it if it was open."""
    told = [each for each in events if each.kind == "status"]
    if not told or not _is_lost(changes, told[-1]):
        return
    envelope = _as_told(changes, events, told[-1], max_age_ms)
    campaign = _campaign_of(changes, envelope.fixed)
    fixed, old = _of_campaign(envelope.fixed, campaign), envelope.state.status
    if old is Status.PAUSED:
        _leave_day(changes, fixed)
    decision = Finish(
        fixed.envelope_id, Status.SOFT_BOUNCED, changes.now_unix_ms, Reason.OTHER, REPLY
    )
    change = transitions.apply_finish(envelope, decision, changes.next_place())
    if change is None:
        changes.write_anew(fixed, old, envelope.state, None)
        return
    logger.error("spool: mail %d is ended, because its record is damaged", fixed.envelope_id)
    changes.write_anew(fixed, old, *change)
    expiry = U64_U64.pack(envelope.state.expires_unix_ms, fixed.envelope_id)
    changes.txn.delete(expiry, db=changes.tables.expiry)
    if campaign is not None:
        changes.refer(campaign.content_id, -1)


def _is_lost(changes: Changes, event: Event) -> bool:
    """Say whether there is no record that can be read, and not because it was purged."""
    key = U64.pack(event.envelope_id)
    row = U32_U64.pack(event.account_id, event.envelope_id)
    if changes.txn.get(row, db=changes.tables.by_account) is None:
        return False
    stored = changes.txn.get(key, db=changes.tables.envelope)
    if stored is None:
        return True
    try:
        unpack_envelope(stored)
    except DamagedRecord:
        changes.keep_damaged("envelope", key, stored)
        return True
    return False


def _as_told(changes: Changes, events: Sequence[Event], last: Event, max_age_ms: int) -> Envelope:
    """Return an envelope as its events tell of it; `last` is the last one that has its status."""
    parsed = parse_address(last.address)
    fixed = EnvelopeFixed(
        envelope_id=last.envelope_id,
        uuid=last.uuid,
        account_id=last.account_id,
        account=last.account,
        campaign=last.campaign,
        flow=changes.flow_of(last.account_id, last.campaign),
        lane=1,
        custom_id=last.custom_id,
        event_payload=last.event_payload,
        reverse_path="",
        recipient=parsed.wire if isinstance(parsed, Address) else last.address,
        address=last.address,
        destination=last.destination,
        subject="",
        content_id=0,
        content_size=0,
        needs_8bit=False,
        needs_utf8=False,
        accepted_unix_ms=last.accepted_unix_ms,
    )
    is_final = last.status in FINAL_STATUSES
    state = EnvelopeState(
        last.status,
        max(each.attempt for each in events),
        0 if is_final else last.next_attempt_unix_ms,
        last.accepted_unix_ms + max_age_ms,
        reply=last.reply,
        reason=last.reason,
        mx_host=last.mx_host,
        finished_unix_ms=last.at_unix_ms if is_final else 0,
        event_seqs=[each.seq for each in events],
    )
    return Envelope(fixed, state)


def _of_campaign(fixed: EnvelopeFixed, campaign: Campaign | None) -> EnvelopeFixed:
    """Return the mail with what it has in common with all of its campaign."""
    if campaign is None:
        return fixed
    return msgspec.structs.replace(
        fixed,
        lane=campaign.lane,
        reverse_path=campaign.reverse_path,
        subject=campaign.subject,
        content_id=campaign.content_id,
        content_size=campaign.content_size,
    )


def _leave_day(changes: Changes, fixed: EnvelopeFixed) -> None:
    """Take a paused mail from the day that was booked for it, whichever that is."""
    prefix, tail = U32.pack(fixed.account_id), U64.pack(fixed.envelope_id)
    found: list[bytes] = []
    with changes.txn.cursor(changes.tables.paused) as cursor:
        is_there = cursor.set_range(prefix)
        while is_there and cursor.key().startswith(prefix):
            if cursor.key().endswith(tail):
                found.append(cursor.key())
            is_there = cursor.next()
    for key in found:
        changes.txn.delete(key, db=changes.tables.paused)
        changes.use(fixed.account_id, PAUSED.unpack(key)[1], -1)


def _campaign_of(changes: Changes, fixed: EnvelopeFixed) -> Campaign | None:
    """Return the campaign whose template a mail was filled in from, None for other mail."""
    txn, tables = changes.txn, changes.tables
    if fixed.campaign is None:
        return None
    name_key = campaign_name_key(fixed.account_id, fixed.campaign)
    campaign_id = changes.number("campaign_name", name_key)
    if campaign_id is None:
        return None
    key = campaign_key(fixed.account_id, campaign_id)
    address = suppressed_address(fixed.recipient, fixed.destination)
    row = txn.get(campaign_recipient_key(key, address), db=tables.campaign_recipient)
    stored = txn.get(key, db=tables.campaign)
    if row != U64.pack(fixed.envelope_id) or stored is None:
        return None
    try:
        return unpack_record(stored, Campaign)
    except DamagedRecord:
        return None
