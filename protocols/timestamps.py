"""Points in time as the outside faces write them: RFC 3339 in UTC with milliseconds.

Arithmetic on text only; nothing here knows what time it is.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_CHARACTERS_MAX: Final = 64  # Twice the longest that means anything.


def time_text(unix_ms: int) -> str:
    """Return e.g. "2026-11-24T13:00:00.250Z". Raises ValueError beyond the year 9999."""
    return f"{_second_text(unix_ms // 1000)}.{unix_ms % 1000:03d}Z"


def time_text_or_none(unix_ms: int | None) -> str | None:
    """As `time_text`, with None for 0 and None, which stand for "no such time" in records."""
    return time_text(unix_ms) if unix_ms else None


def parse_time(text: str) -> int:
    """Return the milliseconds since 1970 of an RFC 3339 time or a plain date (UTC).

    Seconds since 1970 are taken too, as some clients send them. Raises ValueError.
    """
    if len(text) > _TIME_CHARACTERS_MAX:
        raise ValueError(f"{text[:40]!r}… is too long for a time")
    if text.isdecimal():
        unix_ms = int(text) * 1000
        time_text(unix_ms)
        return unix_ms
    try:
        # A "+" that was not percent-encoded arrives as a space in a query.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError as error:
        raise ValueError(f"{text[:40]!r} is no RFC 3339 time") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


# Events come in bursts of one second; the calendar is worked out once for each.
@lru_cache(maxsize=4096)
def _second_text(unix_s: int) -> str:
    try:
        return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (OverflowError, OSError, ValueError) as error:
        raise ValueError(f"{unix_s} s is beyond the calendar") from error
