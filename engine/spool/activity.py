"""What happened when, and how long deliveries took: sums of the log beside the projections.

A projection says where envelopes stand; these rows say what was done. Counts of events by the
minute and the hour in which they happened, for each account and for all together; and the times
from acceptance to delivery, as histograms by the day of acceptance in UTC, for each account and
destination, and rolled up. They are added to in the commit of their events, once a row, and a whole
log gives the same rows again. Nothing here stores anything.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, zip_longest
from operator import add
from typing import Final, NamedTuple, TypeVar

from protocols.records import EnvelopeFixed, EnvelopeState, Event, Status

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000

# So long minutes are kept: what is older is looked at by the hour.
MINUTES_KEPT_MS: Final = 2 * DAY_MS

# The order of a row of counts by minute or hour. A deferral counts each time. What is accepted and
# blocked at once counts as both. A pause is no event of its own: it is how some are accepted.
ACTIVITIES: Final = (
    "accepted",
    "released",
    "deferred",
    "delivered",
    "soft_bounced",
    "hard_bounced",
    "blocked",
    "cancelled",
)
NO_ACTIVITY: Final = (0,) * len(ACTIVITIES)
ACCEPTED: Final = 0
RELEASED: Final = 1

# Everybody's rows stand under this account, which is nobody's.
EVERYBODY: Final = 0

# From 10 ms to five days, each a quarter longer than the one before it; the last has no end.
BUCKET_FACTOR: Final = 1.25
BOUNDS_MS: Final = tuple(round(10 * BUCKET_FACTOR**step) for step in range(80))
assert BOUNDS_MS[-2] < 5 * DAY_MS <= BOUNDS_MS[-1] * BUCKET_FACTOR

# Before the buckets of a row of times: the longest time, and how many took one attempt. Buckets
# after the last that has any are not there; a row that has none is ().
LONGEST: Final = 0
FIRST_ATTEMPT: Final = 1
BUCKETS: Final = 2

Counts = tuple[int, ...]


MINUTE: Final = 1  # counts of events, by account
HOUR: Final = 2  # counts of events, by account
DAY_TIMES: Final = 3  # times to delivery, by account

# Not of an enumeration's members, whose comparison by hash costs more than all the rest here.
_BLOCKED, _DEFERRED, _DELIVERED, _PAUSED, _QUEUED = (
    Status.BLOCKED,
    Status.DEFERRED,
    Status.DELIVERED,
    Status.PAUSED,
    Status.QUEUED,
)
_DEFERRALS, _DELIVERIES, _BLOCKS = map(ACTIVITIES.index, (_DEFERRED, _DELIVERED, _BLOCKED))


class RowKey(NamedTuple):
    """Names one row: one of the kinds above, and the number of the period since 1970 in UTC."""

    kind: int
    period: int
    account_id: int


class TimesKey(NamedTuple):
    """Names the times of one account to one destination: those of one day of acceptance."""

    account_id: int
    day: int
    destination: str


class ActivityTally:
    """Sums the events of one commit. Not for use by two commits at once."""

    __slots__ = ("_minutes", "times")

    def __init__(self) -> None:
        self._minutes: dict[tuple[int, int], list[int]] = {}
        # By the fields of `TimesKey`: the longest, those at the first attempt, a bucket for each.
        self.times: dict[tuple[int, int, str], list[int]] = {}

    def note(self, event: Event, *, is_new: bool) -> None:
        """Count an event of kind "status"; `is_new`: it is an envelope's first."""
        at_unix_ms, status = event.at_unix_ms, event.status
        minute = (event.account_id, at_unix_ms // MINUTE_MS)
        row = self._minutes.get(minute)
        if row is None:
            row = self._minutes[minute] = [0] * len(ACTIVITIES)
        if is_new:
            row[ACCEPTED] += 1
            if status is _BLOCKED:
                row[_BLOCKS] += 1
        elif status is _DELIVERED:
            row[_DELIVERIES] += 1
            accepted_unix_ms = event.accepted_unix_ms
            key = (event.account_id, accepted_unix_ms // DAY_MS, event.destination)
            self._note_time(key, at_unix_ms - accepted_unix_ms, event.attempt)
        elif status is _DEFERRED:
            row[_DEFERRALS] += 1
        elif status is _QUEUED:
            row[RELEASED] += 1
        elif status is not _PAUSED:
            row[ACTIVITIES.index(status)] += 1

    def note_delivery(self, fixed: EnvelopeFixed, state: EnvelopeState) -> None:
        """Count the time that an envelope took, if it was delivered."""
        if state.status is _DELIVERED:
            accepted_unix_ms = fixed.accepted_unix_ms
            time_ms = state.finished_unix_ms - accepted_unix_ms
            key = (fixed.account_id, accepted_unix_ms // DAY_MS, fixed.destination)
            self._note_time(key, time_ms, state.attempts)

    def _note_time(self, key: tuple[int, int, str], time_ms: int, attempt: int) -> None:
        row = self.times.get(key)
        if row is None:
            row = self.times[key] = [0, 0]
        if time_ms > row[LONGEST]:
            row[LONGEST] = time_ms
        if attempt == 1:
            row[FIRST_ATTEMPT] += 1
        row.append(bisect_left(BOUNDS_MS, time_ms))

    def counts(self) -> dict[RowKey, list[int]]:
        """Return what to add to each row of counts."""
        found: dict[RowKey, list[int]] = {}
        for (account_id, minute), row in self._minutes.items():
            for each in (account_id, EVERYBODY):
                for key in (RowKey(MINUTE, minute, each), RowKey(HOUR, minute // 60, each)):
                    known = found.get(key)
                    found[key] = row if known is None else [*map(add, known, row)]
        return found

    def day_times(self) -> dict[RowKey, list[int]]:
        """Return what to add to each row of an account's times, in the form of `times`."""
        found: dict[RowKey, list[int]] = {}
        for (account_id, day, _), row in self.times.items():
            _gather(found, RowKey(DAY_TIMES, day, account_id), row)
        for key, row in list(found.items()):
            _gather(found, key._replace(account_id=EVERYBODY), row)
        return found

    def destination_times(self) -> dict[tuple[int, str], list[int]]:
        """Return what to add to the times of each account and destination over all days."""
        found: dict[tuple[int, str], list[int]] = {}
        for (account_id, _, destination), row in self.times.items():
            _gather(found, (account_id, destination), row)
        return found


Key = TypeVar("Key")


def _gather(found: dict[Key, list[int]], key: Key, row: list[int]) -> None:
    known = found.get(key)
    if known is None:
        found[key] = row.copy()
    else:
        known[LONGEST] = max(known[LONGEST], row[LONGEST])
        known[FIRST_ATTEMPT] += row[FIRST_ATTEMPT]
        known += row[BUCKETS:]


def with_counts(stored: Counts | None, delta: Sequence[int]) -> Counts:
    """Return a row of counts with what a commit adds."""
    return tuple(delta) if stored is None else tuple(map(add, stored, delta))


def with_times(stored: Counts, delta: Sequence[int]) -> Counts:
    """Return a row of times, or (), with what a commit adds: as `ActivityTally.times` has it."""
    row = list(stored) or [0, 0]
    if delta[LONGEST] > row[LONGEST]:
        row[LONGEST] = delta[LONGEST]
    row[FIRST_ATTEMPT] += delta[FIRST_ATTEMPT]
    for bucket in delta[BUCKETS:]:
        place = bucket + BUCKETS
        if place >= len(row):
            row += [0] * (place + 1 - len(row))
        row[place] += 1
    return tuple(row)


def count_of(row: Counts) -> int:
    """Return how many deliveries a row of times tells of."""
    return sum(row[BUCKETS:])


def percentiles_ms(row: Counts, percents: Iterable[int]) -> list[int]:
    """Return for each of `percents` a time that so many of the deliveries were within.

    It is the upper bound of a bucket, and so up to a quarter more than need be; never more than the
    longest time, which is exact.
    """
    counted = [*accumulate(row[BUCKETS:])]
    longest, count, found = row[LONGEST], counted[-1], []
    for percent in percents:
        bucket = bisect_left(counted, -(-count * percent // 100))
        found.append(min(BOUNDS_MS[bucket], longest) if bucket < len(BOUNDS_MS) else longest)
    return found


def sum_of_times(rows: Sequence[Counts]) -> Counts:
    """Return one row of times for several, of which none is ()."""
    if len(rows) == 1:
        return rows[0]
    columns = [*zip_longest(*rows, fillvalue=0)]
    return (max(columns[LONGEST]), *map(sum, columns[FIRST_ATTEMPT:]))


def rebuild(
    events: Iterable[Event], from_seq: int = 1
) -> tuple[dict[RowKey, Counts], dict[TimesKey, Counts]]:
    """Return all rows as the log tells them: its events from `from_seq` on, in order.

    An event that tells of an acceptance has its time; so a log whose oldest events are gone gives
    right rows, too, for what it still has.
    """
    seen: set[int] = set()
    tally = ActivityTally()
    for event in events:
        if event.kind != "status":
            continue
        is_first = event.envelope_id not in seen
        seen.add(event.envelope_id)
        if event.seq >= from_seq:
            is_new = is_first and event.at_unix_ms == event.accepted_unix_ms
            tally.note(event, is_new=is_new)
    rows = {key: tuple(row) for key, row in tally.counts().items()}
    rows |= {key: with_times((), row) for key, row in tally.day_times().items()}
    return rows, {TimesKey(*key): with_times((), row) for key, row in tally.times.items()}


def is_kept(key: RowKey, now_unix_ms: int) -> bool:
    """Say whether a row is among those that are kept: all but the older minutes."""
    return key.kind != MINUTE or key.period >= oldest_minute(now_unix_ms)


def oldest_minute(now_unix_ms: int) -> int:
    return (now_unix_ms - MINUTES_KEPT_MS) // MINUTE_MS
