"""Envelope ids: ordered by time, never reused, and exact in every JSON client.

An id is a count of milliseconds since 2024 times 2,048, or one above the highest id so far if that
is more. So a listing by id is a listing by time, and a clock that was set back gives no id behind
a cursor. The time it is made from is `engine.clock.Stamp`, with the high-water mark of `meta`.
"""

from typing import Final

# 2024-01-01T00:00:00Z. A late start saves bits: ids stay below 2**53, where JSON clients that
# read numbers as doubles begin to round, until the year 2163.
ID_EPOCH_UNIX_MS: Final = 1_704_067_200_000

# Two million ids a second before ids run ahead of time, which then does no harm.
IDS_PER_MS: Final = 2048


def first_envelope_id(high_water_id: int, stamp_unix_ms: int) -> int:
    """Return the id of the next envelope; those after it in one commit count on from it."""
    return max(high_water_id + 1, (stamp_unix_ms - ID_EPOCH_UNIX_MS) * IDS_PER_MS)


def envelope_id_min(accepted_unix_ms: int) -> int:
    """Return an id that no envelope accepted at that time or later is below."""
    return max(0, (accepted_unix_ms - ID_EPOCH_UNIX_MS) * IDS_PER_MS)


def accepted_unix_ms_of(envelope_id: int) -> int:
    """Return about when an envelope was accepted; later, if ids ran ahead of time."""
    return ID_EPOCH_UNIX_MS + envelope_id // IDS_PER_MS
