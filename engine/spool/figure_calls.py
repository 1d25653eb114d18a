"""What happened when, and how long deliveries took: the spool's answers about time."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SeriesPoint:
    """What happened in one step, in the order of `activity.ACTIVITIES`."""

    start_unix_ms: int
    counts: tuple[int, ...]


class TimesGroup(Enum):
    """What a row of times is about."""

    TOTAL = "total"
    DESTINATION = "destination"
    ACCOUNT = "account"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class TimesRow:
    """Times from acceptance to delivery, as a histogram: see `activity.percentiles_ms`.

    `key` is text: a domain, an account's name, "2026-11-24" or "total".
    """

    key: str
    times: tuple[int, ...]


class FigureCalls(Protocol):
    """Sums over the log that are kept with it; see `engine.spool.activity`."""

    async def series(
        self, from_unix_ms: int, to_unix_ms: int, step_ms: int, *, account_id: int | None = None
    ) -> Sequence[SeriesPoint]:
        """Count the events of each step of a range, by the time at which they happened.

        The range and the step are whole minutes, and the range begins on a step. What is older than
        `activity.MINUTES_KEPT_MS` is only there for steps of whole hours that begin on an hour.
        Steps in which nothing happened are there, too. Without an account: of all accounts.
        """
        ...

    async def delivery_times(
        self,
        group: TimesGroup,
        *,
        account_id: int | None = None,
        from_unix_ms: int | None = None,
        to_unix_ms: int | None = None,
        after: str | None = None,
        limit: int | None = None,
        names: Collection[str] | None = None,
    ) -> Sequence[TimesRow]:
        """Return how long deliveries took, sorted by key; only what has deliveries is there.

        A range is of acceptance, in whole days in UTC that overlap it. A time counts from
        acceptance to the receiver's reply, whatever was waited for: a pause, a hold, a retry.
        `after` and `limit` are of keys: rows behind that one, so many at most. With `names`, which
        are for destinations, only these are looked at.
        """
        ...
