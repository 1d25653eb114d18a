"""Paused mail under a wider quota: which earlier day may each mail go?

Pure, like `engine.spool.booking`. Mail is asked about in the order of its days, and none moves to a
later one: a narrower quota is for new mail only. Whatever comes before the day that was found for
one mail is full for all that follow, so the search never goes back and the order is kept.
"""

from collections.abc import Callable
from datetime import tzinfo

from engine.spool.booking import Booking, day_of, day_start_unix_ms, month_of
from engine.spool.interface import Quota


class Rebooking:
    """One walk. `booked_on(day)` is how many are booked on a day at the moment of asking."""

    def __init__(
        self, quota: Quota, zone: tzinfo, now_unix_ms: int, booked_on: Callable[[int], int]
    ) -> None:
        self._quota = quota
        self._zone = zone
        self._booked_on = booked_on
        self._today = self._day = day_of(now_unix_ms, zone)

    def earlier(self, day: int) -> Booking | None:
        """Return the first day with room before `day`, where one mail is booked; None without."""
        while self._day < day:
            if self._has_room(self._day, day):
                is_today = self._day == self._today
                release_unix_ms = 0 if is_today else day_start_unix_ms(self._day, self._zone)
                return Booking(self._day, 1, release_unix_ms)
            self._day += 1
        return None

    def _has_room(self, day: int, booked_day: int) -> bool:
        quota = self._quota
        if quota.per_day is not None and self._booked_on(day) >= quota.per_day:
            return False
        days = month_of(day)
        if quota.per_month is None or booked_day in days:
            # Within its month a mail takes nobody's place.
            return True
        return sum(map(self._booked_on, days)) < quota.per_month
