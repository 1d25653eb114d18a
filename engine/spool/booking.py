"""Which day may this mail go? Quota is booking.

Each mail is booked at acceptance on the first day with room, so its release time is exact from the
start and nothing has to be counted again when the day comes. Days and months are those of the
account's time zone. Pure: what is booked already comes from a look-up, time is an argument.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.spool.interface import Quota, QuotaBeyondReach, SpoolError

DAY_ZERO = date(1970, 1, 1)
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Booking:
    """So many mails on one day, numbered from 1970-01-01 in the account's zone.

    `release_unix_ms` is the start of that day, or 0 for today's: those are not paused.
    """

    day: int
    count: int
    release_unix_ms: int


@lru_cache(maxsize=1024)
def zone_of(name: str) -> tzinfo:
    """Return the time zone with an IANA name. Raises SpoolError for an unknown one."""
    if name == "UTC":
        # Works on a machine without the time zone data, too.
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        # ValueError and OSError are how a name that is a path or a directory shows.
        raise SpoolError(f"unknown time zone {name!r}") from error


def day_of(at_unix_ms: int, zone: tzinfo) -> int:
    """Return the number of the day that it is in `zone`."""
    return (datetime.fromtimestamp(at_unix_ms / 1000, zone).date() - DAY_ZERO).days


def day_start_unix_ms(day: int, zone: tzinfo) -> int:
    """Return when a day begins in `zone`."""
    first = DAY_ZERO + timedelta(days=day)
    # A midnight that is skipped by summer time is read with the offset before it: one o'clock.
    return round(datetime(first.year, first.month, first.day, tzinfo=zone).timestamp() * 1000)


def month_of(day: int) -> range:
    """Return the days of the month that a day is in."""
    on = DAY_ZERO + timedelta(days=day)
    first = day - (on.day - 1)
    next_month = (on.replace(day=1) + timedelta(days=32)).replace(day=1)
    return range(first, (next_month - DAY_ZERO).days)


def book(
    count: int,
    *,
    quota: Quota,
    zone: tzinfo,
    now_unix_ms: int,
    booked_on: Callable[[int], int],
    paused_max_ms: int,
) -> list[Booking]:
    """Spread `count` mails over the first days with room; the earliest day comes first.

    `booked_on(day)` is how many are booked on that day already. Raises QuotaBeyondReach if the
    last of them would be released later than `paused_max_ms` from now.
    """
    today = day_of(now_unix_ms, zone)
    if quota.per_day is None and quota.per_month is None:
        return [Booking(today, count, 0)] if count else []
    bookings: list[Booking] = []
    month = _Month(booked_on)
    day, left = today, count
    while left > 0:
        release_unix_ms = 0 if day == today else day_start_unix_ms(day, zone)
        if release_unix_ms > now_unix_ms + paused_max_ms:
            raise QuotaBeyondReach(
                f"{left} of {count} messages do not fit into the plan's quota"
                f" within {paused_max_ms // DAY_MS} days"
            )
        room = left
        if quota.per_day is not None:
            room = min(room, quota.per_day - booked_on(day))
        if quota.per_month is not None:
            room = min(room, quota.per_month - month.booked(day))
        if room > 0:
            bookings.append(Booking(day, room, release_unix_ms))
            month.add(room)
            left -= room
        day += 1
    return bookings


class _Month:
    """What is booked in the month of the day asked for, what is being booked now included.

    Days are asked for in order, so only the last month's sum is kept.
    """

    def __init__(self, booked_on: Callable[[int], int]) -> None:
        self._booked_on = booked_on
        self._last_day = -1
        self._booked = 0

    def booked(self, day: int) -> int:
        if day > self._last_day:
            days = month_of(day)
            self._last_day = days[-1]
            self._booked = sum(map(self._booked_on, days))
        return self._booked

    def add(self, count: int) -> None:
        self._booked += count
