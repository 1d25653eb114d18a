"""Quota as booking: which day, when it begins, and when there is none."""

from collections import Counter
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.spool.booking import Booking, book, day_of, day_start_unix_ms, zone_of
from engine.spool.interface import Quota, QuotaBeyondReach, SpoolError

DAY_MS = 86_400_000
SIXTY_DAYS_MS = 60 * DAY_MS


def unix_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def book_all(
    count: int, now: str, quota: Quota, *, zone: str = "UTC", booked: dict[str, int] | None = None
) -> list[tuple[str, int, int]]:
    """Book, with the days told as dates."""
    on = {day_of(unix_ms(f"{day}T12:00:00Z"), UTC): n for day, n in (booked or {}).items()}
    bookings = book(
        count,
        quota=quota,
        zone=zone_of(zone),
        now_unix_ms=unix_ms(now),
        booked_on=lambda day: on.get(day, 0),
        paused_max_ms=SIXTY_DAYS_MS,
    )
    return [
        (
            f"{datetime.fromtimestamp(each.day * 86400, UTC):%Y-%m-%d}",
            each.count,
            each.release_unix_ms,
        )
        for each in bookings
    ]


def test_without_a_quota_all_goes_today() -> None:
    assert book_all(7, "2026-11-24T23:59:59Z", Quota()) == [("2026-11-24", 7, 0)]


def test_what_does_not_fit_today_goes_at_the_start_of_the_next_days() -> None:
    assert book_all(450, "2026-11-24T09:30:00Z", Quota(per_day=200)) == [
        ("2026-11-24", 200, 0),
        ("2026-11-25", 200, unix_ms("2026-11-25T00:00:00Z")),
        ("2026-11-26", 50, unix_ms("2026-11-26T00:00:00Z")),
    ]


def test_days_that_are_booked_already_are_passed_over() -> None:
    booked = {"2026-11-24": 200, "2026-11-25": 150, "2026-11-26": 200}
    assert book_all(60, "2026-11-24T09:30:00Z", Quota(per_day=200), booked=booked) == [
        ("2026-11-25", 50, unix_ms("2026-11-25T00:00:00Z")),
        ("2026-11-27", 10, unix_ms("2026-11-27T00:00:00Z")),
    ]


def test_a_full_month_moves_mail_to_the_first_of_the_next() -> None:
    quota = Quota(per_day=200, per_month=6000)
    booked = {"2026-11-03": 3000, "2026-11-20": 2900, "2026-11-24": 50}
    assert book_all(300, "2026-11-24T09:30:00Z", quota, booked=booked) == [
        ("2026-11-24", 50, 0),
        ("2026-12-01", 200, unix_ms("2026-12-01T00:00:00Z")),
        ("2026-12-02", 50, unix_ms("2026-12-02T00:00:00Z")),
    ]


def test_what_is_booked_later_in_the_month_counts_as_well() -> None:
    booked = {"2026-11-30": 90}
    assert book_all(20, "2026-11-24T09:30:00Z", Quota(per_month=100), booked=booked) == [
        ("2026-11-24", 10, 0),
        ("2026-12-01", 10, unix_ms("2026-12-01T00:00:00Z")),
    ]


def test_more_than_the_limit_is_booked_after_a_downgrade() -> None:
    booked = {"2026-11-24": 5000}
    assert book_all(1, "2026-11-24T09:30:00Z", Quota(per_day=200), booked=booked) == [
        ("2026-11-25", 1, unix_ms("2026-11-25T00:00:00Z"))
    ]


@pytest.mark.parametrize(
    ("zone", "now", "release"),
    [
        ("America/New_York", "2026-11-25T03:00:00Z", "2026-11-25T05:00:00Z"),
        ("Asia/Kolkata", "2026-11-24T19:00:00Z", "2026-11-25T18:30:00Z"),
        # The clocks go forward at two and back at three: that day begins at 23:00, ends at 22:00.
        ("Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-28T23:00:00Z"),
        ("Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-29T22:00:00Z"),
        # Midnight itself is skipped in Beirut: the day begins at one o'clock.
        ("Asia/Beirut", "2026-03-28T12:00:00Z", "2026-03-28T22:00:00Z"),
    ],
)
def test_a_day_is_the_accounts_own(zone: str, now: str, release: str) -> None:
    [today, tomorrow] = book_all(2, now, Quota(per_day=1), zone=zone)
    assert today[1:] == (1, 0)
    assert tomorrow[1:] == (1, unix_ms(release))


def test_what_cannot_be_released_within_sixty_days_is_refused() -> None:
    assert len(book_all(61, "2026-11-24T00:00:00Z", Quota(per_day=1))) == 61
    with pytest.raises(QuotaBeyondReach, match=r"1 of 62 messages do not fit .* 60 days"):
        book_all(62, "2026-11-24T00:00:00Z", Quota(per_day=1))
    with pytest.raises(QuotaBeyondReach):
        book_all(1, "2026-11-24T00:00:00Z", Quota(per_day=0))


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "/etc/passwd", "../UTC", "Europe", "a\0b"])
def test_an_unknown_time_zone_is_refused_by_name(name: str) -> None:
    with pytest.raises(SpoolError, match="unknown time zone"):
        zone_of(name)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.integers(1, 20),
    st.none() | st.integers(20, 200),
    st.integers(0, 40 * DAY_MS),
    st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe"]),
)
def test_no_day_and_no_month_gets_more_than_its_limit(
    counts: list[int], per_day: int, per_month: int | None, offset_ms: int, zone_name: str
) -> None:
    zone = zone_of(zone_name)
    now = unix_ms("2026-10-20T00:00:00Z") + offset_ms
    usage: Counter[int] = Counter()
    for count in counts:
        try:
            bookings: list[Booking] = book(
                count,
                quota=Quota(per_day, per_month),
                zone=zone,
                now_unix_ms=now,
                booked_on=usage.__getitem__,
                paused_max_ms=SIXTY_DAYS_MS,
            )
        except QuotaBeyondReach:
            break
        assert sum(each.count for each in bookings) == count
        for each in bookings:
            usage[each.day] += each.count
            if each.day == day_of(now, zone):
                assert each.release_unix_ms == 0
            else:
                assert each.release_unix_ms == day_start_unix_ms(each.day, zone)
                assert day_of(each.release_unix_ms, zone) == each.day
                assert day_of(each.release_unix_ms - 1, zone) == each.day - 1
    assert max(usage.values(), default=0) <= per_day
    months: Counter[str] = Counter()
    for day, n in usage.items():
        months[f"{datetime.fromtimestamp(day * 86400, UTC):%Y-%m}"] += n
    assert per_month is None or max(months.values(), default=0) <= per_month


def test_days_and_zones_agree_with_the_library() -> None:
    zone = ZoneInfo("America/New_York")
    at = unix_ms("2026-07-04T03:59:59.999Z")
    assert day_of(at + 1, zone) == day_of(at, zone) + 1
