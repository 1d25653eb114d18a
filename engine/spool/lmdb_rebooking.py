"""Paused mail moves to earlier days, in the `lmdb:` adapter; one bounded step a commit.

Which day is for `engine.spool.rebooking` to say.
"""

from typing import Final

from engine.spool import booking, transitions
from engine.spool.interface import Quota
from engine.spool.lmdb_accounts import account_of
from engine.spool.lmdb_changes import Changes
from engine.spool.lmdb_layout import PAUSED, U32
from engine.spool.rebooking import Rebooking

# As everywhere: a commit is short, so that results of attempts never wait long for their turn.
ROWS_MAX: Final = 500


def rebook(
    changes: Changes, account_id: int, quota: Quota, after: bytes, max_age_ms: int
) -> tuple[int, bytes | None]:
    """Look at the next paused rows behind `after`; return how many moved, and where to go on.

    None is the end. Raises SpoolError if there is no such account.
    """
    zone = booking.zone_of(account_of(changes, account_id).time_zone)
    days = Rebooking(
        quota, zone, changes.now_unix_ms, lambda day: changes.usage_of(account_id, day)
    )
    rows, goes_on_at = _rows(changes, account_id, after)
    moved = 0
    for day, envelope_id in rows:
        booked = days.earlier(day)
        envelope = changes.envelope(envelope_id) if booked is not None else None
        if booked is None or envelope is None or envelope.state.release_day != day:
            # The row is only as good as the envelope that it leads to.
            continue
        changed = transitions.apply_rebooking(
            envelope, booked, changes.now_unix_ms, changes.next_place(), max_age_ms=max_age_ms
        )
        if changed is not None:
            changes.use(account_id, day, -1)
            changes.use(account_id, booked.day, 1)
            changes.change(envelope, changed)
            moved += 1
    return moved, goes_on_at


def _rows(
    changes: Changes, account_id: int, after: bytes
) -> tuple[list[tuple[int, int]], bytes | None]:
    """Return (day, envelope id) of the next paused rows of an account, in their order."""
    prefix = U32.pack(account_id)
    rows: list[tuple[int, int]] = []
    with changes.txn.cursor(changes.tables.paused) as cursor:
        is_there = cursor.set_range(after or prefix)
        while is_there and cursor.key().startswith(prefix):
            if len(rows) == ROWS_MAX:
                return rows, cursor.key()
            _, day, envelope_id = PAUSED.unpack(cursor.key())
            rows.append((day, envelope_id))
            is_there = cursor.next()
    return rows, None
