"""Which of several things holds a mail back: tables of facts and verdicts."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from engine.config_values import Rate
from engine.delivery.holding import (
    Facts,
    Gate,
    Outlook,
    Place,
    holding,
    holding_destination,
    limit_text,
)
from engine.delivery.limits import (
    NOT_BY_WAITING,
    ConnectionLimit,
    Limit,
    Refusals,
    TokenBucket,
)
from engine.spool.interface import DestinationRow
from protocols.records import (
    FINAL_STATUSES,
    STATUSES,
    DestinationRecord,
    Envelope,
    EnvelopeFixed,
    EnvelopeState,
    Reason,
    Status,
)

T0 = 1_790_000_000_000
SECOND = 1000
DAY = 86_400_000

FIXED = EnvelopeFixed(
    *(7, b"u" * 16, 1, "acme", None, 1, 0, "", "", "a@out.example"),
    *("ann@x.test", "ann@x.test", "x.test", "", 1, 100, False, False, T0 - 50 * SECOND),
)
OPEN = EnvelopeState(Status.QUEUED, 0, T0 - 50 * SECOND, T0 + DAY)
DEFERRED = EnvelopeState(
    *(Status.DEFERRED, 1, T0 + 300 * SECOND, T0 + DAY, 0, "451 4.7.1 later", Reason.GREYLISTED)
)
DOWN = DestinationRecord(
    not_before_unix_ms=T0 + 100 * SECOND,
    cause="destination_unreachable",
    since_unix_ms=T0 - 9 * SECOND,
    failures=2,
    reply="(connection refused)",
    reason=Reason.CONNECTION,
    site="mx.x.test",
)
THROTTLED = DestinationRecord(
    not_before_unix_ms=T0 + 20 * SECOND,
    cause="rate_limit",
    since_unix_ms=T0 - 9 * SECOND,
    bucket_level=0.0,
    bucket_unix_ms=T0,
)
PARKED = DestinationRecord(
    not_before_unix_ms=T0 + 30 * SECOND,
    cause="connection_limit",
    since_unix_ms=T0 - SECOND,
    site="mx.big.test",
)
HOLD = Gate("hold", "campaign", "spring", NOT_BY_WAITING, T0 - 5 * SECOND)


SUSPENDED = Gate(
    *("rate_limit", "site", "mx.big.test", T0 + 40 * SECOND, T0 - SECOND, "suspended"),
    *("421 4.7.0 come back later", Reason.THROTTLED),
)
LEARNED = TokenBucket(
    *("site", "mx.big.test", 0.1, 1, 0.0, T0, "421 4.7.0 slow down", T0 - 7 * SECOND)
)


def envelope(state: EnvelopeState = OPEN) -> Envelope:
    return Envelope(FIXED, state)


def facts(record: DestinationRecord | None = None, **more: Any) -> Facts:
    return Facts(now_unix_ms=T0, record=record or DestinationRecord(), **more)


def outlook(
    *path: Limit,
    record: DestinationRecord | None = None,
    place: Place | None = None,
    throttled_since_unix_ms: int | None = None,
    connections: int = 1,
    rate_per_s: float = 2.0,
) -> Outlook:
    return Outlook(
        record or DestinationRecord(site="mx.x.test"),
        place or Place(),
        path,
        throttled_since_unix_ms,
        connections,
        rate_per_s,
    )


def bucket(level: float, per_s: float = 1.0, burst: int = 10) -> TokenBucket:
    return TokenBucket("destination", "x.test", per_s, burst, level, T0)


def full(scope: str, key: str) -> ConnectionLimit:
    return ConnectionLimit(scope, key, 5, open=5)


IN_FLIGHT = Place(is_in_flight=True, is_claimed=True)
# What holds; the place in the design's words; the next attempt in seconds from now, if known.
TABLE: list[tuple[str, EnvelopeState, Facts, tuple[str, str, str, float | None]]] = [
    (
        "nobody is before it",
        OPEN,
        facts(outlook=outlook()),
        ("waiting_turn", "destination", "x.test", 0),
    ),
    (
        "others are before it",
        OPEN,
        facts(outlook=outlook(), ahead=10),
        ("waiting_turn", "destination", "x.test", 5),
    ),
    (
        "nothing flows yet",
        OPEN,
        facts(outlook=outlook(rate_per_s=0.0), ahead=10),
        ("waiting_turn", "destination", "x.test", None),
    ),
    (
        "its destination has no actor",
        OPEN,
        facts(),
        ("waiting_turn", "engine", "destinations", None),
    ),
    (
        "with a server",
        OPEN,
        facts(outlook=outlook(place=IN_FLIGHT)),
        ("in_flight", "envelope", "7", 0),
    ),
    ("its own wait", DEFERRED, facts(), ("retry_wait", "envelope", "7", 300)),
    (
        "its own wait, longer than its destination's",
        DEFERRED,
        facts(DOWN),
        ("retry_wait", "envelope", "7", 300),
    ),
    ("out of reach", OPEN, facts(DOWN), ("destination_unreachable", "destination", "x.test", 100)),
    (
        "being tried again, and nobody has answered yet",
        OPEN,
        facts(
            msgspec.structs.replace(DOWN, not_before_unix_ms=T0),
            outlook=outlook(connections=0, record=DOWN),
        ),
        ("destination_unreachable", "destination", "x.test", 0),
    ),
    (
        "being tried again, and somebody answers",
        OPEN,
        facts(
            msgspec.structs.replace(DOWN, not_before_unix_ms=T0),
            outlook=outlook(connections=1, record=DOWN),
        ),
        ("waiting_turn", "destination", "x.test", 0),
    ),
    (
        "no name server answers",
        OPEN,
        facts(msgspec.structs.replace(DOWN, cause="dns_failure")),
        ("dns_failure", "destination", "x.test", 100),
    ),
    (
        "a rate, at rest",
        OPEN,
        facts(THROTTLED, rest_path=(bucket(0.0, 0.05, 1),), ahead=2),
        ("rate_limit", "destination", "x.test", 60),
    ),
    (
        "a rate whose rule is gone, at rest",
        OPEN,
        facts(THROTTLED, ahead=2),
        ("rate_limit", "destination", "x.test", 20),
    ),
    (
        "a rate at rest, and its own wait",
        DEFERRED,
        facts(THROTTLED, rest_path=(bucket(0.0, 0.05, 1),)),
        ("retry_wait", "envelope", "7", 300),
    ),
    (
        "a bucket without a token",
        OPEN,
        facts(outlook=outlook(bucket(0.0)), ahead=4),
        ("rate_limit", "destination", "x.test", 5),
    ),
    (
        "a bucket with tokens for those before it",
        OPEN,
        facts(outlook=outlook(bucket(3.0), throttled_since_unix_ms=T0 - SECOND), ahead=4),
        ("rate_limit", "destination", "x.test", 2),
    ),
    (
        "a bucket with tokens for all, and for it",
        OPEN,
        facts(outlook=outlook(bucket(5.0), throttled_since_unix_ms=T0 - SECOND), ahead=4),
        ("waiting_turn", "destination", "x.test", 2),
    ),
    (
        "a bucket that nobody waits for",
        OPEN,
        facts(outlook=outlook(bucket(3.0)), ahead=4),
        ("waiting_turn", "destination", "x.test", 2),
    ),
    (
        "a throttle before the connections",
        OPEN,
        facts(
            outlook=outlook(
                bucket(0.5), full("destination", "x.test"), throttled_since_unix_ms=T0 - SECOND
            )
        ),
        ("rate_limit", "destination", "x.test", 0.5),
    ),
    (
        "a site that was asked to be left alone",
        OPEN,
        facts(outlook=outlook(SUSPENDED, bucket(3.0)), ahead=1),
        ("rate_limit", "site", "mx.big.test", 40),
    ),
    (
        "two rates, of which the site's is the slower one",
        OPEN,
        facts(outlook=outlook(bucket(0.5), LEARNED), ahead=1),
        ("rate_limit", "site", "mx.big.test", 20),
    ),
    (
        "a site's rate, at rest",
        OPEN,
        facts(THROTTLED, rest_path=(bucket(1.0), LEARNED), ahead=9),
        ("rate_limit", "site", "mx.big.test", 100),
    ),
    (
        "all connections of the destination",
        OPEN,
        facts(outlook=outlook(full("destination", "x.test")), ahead=6),
        ("connection_limit", "destination", "x.test", 3),
    ),
    (
        "all connections of the site",
        OPEN,
        facts(outlook=outlook(full("site", "mx.big.test"), connections=0, rate_per_s=0.0)),
        ("connection_limit", "site", "mx.big.test", None),
    ),
    (
        "room at the site, none in the engine",
        OPEN,
        facts(
            outlook=outlook(
                ConnectionLimit("site", "mx.big.test", 5, open=4),
                full("engine", "connections"),
                connections=0,
                rate_per_s=0.0,
            )
        ),
        ("connection_limit", "engine", "connections", None),
    ),
    (
        "waiting for its site without an actor",
        OPEN,
        facts(PARKED),
        ("connection_limit", "site", "mx.big.test", 30),
    ),
    (
        "a hold, whatever else",
        DEFERRED,
        facts(DOWN, hold=HOLD),
        ("hold", "campaign", "spring", None),
    ),
    (
        "a hold that ends before its own wait",
        DEFERRED,
        facts(hold=replace(HOLD, until_unix_ms=T0 + 10 * SECOND)),
        ("retry_wait", "envelope", "7", 300),
    ),
    (
        "results cannot be stored",
        OPEN,
        facts(outlook=outlook(bucket(0.0)), spool_refuses_since_unix_ms=T0 - SECOND),
        ("spool_fault", "engine", "spool", None),
    ),
    (
        "results cannot be stored, but it is not due yet",
        DEFERRED,
        facts(spool_refuses_since_unix_ms=T0 - SECOND),
        ("retry_wait", "envelope", "7", 300),
    ),
    (
        "a quota",
        EnvelopeState(Status.PAUSED, 0, T0 + 600 * SECOND, T0 + 3 * DAY),
        facts(DOWN, quota="200/day"),
        ("quota", "account", "acme", 600),
    ),
]


@pytest.mark.parametrize(
    ("state", "known", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_the_one_thing_that_holds_it(
    state: EnvelopeState, known: Facts, expected: tuple[str, str, str, float | None]
) -> None:
    held = holding(envelope(state), known)
    assert held is not None
    code, scope, key, next_s = expected
    assert (held.code, held.scope, held.key) == (code, scope, key)
    next_unix_ms = None if next_s is None else T0 + int(next_s * SECOND)
    assert held.next_attempt_unix_ms == next_unix_ms


@pytest.mark.parametrize("status", sorted(FINAL_STATUSES))
def test_nothing_holds_what_is_final(status: Status) -> None:
    state = msgspec.structs.replace(OPEN, status=status, due_unix_ms=0)
    assert holding(envelope(state), facts(DOWN, hold=HOLD)) is None


def test_the_cause_brings_its_reply_its_time_and_its_limit() -> None:
    down = holding(envelope(), facts(DOWN))
    assert down is not None
    assert (down.reply, down.reason) == ("(connection refused)", Reason.CONNECTION)
    assert down.since_unix_ms == T0 - 9 * SECOND
    own = holding(envelope(DEFERRED), facts(DOWN, last_event_unix_ms=T0 - SECOND))
    assert own is not None
    assert (own.reply, own.reason) == ("451 4.7.1 later", Reason.GREYLISTED)
    assert own.since_unix_ms == T0 - SECOND
    slow = holding(envelope(), facts(THROTTLED, rest_path=(bucket(0.0, 0.05, 1),)))
    assert slow is not None
    assert (slow.limit, slow.since_unix_ms) == ("3/min, burst 1", T0 - 9 * SECOND)
    learned = holding(envelope(), facts(outlook=outlook(LEARNED)))
    assert learned is not None
    assert (learned.reply, learned.reason) == ("421 4.7.0 slow down", Reason.THROTTLED)
    noted = holding(envelope(), facts(hold=replace(HOLD, note="complaints")))
    assert noted is not None
    assert (noted.note, noted.since_unix_ms) == ("complaints", T0 - 5 * SECOND)
    seats = holding(envelope(), facts(outlook=outlook(full("site", "mx.big.test"))))
    assert seats is not None
    assert seats.limit == "5 connections"
    paused = msgspec.structs.replace(OPEN, status=Status.PAUSED)
    quota = holding(envelope(paused), facts(quota="200/day"))
    assert quota is not None
    assert quota.limit == "200/day"


def row(wake_s: int | None = 0, **counts: int) -> DestinationRow:
    wake = None if wake_s is None else T0 + wake_s * SECOND
    numbers = tuple(counts.get(status.value, 0) for status in STATUSES)
    return DestinationRow("x.test", numbers, DestinationRecord(), wake)


@pytest.mark.parametrize(
    ("found", "known", "code"),
    [
        (row(delivered=9, wake_s=None), facts(), None),
        (row(paused=3, wake_s=None), facts(), "quota"),
        (row(queued=3), facts(outlook=outlook()), "waiting_turn"),
        (row(queued=3, paused=2), facts(DOWN), "destination_unreachable"),
        (row(deferred=3, wake_s=60), facts(), "retry_wait"),
        (
            row(queued=3, wake_s=20),
            facts(THROTTLED, rest_path=(bucket(0.0, 0.05, 1),)),
            "rate_limit",
        ),
        (row(queued=3), facts(hold=HOLD), "hold"),
    ],
)
def test_what_holds_a_destination(found: DestinationRow, known: Facts, code: str | None) -> None:
    held = holding_destination(found, known, "acme")
    assert (held.code if held else None) == code


@pytest.mark.parametrize(
    "text",
    ["20/s, burst 20", "100/min, burst 1", "1000/h, burst 1", "5/day, burst 2", "1.5/s, burst 1"],
)
def test_a_rate_is_shown_as_it_was_written(text: str) -> None:
    rate = Rate.parse(text)
    shown = limit_text(bucket(0.0, rate.per_s, rate.burst))
    assert Rate.parse(shown).per_s == pytest.approx(rate.per_s, rel=1e-3)
    if "." not in text:
        assert shown == text


@pytest.mark.parametrize(
    ("per_s", "shown"),
    [
        (150_882 / 86_400, "1.75/s, burst 1"),
        (0.8712, "52.3/min, burst 1"),
        (100_000 / 86_400, "100000/day, burst 1"),
        (0.4 / 86_400, "0.4/day, burst 1"),
        (1234.567, "1230/s, burst 1"),
    ],
)
def test_a_learned_rate_is_shown_in_a_unit_that_people_can_picture(
    per_s: float, shown: str
) -> None:
    assert limit_text(bucket(0.0, per_s, 1)) == shown
    assert Rate.parse(shown).per_s == pytest.approx(per_s, rel=5e-3)


def test_a_throttle_is_over_after_a_pause() -> None:
    refusals = Refusals()
    assert refusals.since(T0) is None
    for second in range(0, 9, 2):
        refusals.note(T0 + second * SECOND)
    assert refusals.since(T0 + 9 * SECOND) == T0
    assert refusals.since(T0 + 60 * SECOND) is None
    refusals.note(T0 + 60 * SECOND)
    assert refusals.since(T0 + 60 * SECOND) == T0 + 60 * SECOND
