"""What a site's replies have taught: rates and connections that fall at once and rise slowly.

Additive increase, multiplicative decrease, as a function of time: what is kept is where the last
fall left it and how fast it rises from there, so nothing has to be stepped by a timer and a restart
changes nothing. Pure arithmetic; times are wall milliseconds and come in as arguments. Which reply
counts as a throttle is `throttles`.
"""

import math
from typing import Final

import msgspec

from engine.config_values import Rate, Step

# Half is enough to be heard, and little enough to be made good within minutes.
FALL_FACTOR: Final = 0.5
# A limit that is learned goes no lower: one mail a minute still shows when the receiver gives in.
RATE_PER_S_MIN: Final = 1 / 60
# Each minute gives back a tenth of what flowed before the fall: full pace again after five.
RISE_PER_MINUTE: Final = 0.1
MINUTE_MS: Final = 60_000
# What was not complained about at four times what there was before the fall is no limit any more.
LIFTED_FACTOR: Final = 4.0
# One connection more every two minutes: a refused one costs the receiver more than a refused mail.
CONNECTION_RISE_MS: Final = 120_000
# What was under way when we fell is still being complained about; that is no further reason.
FALLS_APART_MS: Final = 30_000


class Learned(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One site's learned limits. Zeros are "none"; rates are per second.

    The rate fell to `rate` at `rate_unix_ms`, from a flow of `peak`; connections likewise. What
    begins with `timed_` holds until its time and then ends at once, as its rule says; nothing goes
    before `suspended_until_unix_ms`. While `pinned_unix_ms` is set, all stands as it was then.
    `under_pin` is what held before a pin at other limits, pinned at the moment at which that began.
    """

    rate: float = 0.0
    peak: float = 0.0
    rate_unix_ms: int = 0
    connections: int = 0
    connections_unix_ms: int = 0
    suspended_until_unix_ms: int = 0
    timed_rate: float = 0.0
    timed_burst: int = 0
    timed_rate_until_unix_ms: int = 0
    timed_connections: int = 0
    timed_connections_until_unix_ms: int = 0
    pinned_unix_ms: int = 0
    since_unix_ms: int = 0
    reply: str = ""
    under_pin: "Learned | None" = None

    def at(self, now_unix_ms: int) -> int:
        """Return the instant that counts: a pinned state does not age."""
        return self.pinned_unix_ms or now_unix_ms

    def rate_at(self, now_unix_ms: int) -> float:
        """Return how many a second may go as far as was learned; infinity without a limit."""
        at_unix_ms = self.at(now_unix_ms)
        rate = self._risen_rate(at_unix_ms)
        if self.timed_rate and at_unix_ms < self.timed_rate_until_unix_ms:
            rate = min(rate, self.timed_rate)
        return rate

    def _risen_rate(self, at_unix_ms: int) -> float:
        if not self.rate:
            return math.inf
        minutes = max(0, at_unix_ms - self.rate_unix_ms) // MINUTE_MS
        rate = self.rate + minutes * max(RISE_PER_MINUTE * self.peak, RATE_PER_S_MIN)
        return math.inf if rate >= LIFTED_FACTOR * self.peak else rate

    def connections_at(self, now_unix_ms: int) -> int | None:
        """Return how many connections are allowed as far as was learned; None without a limit."""
        at_unix_ms = self.at(now_unix_ms)
        allowed: int | None = None
        if self.connections:
            risen = max(0, at_unix_ms - self.connections_unix_ms) // CONNECTION_RISE_MS
            allowed = self.connections + risen
            if allowed >= LIFTED_FACTOR * self.connections / FALL_FACTOR:
                allowed = None
        if self.timed_connections and at_unix_ms < self.timed_connections_until_unix_ms:
            allowed = min(self.timed_connections, allowed or self.timed_connections)
        return allowed

    def suspended_until(self, now_unix_ms: int) -> int:
        """Return until when nothing goes; a time that is past if something may go."""
        if self.pinned_unix_ms and self.suspended_until_unix_ms > self.pinned_unix_ms:
            # Pinned in the middle of a suspension: that lasts until it is unpinned.
            return max(self.suspended_until_unix_ms, now_unix_ms + MINUTE_MS)
        return self.suspended_until_unix_ms

    def is_nothing(self, now_unix_ms: int) -> bool:
        """Whether there is nothing to keep: no limit holds any more."""
        return (
            not self.pinned_unix_ms
            and math.isinf(self.rate_at(now_unix_ms))
            and self.connections_at(now_unix_ms) is None
            and self.suspended_until_unix_ms <= now_unix_ms
        )


def fallen(
    learned: Learned, now_unix_ms: int, *, flow_per_s: float, open_connections: int, reply: str
) -> Learned | None:
    """Return what a throttling reply leads to; None if it says nothing new."""
    changed = scaled(learned, now_unix_ms, FALL_FACTOR, flow_per_s=flow_per_s, reply=reply)
    if changed is None:
        return None
    return msgspec.structs.replace(
        changed,
        connections=max(1, math.floor(open_connections * FALL_FACTOR)),
        connections_unix_ms=now_unix_ms,
    )


def scaled(
    learned: Learned, now_unix_ms: int, factor: float, *, flow_per_s: float, reply: str
) -> Learned | None:
    """Return the state after the rate fell by `factor`; None if it fell a moment ago."""
    if learned.pinned_unix_ms or now_unix_ms - learned.rate_unix_ms < FALLS_APART_MS:
        return None
    base = min(learned.rate_at(now_unix_ms), max(flow_per_s, RATE_PER_S_MIN))
    return msgspec.structs.replace(
        learned,
        rate=max(base * factor, RATE_PER_S_MIN),
        peak=max(base, 2 * RATE_PER_S_MIN),
        rate_unix_ms=now_unix_ms,
        since_unix_ms=_since(learned, now_unix_ms),
        reply=reply,
    )


def suspended(learned: Learned, now_unix_ms: int, wait_ms: int, reply: str) -> Learned | None:
    """Return the state in which nothing goes for `wait_ms`; None if that holds already."""
    until_unix_ms = now_unix_ms + wait_ms
    # A burst of refusals names the same time again and again: seconds later are nothing new.
    if learned.pinned_unix_ms or until_unix_ms < learned.suspended_until_unix_ms + FALLS_APART_MS:
        return None
    return msgspec.structs.replace(
        learned,
        suspended_until_unix_ms=until_unix_ms,
        since_unix_ms=_since(learned, now_unix_ms),
        reply=reply,
    )


def reacted(
    learned: Learned, now_unix_ms: int, step: Step, *, flow_per_s: float, reply: str
) -> Learned | None:
    """Return the state after a rule's reaction; None if it holds already."""
    if learned.pinned_unix_ms:
        return None
    if step.factor is not None:
        return scaled(learned, now_unix_ms, step.factor, flow_per_s=flow_per_s, reply=reply)
    for_ms = round(step.for_s * 1000)
    until_unix_ms = now_unix_ms + for_ms
    since_unix_ms = _since(learned, now_unix_ms)
    if step.rate is not None:
        is_same = learned.timed_rate == step.rate.per_s
        if is_same and until_unix_ms < learned.timed_rate_until_unix_ms + FALLS_APART_MS:
            return None
        return msgspec.structs.replace(
            learned,
            timed_rate=step.rate.per_s,
            timed_burst=step.rate.burst,
            timed_rate_until_unix_ms=until_unix_ms,
            since_unix_ms=since_unix_ms,
            reply=reply,
        )
    if step.connections is not None:
        is_same = learned.timed_connections == step.connections
        if is_same and until_unix_ms < learned.timed_connections_until_unix_ms + FALLS_APART_MS:
            return None
        return msgspec.structs.replace(
            learned,
            timed_connections=step.connections,
            timed_connections_until_unix_ms=until_unix_ms,
            since_unix_ms=since_unix_ms,
            reply=reply,
        )
    return suspended(learned, now_unix_ms, for_ms, reply)


def pinned(
    learned: Learned, now_unix_ms: int, *, rate: Rate | None, connections: int | None
) -> Learned:
    """Return the state that stays: as it is now, or at what is given."""
    under_pin = learned.under_pin
    if under_pin is None and (rate is not None or connections is not None):
        under_pin = msgspec.structs.replace(learned, pinned_unix_ms=learned.at(now_unix_ms))
    changed = msgspec.structs.replace(
        learned,
        pinned_unix_ms=now_unix_ms,
        since_unix_ms=_since(learned, now_unix_ms),
        under_pin=under_pin,
    )
    if rate is not None:
        changed = msgspec.structs.replace(
            changed,
            rate=rate.per_s,
            peak=rate.per_s,
            rate_unix_ms=now_unix_ms,
            timed_rate=0.0,
            suspended_until_unix_ms=0,
        )
    if connections is not None:
        changed = msgspec.structs.replace(
            changed,
            connections=connections,
            connections_unix_ms=now_unix_ms,
            timed_connections=0,
            suspended_until_unix_ms=0,
        )
    return changed


def unpinned(learned: Learned, now_unix_ms: int) -> Learned:
    """Return the state that goes on from where it was pinned.

    An operator's own limits end with the pin: what was learned before it holds again, and rises
    from there, as nothing was learned meanwhile. But a time that was named then has run on, because
    mail went all the same.
    """
    passed_ms = now_unix_ms - learned.at(now_unix_ms)

    def later(unix_ms: int) -> int:
        return unix_ms + passed_ms if unix_ms else 0

    if learned.under_pin is not None:
        learned = learned.under_pin
        passed_ms = now_unix_ms - learned.at(now_unix_ms)
        return msgspec.structs.replace(
            learned,
            rate_unix_ms=later(learned.rate_unix_ms),
            connections_unix_ms=later(learned.connections_unix_ms),
            pinned_unix_ms=0,
        )
    return msgspec.structs.replace(
        learned,
        rate_unix_ms=later(learned.rate_unix_ms),
        connections_unix_ms=later(learned.connections_unix_ms),
        suspended_until_unix_ms=later(learned.suspended_until_unix_ms),
        timed_rate_until_unix_ms=later(learned.timed_rate_until_unix_ms),
        timed_connections_until_unix_ms=later(learned.timed_connections_until_unix_ms),
        pinned_unix_ms=0,
    )


def _since(learned: Learned, now_unix_ms: int) -> int:
    """Return since when something has held without a break."""
    return now_unix_ms if learned.is_nothing(now_unix_ms) else learned.since_unix_ms


def text_of(learned: Learned, now_unix_ms: int) -> str:
    """Return what holds, for people: "at most 12/min; 3 connections"."""
    parts = []
    until_unix_ms = learned.suspended_until(now_unix_ms)
    if until_unix_ms > now_unix_ms:
        parts.append(f"nothing for {math.ceil((until_unix_ms - now_unix_ms) / 1000)} s")
    rate = learned.rate_at(now_unix_ms)
    if not math.isinf(rate):
        parts.append(f"{rate:.3g}/s" if rate >= 1 else f"{rate * 60:.3g}/min")
    connections = learned.connections_at(now_unix_ms)
    if connections is not None:
        parts.append(f"{connections} connection{'s' * (connections != 1)}")
    if learned.pinned_unix_ms:
        parts.append("pinned")
    return "; ".join(parts) or "no limit"
