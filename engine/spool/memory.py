"""The `memory:` adapter: the model of what a spool means.

Everything happens at once and in one place, so that what a call means can be read off it; the
contract tests compare every other adapter with this one. A commit is a piece of code without an
await. What outlives a crash is `MemoryData`; claims, listeners and the clock's stamp do not.
"""

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import trio
from msgspec import structs

from engine.clock import Clock, Stamp
from engine.spool import (
    agenda,
    booking,
    fair_turns,
    invariants,
    one_by_one,
    queue_place,
    suppressing,
    transitions,
)
from engine.spool.account_rules import known
from engine.spool.disk_calls import DiskRoom
from engine.spool.doubts import settle_doubts
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
    Finish,
    Group,
    Quota,
    Rest,
    RetryAt,
    SpoolError,
    SpoolSettings,
    SpoolStatistics,
    StatisticsRow,
    TryNow,
    Window,
    WindowPosition,
)
from engine.spool.listing_calls import EnvelopeFilter, EnvelopePage
from engine.spool.memory_accounts import MemoryAccounts
from engine.spool.memory_campaigns import MemoryCampaigns
from engine.spool.memory_commit import Commit
from engine.spool.memory_data import MemoryData
from engine.spool.memory_figures import MemoryFigures
from engine.spool.memory_holds import MemoryHolds
from engine.spool.memory_notes import MemoryNotes
from engine.spool.memory_reads import counted, destination_rows, matching
from engine.spool.memory_waiting import MemoryWaiting
from engine.spool.rebooking import Rebooking
from protocols.records import (
    FINAL_STATUSES,
    DestinationRecord,
    Envelope,
    Event,
    Status,
    Suppression,
    suppressed_address,
)

# As everywhere: a commit is short, so that results of attempts never wait long for their turn.
ROWS_MAX: Final = 500


