"""Results of attempts, decisions about envelopes, and the release of paused mail.

What becomes of an envelope is for `engine.spool.transitions` to say; this fetches, applies and
gives back what a quota had booked.
"""

from collections.abc import Collection, Sequence

from engine.spool import transitions
from engine.spool.interface import AttemptResult, Decision, Finish, Rest, RetryAt, TryNow
from engine.spool.lmdb_changes import Changes
from engine.spool.lmdb_cursors import delete_here
from engine.spool.lmdb_layout import PAUSED, RELEASE, U32_U32
from engine.spool.lmdb_suppressions import note_change
from protocols.records import Status


def settle(
    changes: Changes,
    results: Sequence[AttemptResult],
    decisions: Sequence[Decision],
    claimed: Collection[int],
) -> None:
    """Apply facts, then decisions, in their order."""
    for result in results:
        envelope = changes.envelope(result.envelope_id)
        if envelope is not None:
            change = transitions.apply_result(envelope, result, changes.next_place())
            changes.change(envelope, change)
            if change is not None:
                note_change(changes, envelope.fixed, change[0])
        changes.settled_ids.append(result.envelope_id)
    for decision in decisions:
        if isinstance(decision, Rest):
            changes.destinations.rest(decision.destination, decision.record)
        elif isinstance(decision, TryNow):
            changes.destinations.try_now(decision.destination)
        elif isinstance(decision, RetryAt):
            if decision.unless_in_flight and decision.envelope_id in claimed:
                continue
            envelope = changes.envelope(decision.envelope_id)
            if envelope is not None:
                changes.move(envelope, transitions.apply_retry_at(envelope, decision))
            changes.settled_ids.append(decision.envelope_id)
        else:
            is_claimed = decision.envelope_id in claimed
            finish(changes, decision, is_claimed=is_claimed)
            if not (is_claimed and decision.status is Status.CANCELLED):
                changes.settled_ids.append(decision.envelope_id)


def finish(changes: Changes, decision: Finish, *, is_claimed: bool = False) -> None:
    """End an open envelope without an attempt."""
    envelope = changes.envelope(decision.envelope_id)
    if envelope is None:
        return
    fixed, state = envelope.fixed, envelope.state
    change = transitions.apply_finish(
        envelope,
        decision,
        changes.next_place(),
        is_claimed=is_claimed,
        destination=changes.destinations.record(fixed.destination),
    )
    if change is not None and state.status is Status.PAUSED:
        # Its place on the day that was booked is free again.
        changes.use(fixed.account_id, state.release_day, -1)
    changes.change(envelope, change)
    if change is not None:
        note_change(changes, fixed, change[0])


def release(
    changes: Changes, until_unix_ms: int, rows_max: int, *, max_age_ms: int
) -> tuple[int, bool]:
    """Queue paused mail whose release has come; return how many, and whether there is more.

    A release row names an account's day; it goes when no paused row of that day is left that
    belongs to it.
    """
    found: list[tuple[int, int]] = []
    has_more = False
    with (
        changes.txn.cursor(changes.tables.release) as days,
        changes.txn.cursor(changes.tables.paused) as rows,
    ):
        is_there = days.first()
        while is_there and not has_more:
            at_unix_ms, account_id, day = RELEASE.unpack(days.key())
            if at_unix_ms > until_unix_ms:
                break
            prefix = U32_U32.pack(account_id, day)
            is_row = rows.set_range(prefix)
            while is_row and rows.key().startswith(prefix):
                if len(found) == rows_max:
                    has_more = True
                    break
                envelope = changes.envelope(PAUSED.unpack(rows.key())[2])
                if envelope is not None and envelope.state.due_unix_ms <= until_unix_ms:
                    found.append((envelope.state.due_unix_ms, envelope.fixed.envelope_id))
                is_row = rows.next()
            else:
                is_there = delete_here(days)
    released = 0
    for _, envelope_id in sorted(found):
        envelope = changes.envelope(envelope_id)
        if envelope is not None:
            changed = transitions.apply_release(
                envelope, changes.now_unix_ms, changes.next_place(), max_age_ms=max_age_ms
            )
            changes.change(envelope, changed)
            released += changed is not None
    return released, has_more
