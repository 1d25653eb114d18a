"""When a digest is due: pure calendar, in the page's time zone."""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from engine.watch.status.subscribers import Frequency

MONDAY: Final = 0


def last_due_unix_ms(now_unix_ms: int, frequency: Frequency, hour: int, zone: tzinfo) -> int:
    """Return the last moment, now or before, at which such digests go out.

    Daily at `hour` in `zone`, weekly on Mondays then. Where the clock jumps over that hour, it is
    the moment right after the jump; where it has it twice, the first.
    """
    assert frequency is not Frequency.EACH
    today = datetime.fromtimestamp(now_unix_ms / 1000, zone).date()
    for days_back in range(9):
        day = today - timedelta(days=days_back)
        if frequency is Frequency.WEEKLY and day.weekday() != MONDAY:
            continue
        at = datetime(day.year, day.month, day.day, hour, tzinfo=zone).astimezone(UTC)
        due_unix_ms = round(at.timestamp() * 1000)
        if due_unix_ms <= now_unix_ms:
            return due_unix_ms
    raise AssertionError("a week has a Monday")
