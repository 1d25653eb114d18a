"""When will what waits at a destination be through? Arithmetic, and honest about what it rests on.

Each estimate has a low and a high end. The low one is what happens if all goes well from now on
and nobody else's mail is in between; at the high one the pace has halved and all others went first.
Between them there is an expected time only where mail flows, or is let through at a known rate:
when a dead server comes back, nobody can tell, and the high end is when mail is given up. A mail
that is put off on its way may be later than all that. Pure: everything is an argument.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from engine.delivery.holding import Holding
from engine.spool.agenda import UNREACHABLE_CAUSES

# A measured rate grows while connections are added, and falls when a receiver tires: it was seen
# to double and to halve within minutes.
RATE_FACTOR: Final = 2.0


@dataclass(frozen=True, slots=True)
class Share:
    """A limit of the campaign's account, or of the campaign, that mail elsewhere may use, too.

    `own` counts all mails of the campaign that go by it, `all` those of the whole account.
    """

    per_s: float
    own: int
    all: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits at one destination, and at which pace it goes; times are wall milliseconds.

    `all_due` counts everybody's mails there, `due` those of the campaign (queued or deferred);
    `paused` are the campaign's too, and the last of them is released at `released_unix_ms`.
    `limit_per_s` is the narrowest of the destination's own limits, `shares` are its sender's, and
    `waits_for_share` says that the mail waits for one of those just now.
    """

    now_unix_ms: int
    due: int
    all_due: int
    paused: int
    held: Holding | None
    next_unix_ms: int | None
    rate_per_s: float
    limit_per_s: float | None
    released_unix_ms: int
    max_age_ms: int
    shares: Sequence[Share] = ()
    waits_for_share: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """`basis` is what the expected time rests on, or what keeps it from being known."""

    basis: str
    earliest_unix_ms: int
    expected_unix_ms: int | None
    latest_unix_ms: int


def estimate(waiting: Waiting) -> Estimate:
    """Return when a campaign's mails at one destination will have left, low, expected and high."""
    found = _by_destination(waiting)
    for share in waiting.shares:
        found = _no_sooner(found, share, waiting)
    return found


def _no_sooner(found: Estimate, share: Share, waiting: Waiting) -> Estimate:
    """Return an estimate with what the limit of an account or campaign lets pass in time."""
    start_unix_ms = max(waiting.now_unix_ms, waiting.released_unix_ms)
    before = min(share.all, 2 * share.own)
    lasts_s = (share.own / share.per_s, before / share.per_s, share.all / share.per_s)
    by_share = _paced("rate_limit", start_unix_ms, lasts_s, _given_up_unix_ms(waiting))
    is_share_of_flow = found.basis == "measured_rate" and waiting.waits_for_share
    if found.basis == "nothing_measured" or is_share_of_flow:
        # What flows here is what the limit leaves to here, as long as others use it, too.
        return by_share
    earliest = max(found.earliest_unix_ms, by_share.earliest_unix_ms)
    latest = max(found.latest_unix_ms, by_share.latest_unix_ms)
    expected = found.expected_unix_ms
    assert by_share.expected_unix_ms is not None, "a rate says when"
    if expected is None or expected >= by_share.expected_unix_ms:
        return Estimate(found.basis, earliest, expected, latest)
    return Estimate("rate_limit", earliest, by_share.expected_unix_ms, latest)


def _given_up_unix_ms(waiting: Waiting) -> int:
    return max(waiting.now_unix_ms, waiting.released_unix_ms) + waiting.max_age_ms


def _by_destination(waiting: Waiting) -> Estimate:
    """Return the estimate for what holds at the destination, whoever sends."""
    now_unix_ms, held = waiting.now_unix_ms, waiting.held
    given_up_unix_ms = _given_up_unix_ms(waiting)
    code = held.code if held else ""
    own = waiting.due + waiting.paused
    # Flows take turns: of two, the shorter one is through when it has had every second turn.
    everybodys = max(waiting.all_due, waiting.due) + waiting.paused
    before = min(everybodys, 2 * own)
    start_unix_ms = max(now_unix_ms, waiting.released_unix_ms)
    if code in UNREACHABLE_CAUSES or code in ("hold", "spool_fault"):
        next_unix_ms = held.next_attempt_unix_ms if held else None
        return Estimate(
            code, max(start_unix_ms, next_unix_ms or now_unix_ms), None, given_up_unix_ms
        )
    if code == "retry_wait":
        next_unix_ms = max(start_unix_ms, waiting.next_unix_ms or now_unix_ms)
        return Estimate("retry_wait", next_unix_ms, next_unix_ms, given_up_unix_ms)
    limit_per_s = waiting.limit_per_s
    if limit_per_s and (code in ("rate_limit", "quota") or not waiting.rate_per_s):
        rested_unix_ms = max(start_unix_ms, waiting.next_unix_ms or now_unix_ms)
        return _paced(
            "rate_limit",
            rested_unix_ms if code == "rate_limit" else start_unix_ms,
            (own / limit_per_s, before / limit_per_s, everybodys / limit_per_s),
            given_up_unix_ms,
        )
    if waiting.rate_per_s > 0:
        fastest = waiting.rate_per_s * RATE_FACTOR
        if limit_per_s:
            fastest = min(fastest, limit_per_s)
        slowest_s = everybodys / waiting.rate_per_s * RATE_FACTOR
        return _paced(
            "measured_rate",
            start_unix_ms,
            (own / fastest, before / waiting.rate_per_s, slowest_s),
            given_up_unix_ms,
        )
    if waiting.paused and not waiting.due:
        return Estimate("quota", start_unix_ms, start_unix_ms, given_up_unix_ms)
    return Estimate("nothing_measured", start_unix_ms, None, given_up_unix_ms)


def _paced(
    basis: str, start_unix_ms: int, lasts_s: tuple[float, float, float], given_up_unix_ms: int
) -> Estimate:
    earliest, expected, latest = (
        min(start_unix_ms + math.ceil(each * 1000.0), given_up_unix_ms) for each in lasts_s
    )
    return Estimate(basis, earliest, expected, latest)
