"""The spool's pure rules, one by one: ids, agenda rows, transitions, counters."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.spool import agenda, transitions
from engine.spool.interface import AgendaRow, AttemptResult, Finish, Group, RetryAt
from engine.spool.projections import (
    DAY_MS,
    HOUR_MS,
    NO_COUNTS,
    CounterKey,
    Projection,
    Tally,
    day_text,
    hour_text,
    overlaps,
    rebuild,
    source_of,
)
from engine.spool.stamps import ID_EPOCH_UNIX_MS, IDS_PER_MS, envelope_id_min, first_envelope_id
from engine.spool.transitions import Place
from protocols.records import (
    FINAL_STATUSES,
    STATUSES,
    DestinationRecord,
    Envelope,
    EnvelopeFixed,
    EnvelopeState,
    Event,
    Reason,
    Status,
)

NOW = 1_795_512_600_000


def fixed(envelope_id: int = 1, **fields: Any) -> EnvelopeFixed:
    values: dict[str, Any] = {
        "envelope_id": envelope_id,
        "uuid": bytes(16),
        "account_id": 1,
        "account": "acme",
        "campaign": "spring",
        "flow": 1,
        "lane": 1,
        "custom_id": "c",
        "event_payload": "p",
        "reverse_path": "s@out.example",
        "recipient": "a@one.test",
        "address": "a@one.test",
        "destination": "one.test",
        "subject": "x",
        "content_id": 1,
        "content_size": 10,
        "needs_8bit": False,
        "needs_utf8": False,
        "accepted_unix_ms": NOW,
    }
    return EnvelopeFixed(**(values | fields))


def envelope(status: Status = Status.QUEUED, **fields: Any) -> Envelope:
    state = EnvelopeState(status, 0, NOW, NOW + 1000, event_seqs=[1])
    return Envelope(fixed(), msgspec.structs.replace(state, **fields))


def result(status: Status, attempt: int = 1, **fields: Any) -> AttemptResult:
    return AttemptResult(1, attempt, status, NOW + 5, **fields)


# Ids.


@given(st.lists(st.tuples(st.integers(0, 2**41), st.integers(1, 5000)), max_size=20))
def test_ids_only_grow_and_fit_into_a_double(commits: list[tuple[int, int]]) -> None:
    high = 0
    stamp = ID_EPOCH_UNIX_MS
    for later_ms, count in commits:
        stamp = max(stamp, ID_EPOCH_UNIX_MS + later_ms)
        first = first_envelope_id(high, stamp)
        assert first > high
        assert first >= envelope_id_min(stamp)
        high = first + count - 1
        assert high < 2**53


def test_an_id_tells_when_it_was_given_as_long_as_ids_do_not_run_ahead() -> None:
    first = first_envelope_id(0, NOW)
    assert first == envelope_id_min(NOW)
    assert first + IDS_PER_MS == envelope_id_min(NOW + 1)
    assert first_envelope_id(first, NOW - DAY_MS) == first + 1
    assert envelope_id_min(0) == 0


# Agenda.


@pytest.mark.parametrize(
    ("wake", "due", "not_before", "expected"),
    [
        (None, 100, 0, (100, "")),
        (50, 100, 0, (50, "old")),
        (150, 100, 0, (100, "")),
        (None, 100, 300, (300, "dns_failure")),
        (300, 100, 300, (300, "old")),
        (400, 100, 300, (300, "dns_failure")),
        (300, 500, 300, (300, "old")),
        (600, 500, 300, (500, "")),
    ],
)
def test_the_row_after_an_arrival_is_never_later_than_the_mail_can_go(
    wake: int | None, due: int, not_before: int, expected: tuple[int, str]
) -> None:
    row = AgendaRow(wake, "one.test", "old") if wake is not None else None
    record = DestinationRecord(not_before, "dns_failure") if not_before else None
    after = agenda.row_after_arrival("one.test", due, row, record)
    assert (after.wake_unix_ms, after.cause) == expected
    assert after.wake_unix_ms <= max(due, not_before)
    if row is not None and after.wake_unix_ms == row.wake_unix_ms:
        assert after is row


def test_the_row_at_rest_is_the_truth() -> None:
    record = DestinationRecord(300, "rate_limit")
    assert agenda.row_at_rest("one.test", None, record) is None
    assert agenda.row_at_rest("one.test", 100, record) == AgendaRow(300, "one.test", "rate_limit")
    assert agenda.row_at_rest("one.test", 400, record) == AgendaRow(400, "one.test", "")


# Transitions.


@pytest.mark.parametrize("old", STATUSES)
@pytest.mark.parametrize("new", sorted(transitions.ATTEMPT_STATUSES))
def test_a_result_changes_what_is_open_and_nothing_else(old: Status, new: Status) -> None:
    change = transitions.apply_result(envelope(old), result(new), Place(2, 1))
    assert (change is None) == (old in FINAL_STATUSES)
    if change is not None:
        state, event = change
        assert state.status is event.status is new
        assert (state.attempts, event.attempt) == (1, 1)
        assert state.event_seqs == [1, 2]
        assert (state.finished_unix_ms > 0) == (new in FINAL_STATUSES)
        assert (state.due_unix_ms == 0) == (
            new in FINAL_STATUSES or event.next_attempt_unix_ms == 0
        )


@pytest.mark.parametrize(("attempt", "counts"), [(0, False), (3, False), (4, True), (6, True)])
def test_a_result_counts_if_it_is_above_the_stored_count(attempt: int, counts: bool) -> None:
    waiting = envelope(Status.DEFERRED, attempts=3)
    late = result(Status.DEFERRED, attempt, due_unix_ms=NOW + 9)
    change = transitions.apply_result(waiting, late, Place(2, 1))
    assert (change is not None) == counts
    if change is not None:
        assert change[0].attempts == attempt


@pytest.mark.parametrize("status", sorted(set(STATUSES) - transitions.ATTEMPT_STATUSES))
def test_an_attempt_cannot_come_to_a_status_that_needs_none(status: Status) -> None:
    with pytest.raises(AssertionError):
        transitions.apply_result(envelope(), result(status), Place(2, 1))


@pytest.mark.parametrize("status", sorted(set(STATUSES) - transitions.FINISH_STATUSES))
def test_nobody_decides_that_a_mail_is_delivered(status: Status) -> None:
    with pytest.raises(AssertionError):
        transitions.apply_finish(envelope(), Finish(1, status, NOW, None), Place(2, 1))


@pytest.mark.parametrize("old", STATUSES)
def test_a_finish_keeps_the_attempts_and_tells_of_none(old: Status) -> None:
    finish = Finish(1, Status.BLOCKED, NOW + 3, Reason.POLICY, "550 no")
    change = transitions.apply_finish(envelope(old, attempts=2), finish, Place(9, 4))
    assert (change is None) == (old in FINAL_STATUSES)
    if change is not None:
        state, event = change
        assert (state.attempts, state.reply, state.reason) == (2, "550 no", Reason.POLICY)
        assert (event.seq, event.start_count, event.attempt) == (9, 4, 0)
        assert event.at_unix_ms == state.finished_unix_ms == NOW + 3


@pytest.mark.parametrize(
    ("own", "record", "told"),
    [
        ("451 own", DestinationRecord(reply="421 theirs"), "451 own"),
        ("", DestinationRecord(reply="421 theirs"), "421 theirs"),
        # While it cannot be reached nobody has an attempt: the destination's is the later one.
        ("451 own", DestinationRecord(failures=3, reply="421 theirs"), "421 theirs"),
        ("451 own", DestinationRecord(failures=3), "451 own"),
        ("", DestinationRecord(), ""),
        ("451 own", None, "451 own"),
        ("", None, ""),
        # The destination's may have been for another account's recipient; a mail's own is its own.
        ("", DestinationRecord(reply="450 <bob@b.test> busy"), "450 <…@b.test> busy"),
        ("", DestinationRecord(failures=1, reply="450 bob@b.test busy"), "450 …@b.test busy"),
        ("450 <bob@b.test> busy", DestinationRecord(), "450 <bob@b.test> busy"),
    ],
)
def test_an_expiry_tells_the_last_reply_heard(
    own: str, record: DestinationRecord | None, told: str
) -> None:
    overdue = envelope(Status.QUEUED, reply=own)
    assert transitions.expiry(overdue, NOW + 999) is None
    finish = transitions.expiry(overdue, NOW + 1000)
    assert finish is not None
    change = transitions.apply_finish(overdue, finish, Place(2, 1), destination=record)
    assert change is not None
    assert (change[0].status, change[0].reason) == (Status.SOFT_BOUNCED, Reason.EXPIRED)
    assert change[0].reply == change[1].reply == told
    # A reply that is brought along is kept.
    change = transitions.apply_finish(
        overdue, replace(finish, reply="554 x"), Place(2, 1), destination=record
    )
    assert change is not None
    assert change[0].reply == "554 x"


@pytest.mark.parametrize("old", STATUSES)
def test_what_waits_in_the_queue_can_be_moved_and_what_is_paused_released(old: Status) -> None:
    moved = transitions.apply_retry_at(envelope(old), RetryAt(1, NOW + 7))
    assert (moved is not None) == (old in transitions.QUEUE_STATUSES)
    released = transitions.apply_release(envelope(old), NOW + 50, Place(2, 1), max_age_ms=5000)
    assert (released is not None) == (old is Status.PAUSED)
    if released is not None:
        assert released[0].due_unix_ms == NOW
        assert released[0].expires_unix_ms == NOW + 5050
    assert transitions.apply_retry_at(envelope(old), RetryAt(1, NOW)) is None


# Counters.


def test_an_envelope_counts_in_six_projections() -> None:
    tally = Tally()
    tally.move(7, "spring", "one.test", NOW, None, Status.QUEUED)
    one = [1, 0, 0, 0, 0, 0, 0, 0]
    assert tally.deltas() == {
        CounterKey(Projection.DESTINATION, 7, 0, "", "one.test"): one,
        CounterKey(Projection.HOUR, 7, NOW // HOUR_MS): one,
        CounterKey(Projection.DAY_DESTINATION, 7, NOW // DAY_MS, "", "one.test"): one,
        CounterKey(Projection.CAMPAIGN, 7, 0, "spring"): one,
        CounterKey(Projection.CAMPAIGN_DESTINATION, 7, 0, "spring", "one.test"): one,
        CounterKey(Projection.CAMPAIGN_DAY, 7, NOW // DAY_MS, "spring"): one,
    }


def test_moves_are_summed_and_a_status_that_stays_moves_nothing() -> None:
    tally = Tally()
    for _ in range(3):
        tally.move(7, None, "one.test", NOW, Status.QUEUED, Status.DELIVERED)
    tally.move(7, None, "one.test", NOW, Status.QUEUED, Status.DEFERRED)
    tally.move(7, None, "one.test", NOW, Status.DEFERRED, Status.DEFERRED)
    deltas = tally.deltas()
    assert len(deltas) == 6
    assert set(map(tuple, deltas.values())) == {(-4, 0, 1, 3, 0, 0, 0, 0)}
    assert deltas[CounterKey(Projection.CAMPAIGN, 7)] == [-4, 0, 1, 3, 0, 0, 0, 0]


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(STATUSES)), max_size=40))
def test_a_rebuild_counts_each_envelope_where_it_stands_last(
    story: list[tuple[int, Status]],
) -> None:
    events: list[Event] = []
    last: dict[int, Status] = {}
    for seq, (envelope_id, status) in enumerate(story, 1):
        state = EnvelopeState(status, 0, 0, 0)
        event = transitions.accepted_event(fixed(envelope_id), state, Place(seq, 1))
        events.append(event)
        last[envelope_id] = status
        events.append(msgspec.structs.replace(event, kind="annotation", status=Status.DELIVERED))
    counters = rebuild(events)
    expected = tuple(sum(1 for each in last.values() if each is status) for status in STATUSES)
    assert set(counters.values()) == ({expected} if story else set())
    assert len(counters) == (6 if story else 0)


def test_periods_have_names_and_ranges() -> None:
    assert hour_text(NOW // HOUR_MS) == "2026-11-24T09"
    assert day_text(NOW // DAY_MS) == "2026-11-24"
    assert overlaps(100, 10, None, None)
    assert overlaps(100, 10, 109, 111)
    assert not overlaps(100, 10, 110, None)
    assert not overlaps(100, 10, None, 100)
    assert overlaps(100, 10, None, 101)
    for group in Group:
        projection, period_ms = source_of(group, has_range=True)
        assert projection in set(Projection)
        assert period_ms in (0, HOUR_MS, DAY_MS)
    assert len(NO_COUNTS) == 8
