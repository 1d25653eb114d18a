"""Six projections of the log: how many envelopes stand where, by what people ask for.

A projection is a set of counters, each a row of counts by status in the order of
`records.STATUSES`. An envelope counts once in each of them, always in the same rows: hours and days
are those of its acceptance in UTC, so a change of status moves one count inside each row and never
between rows. Within a commit the moves are summed first: a counter is read and written once,
however many envelopes moved. Nothing here stores anything.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import IntEnum
from operator import add, mul
from typing import Final, NamedTuple

from engine.spool.interface import Group
from protocols.records import FINAL_STATUSES, STATUSES, Event, Status

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

STATUS_INDEX: Final = {status: index for index, status in enumerate(STATUSES)}
NO_COUNTS: Final = (0,) * len(STATUSES)
_WAITS: Final = tuple(int(status not in FINAL_STATUSES) for status in STATUSES)


class Projection(IntEnum):
    """What is counted by what; the numbers are on disk."""

    DESTINATION = 1  # account and destination
    HOUR = 2  # account and hour
    DAY_DESTINATION = 3  # account, day and destination
    CAMPAIGN = 4  # account and campaign
    CAMPAIGN_DESTINATION = 5  # account, campaign and destination
    CAMPAIGN_DAY = 6  # account, campaign and day


class CounterKey(NamedTuple):
    """Names one counter. What its projection does not use is 0 or "".

    `period` is the number of the hour or day since 1970 in UTC; mail without a campaign counts
    under campaign "".
    """

    projection: int
    account_id: int
    period: int = 0
    campaign: str = ""
    destination: str = ""


class Tally:
    """Sums the moves of one commit. Not for use by two commits at once."""

    __slots__ = ("_moves",)

    def __init__(self) -> None:
        self._moves: dict[tuple[int, str | None, str, int, Status | None, Status], int] = {}

    def move(
        self,
        account_id: int,
        campaign: str | None,
        destination: str,
        accepted_unix_ms: int,
        old: Status | None,
        new: Status,
    ) -> None:
        """Note that an envelope went from `old` (None: it is new) to `new`."""
        if old is not new:
            move = (account_id, campaign, destination, accepted_unix_ms // HOUR_MS, old, new)
            self._moves[move] = self._moves.get(move, 0) + 1

    def deltas(self) -> dict[CounterKey, list[int]]:
        """Return what to add to each counter, by status."""
        deltas: dict[CounterKey, list[int]] = {}
        # Most moves of a commit differ in their destination only: the rest is summed up first.
        rest: dict[tuple[int, str, int, Status | None, Status], int] = {}
        for (account_id, campaign, destination, hour, old, new), count in self._moves.items():
            name = campaign or ""
            several = (account_id, name, hour, old, new)
            rest[several] = rest.get(several, 0) + count
            keys = _keys_of_destination(account_id, name, destination, hour)
            _add_move(deltas, keys, old, new, count)
        for (account_id, name, hour, old, new), count in rest.items():
            _add_move(deltas, _other_keys(account_id, name, hour), old, new, count)
        return deltas


def rebuild(events: Iterable[Event]) -> dict[CounterKey, tuple[int, ...]]:
    """Return all counters as a whole log tells them: its events from the first on, in order."""
    last: dict[int, Status] = {}
    tally = Tally()
    for event in events:
        if event.kind == "status":
            tally.move(
                event.account_id,
                event.campaign,
                event.destination,
                event.accepted_unix_ms,
                last.get(event.envelope_id),
                event.status,
            )
            last[event.envelope_id] = event.status
    return {key: tuple(counts) for key, counts in tally.deltas().items()}


def add_counts(counts: Iterable[int], delta: Iterable[int]) -> tuple[int, ...]:
    """Return the sum of two rows of counts."""
    # Not with zip and sum: this is done for every counter of a commit, and takes a third of it.
    return tuple(map(add, counts, delta))


def waiting_of(counts: Iterable[int]) -> int:
    """Return how many of a row of counts wait: those that are not finished."""
    return sum(map(mul, counts, _WAITS))


def source_of(group: Group, *, has_range: bool) -> tuple[Projection, int]:
    """Return which projection answers for a group, and the length of its periods in ms, or 0."""
    match group:
        case Group.TOTAL | Group.ACCOUNT | Group.HOUR | Group.DAY:
            return Projection.HOUR, HOUR_MS
        case Group.DESTINATION:
            if has_range:
                return Projection.DAY_DESTINATION, DAY_MS
            return Projection.DESTINATION, 0
        case Group.CAMPAIGN:
            if has_range:
                return Projection.CAMPAIGN_DAY, DAY_MS
            return Projection.CAMPAIGN, 0


def overlaps(
    start_unix_ms: int, length_ms: int, from_unix_ms: int | None, to_unix_ms: int | None
) -> bool:
    """Say whether a period has a part in a range, which may be open at either end."""
    return (to_unix_ms is None or start_unix_ms < to_unix_ms) and (
        from_unix_ms is None or start_unix_ms + length_ms > from_unix_ms
    )


def hour_text(hour: int) -> str:
    """Return how statistics name an hour: "2026-11-24T13"."""
    return datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%dT%H")


def day_text(day: int) -> str:
    """Return how statistics name a day: "2026-11-24"."""
    return datetime.fromtimestamp(day * 86400, UTC).strftime("%Y-%m-%d")


Keys = tuple[CounterKey, CounterKey, CounterKey]


def _keys_of_destination(account_id: int, campaign: str, destination: str, hour: int) -> Keys:
    return (
        CounterKey(Projection.DESTINATION, account_id, 0, "", destination),
        CounterKey(Projection.DAY_DESTINATION, account_id, hour // 24, "", destination),
        CounterKey(Projection.CAMPAIGN_DESTINATION, account_id, 0, campaign, destination),
    )


def _other_keys(account_id: int, campaign: str, hour: int) -> Keys:
    return (
        CounterKey(Projection.HOUR, account_id, hour),
        CounterKey(Projection.CAMPAIGN, account_id, 0, campaign),
        CounterKey(Projection.CAMPAIGN_DAY, account_id, hour // 24, campaign),
    )


def _add_move(
    deltas: dict[CounterKey, list[int]], keys: Keys, old: Status | None, new: Status, count: int
) -> None:
    for key in keys:
        row = deltas.get(key)
        if row is None:
            row = deltas[key] = [0] * len(STATUSES)
        if old is not None:
            row[STATUS_INDEX[old]] -= count
        row[STATUS_INDEX[new]] += count