class MemorySpool(
    MemoryAccounts, MemoryCampaigns, MemoryHolds, MemoryNotes, MemoryFigures, MemoryWaiting
):
    """A spool over `data`. Making one on the same data again is what a restart is."""

    def __init__(
        self,
        data: MemoryData,
        *,
        settings: SpoolSettings,
        clock: Clock,
        random: random.Random,
    ) -> None:
        self._data = data
        self._settings = settings
        self._stamp = Stamp(clock, high_water_unix_ms=data.time_high_unix_ms)
        self._claimed: set[int] = set()
        self._listeners = []
        self._commits = 0
        self._doubts_at_start = 0
        self._items_committed = 0
        data.start_count += 1
        data.stream_id = data.stream_id or random.randbytes(8).hex()

    @property
    def stream_id(self) -> str:
        return self._data.stream_id

    @property
    def start_count(self) -> int:
        return self._data.start_count

    # Writing.

    async def accept(self, requests: Sequence[AcceptRequest]) -> list[Accepted | SpoolError]:
        await trio.lowlevel.checkpoint()
        commit = Commit(self._data, self.now_unix_ms())
        answers = [self._accept_one(commit, request) for request in requests]
        await self._finish_commit(commit)
        return answers

    def _accept_one(self, commit: Commit, request: AcceptRequest) -> Accepted | SpoolError:
        data, now_unix_ms = self._data, commit.now_unix_ms
        account_id = request.account.account_id
        first: Accepted | None = None
        if request.digest is not None:
            lives_until, first = data.requests.get((account_id, request.digest), (0, None))
            first = first if lives_until > now_unix_ms else None
            if first is not None and not first.refused:
                return replace(first, repeated=True)
        usage = data.usage

        def use(booked: booking.Booking) -> None:
            usage[account_id, booked.day] = usage.get((account_id, booked.day), 0) + booked.count

        try:
            repeats, campaigns = commit.listed(request)
            passed = one_by_one.places_taken(request, first).union(repeats)
            suppressions = self._suppressions(request, now_unix_ms)
            book = partial(
                booking.book,
                quota=request.quota,
                zone=booking.zone_of(request.account.time_zone),
                now_unix_ms=now_unix_ms,
                booked_on=lambda day: usage.get((account_id, day), 0),
                paused_max_ms=self._settings.paused_max_ms,
            )
            bookings, refused = one_by_one.book_request(request, suppressions, passed, book, use)
        except SpoolError as refusal:
            return refusal
        data.campaigns.update(campaigns)
        places = (each for each in bookings for _ in range(each.count))
        passed = passed.union(refused)
        left = [place for place in one_by_one.places_of(request) if place not in passed]
        made = {
            place: commit.block(fixed, suppressions[place])
            if place in suppressions
            else commit.accept_envelope(fixed, next(places), self._settings.max_age_ms)
            for place, fixed in zip(left, commit.new_envelopes(request, passed), strict=True)
        }
        accepted = one_by_one.answer_of(request, first, made, repeats, refused)
        if made and request.digest is not None and request.digest_lives_ms > 0:
            lives_until = now_unix_ms + request.digest_lives_ms
            data.requests[account_id, request.digest] = (lives_until, accepted)
        return accepted

    def _suppressions(self, request: AcceptRequest, now_unix_ms: int) -> dict[int, Suppression]:
        """Return what suppresses the recipients of a request, by their place."""
        recipients = [each for message in request.messages for each in message.recipients]
        found = {
            place: self._data.suppression(
                request.account.account_id,
                suppressed_address(each.recipient, each.destination),
                now_unix_ms,
            )
            for place, each in enumerate(recipients)
        }
        return {place: each for place, each in found.items() if each is not None}

    async def settle(
        self, results: Sequence[AttemptResult], decisions: Sequence[Decision] = ()
    ) -> None:
        await trio.lowlevel.checkpoint()
        data, commit = self._data, Commit(self._data, self.now_unix_ms())
        for result in results:
            if (envelope := data.envelope(result.envelope_id)) is not None:
                commit.apply(
                    envelope, transitions.apply_result(envelope, result, data.next_place())
                )
            self._claimed.discard(result.envelope_id)
            data.handed_over.pop(result.envelope_id, None)
        for decision in decisions:
            if isinstance(decision, Rest):
                data.rest(decision.destination, decision.record, commit.now_unix_ms)
            elif isinstance(decision, TryNow):
                commit.try_now(decision.destination)
            else:
                self._decide(commit, decision)
        await self._finish_commit(commit)

    def _decide(self, commit: Commit, decision: Finish | RetryAt) -> None:
        envelope = self._data.envelope(decision.envelope_id)
        if envelope is None:
            return
        if isinstance(decision, RetryAt):
            if decision.unless_in_flight and decision.envelope_id in self._claimed:
                return
            commit.move_due(envelope, transitions.apply_retry_at(envelope, decision))
        else:
            is_claimed = decision.envelope_id in self._claimed
            if is_claimed and decision.status is Status.CANCELLED:
                return
            commit.finish(envelope, decision)
        self._claimed.discard(decision.envelope_id)

    async def release(self, until_unix_ms: int) -> int:
        await trio.lowlevel.checkpoint()
        data = self._data
        due = sorted(
            (data.states[envelope_id].due_unix_ms, envelope_id)
            for _, _, envelope_id in data.paused
            if data.states[envelope_id].due_unix_ms <= until_unix_ms
        )
        for start in range(0, len(due), ROWS_MAX):
            commit = Commit(data, self.now_unix_ms())
            for _, envelope_id in due[start : start + ROWS_MAX]:
                envelope = data.envelope(envelope_id)
                # Between two commits it may have been cancelled.
                if envelope is not None:
                    commit.apply(
                        envelope,
                        transitions.apply_release(
                            envelope,
                            commit.now_unix_ms,
                            data.next_place(),
                            max_age_ms=self._settings.max_age_ms,
                        ),
                    )
            await self._finish_commit(commit)
        return len(due)

    async def rebook(self, account_id: int, quota: Quota) -> int:
        await trio.lowlevel.checkpoint()
        data = self._data
        account = known(data.accounts.get(account_id))
        zone = booking.zone_of(account.time_zone)
        rows = sorted(row for row in data.paused if row[0] == account_id)
        moved = 0
        for start in range(0, len(rows), ROWS_MAX):
            commit = Commit(data, self.now_unix_ms())
            days = Rebooking(
                quota, zone, commit.now_unix_ms, lambda day: data.usage.get((account_id, day), 0)
            )
            for row in rows[start : start + ROWS_MAX]:
                # Between two commits it may have been released or cancelled.
                booked = days.earlier(row[1]) if row in data.paused else None
                if booked is not None:
                    commit.rebook(row[2], booked, self._settings.max_age_ms)
                    moved += 1
            await self._finish_commit(commit)
        return moved

    async def sweep(self, now_unix_ms: int, rows_max: int) -> bool:
        await trio.lowlevel.checkpoint()
        data = self._data
        commit = Commit(data, self.now_unix_ms())
        for envelope in data.envelopes(lambda state: state.expires_unix_ms <= now_unix_ms):
            decision = transitions.expiry(envelope, now_unix_ms)
            if decision is not None and decision.envelope_id not in self._claimed:
                commit.finish(envelope, decision)
        finished_min = now_unix_ms - self._settings.finished_retention_ms
        for envelope_id, state in list(data.states.items()):
            if state.status in FINAL_STATUSES and state.finished_unix_ms < finished_min:
                del data.states[envelope_id], data.fixed[envelope_id]
        for key, (lives_until, _) in list(data.requests.items()):
            if lives_until <= now_unix_ms:
                del data.requests[key]
        for row, suppression in list(data.suppressions.items()):
            if suppressing.is_over(suppression, now_unix_ms):
                del data.suppressions[row]
        self.forget_campaigns(now_unix_ms)
        self._trim(now_unix_ms)
        data.remove_old_minutes(now_unix_ms)
        await self._finish_commit(commit)
        self.end_what_is_over()
        return False

    def _trim(self, now_unix_ms: int) -> None:
        data, settings = self._data, self._settings
        at_min = now_unix_ms - settings.events_retention_ms
        while data.events and (
            data.events[data.oldest_seq].at_unix_ms < at_min
            or data.event_bytes > settings.events_retention_bytes
        ):
            data.trim_oldest_event()

    async def _finish_commit(self, commit: Commit) -> None:
        data = self._data
        data.add_to_counters(commit.tally)
        data.add_to_activity(commit.activity)
        data.time_high_unix_ms = commit.now_unix_ms
        self._commits += 1
        self._items_committed += len(commit.events)
        if commit.events or commit.due_destinations:
            due = [
                name
                for name in commit.due_destinations
                if not agenda.backs_off(data.destinations.get(name), commit.now_unix_ms)
            ]
            self._tell(CommitNotice(commit.events, due))
        # A caller that is cancelled here has committed and will not know it, as on a disk.
        await trio.lowlevel.checkpoint()

    # Finding work.

    async def due_destinations(self, until_unix_ms: int, limit: int) -> list[AgendaRow]:
        await trio.lowlevel.checkpoint()
        rows = [row for row in self._data.agenda.values() if row.wake_unix_ms <= until_unix_ms]
        return sorted(rows, key=lambda row: (row.wake_unix_ms, row.destination))[:limit]

    async def next_wake_unix_ms(self) -> int | None:
        await trio.lowlevel.checkpoint()
        return min((row.wake_unix_ms for row in self._data.agenda.values()), default=None)

    async def window(
        self, destination: str, position: WindowPosition, limit: int, now_unix_ms: int
    ) -> Window:
        await trio.lowlevel.checkpoint()
        turns = fair_turns.take_turns(
            self._data.rows_of(destination),
            position,
            limit,
            now_unix_ms,
            self._claimed,
            self._data.held_here(destination, self.now_unix_ms(), position.waits),
        )
        self._claimed.update(turns.envelope_ids)
        envelopes = [
            Envelope(self._data.fixed[each], self._data.states[each]) for each in turns.envelope_ids
        ]
        return Window(envelopes, turns.more, turns.next_due_unix_ms)

    def give_back(self, envelope_ids: Iterable[int]) -> None:
        self._claimed.difference_update(envelope_ids)

    def handing_over(self, envelopes: Iterable[tuple[int, int]]) -> None:
        self._data.handed_over.update(envelopes)

    async def settle_doubts(self) -> None:
        """Tell of what the last process had handed over."""
        noted = dict(self._data.handed_over)
        self._doubts_at_start = await settle_doubts(self, noted)
        for envelope_id in noted:
            self._data.handed_over.pop(envelope_id, None)

    async def content(self, content_ids: Collection[int]) -> dict[int, Content]:
        await trio.lowlevel.checkpoint()
        contents = self._data.contents
        return {each: contents[each] for each in content_ids if each in contents}

    async def destination(self, name: str) -> DestinationRecord | None:
        await trio.lowlevel.checkpoint()
        record = self._data.destinations.get(name)
        return None if record is None else structs.replace(record)

    # The read side.

    def head(self) -> int:
        return self._data.head_seq

    async def events(
        self, after_seq: int, wanted: EventFilter, limit: int, scan_max: int = 1000
    ) -> EventPage:
        await trio.lowlevel.checkpoint()
        data = self._data
        gap = None
        if after_seq + 1 < data.oldest_seq:
            gap = (after_seq + 1, data.oldest_seq - 1)
            after_seq = data.oldest_seq - 1
        found: list[Event] = []
        seq = after_seq
        while seq < min(data.head_seq, after_seq + scan_max) and len(found) < limit:
            seq += 1
            if wanted.admits(data.events[seq]):
                found.append(data.events[seq])
        return EventPage(found, seq, gap)

    async def events_at(self, seqs: Sequence[int]) -> list[Event]:
        await trio.lowlevel.checkpoint()
        return [self._data.events[seq] for seq in seqs if seq in self._data.events]

    async def envelope(self, envelope_id: int) -> Envelope | None:
        await trio.lowlevel.checkpoint()
        return self._data.envelope(envelope_id)

    async def find(self, wanted: EnvelopeFilter, after: int | None, limit: int) -> EnvelopePage:
        await trio.lowlevel.checkpoint()
        found = [
            envelope
            for envelope in matching(self._data, wanted)
            if after is None or envelope.fixed.envelope_id < after
        ]
        page = found[:limit]
        return EnvelopePage(page, page[-1].fixed.envelope_id if len(found) > limit else None)

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
        await trio.lowlevel.checkpoint()
        rows = counted(self._data, group, account_id, from_unix_ms, to_unix_ms)
        return [row for row in rows if after is None or row.key > after][:limit]

    async def ahead(
        self, envelope: Envelope, position: WindowPosition, looked_at_max: int
    ) -> Ahead:
        await trio.lowlevel.checkpoint()
        name, now_unix_ms = envelope.fixed.destination, self.now_unix_ms()
        rows = self._data.rows_of(name)
        return queue_place.counted(
            rows,
            envelope,
            position,
            max(looked_at_max, len(rows.rows)),
            now_unix_ms,
            self._claimed - {envelope.fixed.envelope_id},
            self._data.held_here(name, now_unix_ms, position.waits),
        )

    async def destinations(
        self,
        *,
        account_id: int | None = None,
        campaign: str | None = None,
        after: str = "",
        limit: int = 1000,
    ) -> list[DestinationRow]:
        await trio.lowlevel.checkpoint()
        now_unix_ms = self.now_unix_ms()
        return destination_rows(self._data, account_id, campaign, after, limit, now_unix_ms)

    def spool_statistics(self) -> SpoolStatistics:
        data = self._data
        return SpoolStatistics(
            envelopes_open=sum(map(len, data.queue.values())) + len(data.paused),
            in_flight=len(self._claimed),
            commits=self._commits,
            items_committed=self._items_committed,
            waiting_for_commit=0,
            head_seq=data.head_seq,
            oldest_seq=data.oldest_seq,
            start_count=data.start_count,
            quarantined=0,
            intake_open=True,
            doubts_at_start=self._doubts_at_start,
        )

    def disk_room(self) -> DiskRoom | None:
        return None

    async def check_invariants(self) -> list[str]:
        await trio.lowlevel.checkpoint()
        return invariants.faults_of(self._data, self.now_unix_ms())

    async def check_some(self) -> Checked:
        mails = len(self._data.fixed)
        return Checked(await self.check_invariants(), mails, mails)
