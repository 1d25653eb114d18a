"""When does a destination have to be looked at next?

The pure rules of the agenda's one invariant: a row may be too early, never too late. "Too late" is
later than both the earliest due time of the destination's queue rows (of a held one: the end of
its hold, of one that its account's limit keeps back: the end of that wait) and the end of its
back-off.
"""

from typing import Final

from msgspec.structs import replace

from engine.spool.interface import AgendaRow
from protocols.records import DestinationRecord

# The cause of a row whose time is the end of a hold.
HOLD_CAUSE: Final = "hold"
# The cause of a row whose time is the end of an account's wait.
WAIT_CAUSE: Final = "rate_limit"

# Causes of a back-off in a destination's record: it cannot be reached.
UNREACHABLE_CAUSES: Final = frozenset({"destination_unreachable", "dns_failure"})


def backs_off(record: DestinationRecord | None, now_unix_ms: int) -> bool:
    """Say whether a destination waits because it cannot be reached, so that nothing else wakes it.

    Not for a limit: there may be room at any time, and an actor that was given it is at work
    while the record still says that it waits.
    """
    return (
        record is not None
        and record.cause in UNREACHABLE_CAUSES
        and record.not_before_unix_ms > now_unix_ms
    )


def tried_now(record: DestinationRecord | None, now_unix_ms: int) -> DestinationRecord | None:
    """Return the record without its back-off, which stays noted; None if it does not back off."""
    if record is None or not backs_off(record, now_unix_ms):
        return None
    return replace(record, not_before_unix_ms=0, scheduled_unix_ms=record.not_before_unix_ms)


def row_after_arrival(
    destination: str,
    due_unix_ms: int,
    row: AgendaRow | None,
    record: DestinationRecord | None,
    *,
    is_held: bool = False,
) -> AgendaRow:
    """Return the row to have once mail due at `due_unix_ms` was put into the queue.

    Of mail that `is_held` that is the end of its hold.

    It is `row` itself if nothing has to be written. Mail for a destination that is backing off
    does not wake it: ten thousand new mails to a dead host are no news about the host.
    """
    wake_unix_ms, cause = due_unix_ms, HOLD_CAUSE if is_held else ""
    if record is not None and record.not_before_unix_ms > due_unix_ms:
        wake_unix_ms, cause = record.not_before_unix_ms, record.cause
    if row is not None and row.wake_unix_ms <= wake_unix_ms:
        return row
    return AgendaRow(wake_unix_ms, destination, cause)


def row_at_rest(
    destination: str,
    earliest_due_unix_ms: int | None,
    record: DestinationRecord,
    *,
    cause: str = "",
) -> AgendaRow | None:
    """Return the row that a resting actor leaves: the truth. None if the queue has no row.

    `cause` says what decides about the earliest, if it is not only its due time.
    """
    if earliest_due_unix_ms is None:
        return None
    if record.not_before_unix_ms > earliest_due_unix_ms:
        return AgendaRow(record.not_before_unix_ms, destination, record.cause)
    return AgendaRow(earliest_due_unix_ms, destination, cause)
