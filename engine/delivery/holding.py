"""What is the one thing that holds a mail back? Asked of plain facts, with the actor's question.

Everything that can stand in a mail's way is a limit with a moment at which it lets the mail pass,
and `binding_limit` names the one that frees last: lifting that one moves the mail, lifting any
other does not. First those that the time lifts (quota, hold, its own wait, its destination's),
then, for a mail that could go now, what its actor asks before each transaction. `waiting_turn` is
left when nobody says no. Reads nothing, charges nothing, waits for nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Final

from engine.config_values import Rate
from engine.delivery.limits import (
    ConnectionLimit,
    Limit,
    TokenBucket,
    binding_limit,
)
from engine.delivery.under_way import Silence
from engine.spool.agenda import UNREACHABLE_CAUSES
from engine.spool.interface import DestinationRow, WindowPosition
from protocols.records import (
    FINAL_STATUSES,
    STATUSES,
    DestinationRecord,
    Envelope,
    FlowWait,
    Reason,
    Status,
)

_PAUSED_PLACE: Final = STATUSES.index(Status.PAUSED)
BEYOND_ANY_BURST: Final = 1_000_000_000
_OPEN_PLACES: Final = tuple(
    place for place, status in enumerate(STATUSES) if status not in FINAL_STATUSES
)


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit that lets a mail pass from a moment on; NOT_BY_WAITING if somebody has to act.

    `limit` is what is allowed, as a rule would say it; `since_unix_ms` is 0 where nobody knows;
    `note` is what whoever is responsible has to say about it; `is_own` if that is the account that
    the mail is of.
    """

    code: str
    scope: str
    key: str
    until_unix_ms: float
    since_unix_ms: int = 0
    limit: str = ""
    reply: str = ""
    reason: Reason | None = None
    note: str = ""
    is_own: bool = False

    def ready_at_unix_ms(self, now_unix_ms: int) -> float:
        return max(self.until_unix_ms, now_unix_ms)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mail is with its destination's actor.

    `before` are those in the actor's hands that go before it, and `position` is where the turns
    stand of those in the spool.
    """

    is_in_flight: bool = False
    is_claimed: bool = False
    before: int = 0
    position: WindowPosition = field(default_factory=WindowPosition)


@dataclass(frozen=True, slots=True)
class Outlook:
    """How an actor stands towards one of its mails; copies, so that nothing of it moves on.

    `path` are the limits that it asks before the next transaction and the next connection, and
    `flow_path` those of the mail's account and campaign: others pass while they say no.
    `throttled_since_unix_ms` is None if it did not have to wait for a rate lately.
    """

    record: DestinationRecord
    place: Place
    path: tuple[Limit, ...]
    throttled_since_unix_ms: int | None
    connections: int
    rate_per_s: float
    flow_path: tuple[Limit, ...] = ()
    # Of the server that has the mail; else of all servers of the destination, if all are silent.
    silence: Silence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known about one mail's way; times are wall milliseconds.

    `outlook` is None while the destination has no actor; `rest_path` are the limits that one would
    find. `wait` is what the destination's record says of the mail's account or campaign, and
    `flow_path` are the limits that it waits for. `ahead` are the mails of the destination that go
    before this one. `last_event_unix_ms` is when something happened to the mail last,
    `spool_refuses_since_unix_ms` since when results cannot be stored, None if they can.
    """

    now_unix_ms: int
    record: DestinationRecord
    rest_path: tuple[Limit, ...] = ()
    wait: FlowWait | None = None
    flow_path: tuple[Limit, ...] = ()
    outlook: Outlook | None = None
    ahead: int = 0
    last_event_unix_ms: int = 0
    hold: Gate | None = None
    quota: str = ""
    spool_refuses_since_unix_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """What holds a mail back, and when it will move as far as anybody can tell (else None)."""

    code: str
    scope: str
    key: str
    since_unix_ms: int
    next_attempt_unix_ms: int | None
    limit: str = ""
    reply: str = ""
    reason: Reason | None = None
    note: str = ""
    is_own: bool = False
    # Whether the server owes an answer, since then; `next_attempt_unix_ms` is then when we give up.
    is_silent: bool = False


def holding(envelope: Envelope, facts: Facts) -> Holding | None:
    """Return what holds an envelope back; None if it is finished."""
    state = envelope.state
    if state.status in FINAL_STATUSES:
        return None
    now_unix_ms = facts.now_unix_ms
    envelope_key = str(envelope.fixed.envelope_id)
    if facts.outlook is not None and facts.outlook.place.is_in_flight:
        moving = Holding("in_flight", "envelope", envelope_key, 0, now_unix_ms)
        return _silenced(moving, facts.outlook.silence)
    gates = _gates(envelope, envelope_key, facts)
    gate, ready_unix_ms = binding_limit(gates, now_unix_ms)
    if gate is None:
        since_unix_ms = max(state.due_unix_ms, 0)
        return _on_path(envelope.fixed.destination, since_unix_ms, facts)
    assert isinstance(gate, Gate), gate
    return _of_gate(gate, None if math.isinf(ready_unix_ms) else int(ready_unix_ms), facts)


def holding_destination(row: DestinationRow, facts: Facts, account: str) -> Holding | None:
    """Return what holds back the mails that wait at a destination; None if none does.

    `facts.ahead` is how many of them go before the last one; `account` is whose they are.
    """
    now_unix_ms, destination = facts.now_unix_ms, row.destination
    if not waiting_in(row):
        return None
    if waiting_in(row) == row.counts[_PAUSED_PLACE]:
        return Holding("quota", "account", account, 0, None, limit=facts.quota, reason=Reason.QUOTA)
    gates = (*_destination_gates(destination, facts), *_flow_gates(facts))
    gate, ready_unix_ms = binding_limit(gates, now_unix_ms)
    if gate is not None:
        assert isinstance(gate, Gate), gate
        return _of_gate(gate, None if math.isinf(ready_unix_ms) else int(ready_unix_ms), facts)
    wake_unix_ms = row.wake_unix_ms
    if facts.outlook is None and wake_unix_ms is not None and wake_unix_ms > now_unix_ms:
        # Nothing holds it as a whole: the earliest of its mails is due then.
        record = facts.record
        return Holding(
            "retry_wait",
            "envelope",
            destination,
            0,
            wake_unix_ms,
            reply=record.reply,
            reason=record.reason,
        )
    return _on_path(destination, 0, facts)


def waiting_in(row: DestinationRow) -> int:
    """How many mails wait at a destination, paused ones included."""
    counts = row.counts
    return sum(counts[place] for place in _OPEN_PLACES)


def mails_allowed_at(bucket: TokenBucket, messages: int, now_unix_ms: int) -> float:
    """Return when a rate will have let so many messages pass, one after the other."""
    missing = messages - bucket.level_at(now_unix_ms)
    return now_unix_ms + max(0.0, missing) / bucket.rate_per_s * 1000.0


def limit_text(limit: Limit) -> str:
    """Return what a limit allows, as text for people; "" if it has no number."""
    if isinstance(limit, TokenBucket):
        return str(Rate(limit.rate_per_s, limit.burst))
    if isinstance(limit, ConnectionLimit):
        return f"{limit.ceiling} connection{'s' * (limit.ceiling != 1)}"
    return limit.limit if isinstance(limit, Gate) else ""


def _gates(envelope: Envelope, envelope_key: str, facts: Facts) -> Sequence[Gate]:
    """Return what the time lifts, the most general first: of equals that one is named."""
    fixed, state = envelope.fixed, envelope.state
    if state.status is Status.PAUSED:
        quota = Gate(
            "quota",
            "account",
            fixed.account,
            # From its day on the next round of releases takes it, within a second or two.
            max(state.due_unix_ms, facts.now_unix_ms + 1),
            fixed.accepted_unix_ms,
            limit=facts.quota,
            reason=Reason.QUOTA,
        )
        return (facts.hold, quota) if facts.hold else (quota,)
    own = Gate(
        "retry_wait",
        "envelope",
        envelope_key,
        state.due_unix_ms,
        facts.last_event_unix_ms,
        reply=state.reply,
        reason=state.reason,
    )
    return (*_destination_gates(fixed.destination, facts), *_flow_gates(facts), own)


def _flow_gates(facts: Facts) -> Sequence[Gate]:
    """Return what an account or campaign waits for while its destination has no actor."""
    wait = facts.wait
    if wait is None or facts.outlook is not None:
        return ()
    limit = _last_to_allow(facts.flow_path, 1, facts.now_unix_ms)
    scope, key = ("account", wait.account) if wait.campaign is None else ("campaign", wait.campaign)
    if limit is not None:
        scope, key = limit.scope, limit.key
    text = "" if limit is None else limit_text(limit)
    return (Gate("rate_limit", scope, key, wait.until_unix_ms, limit=text),)


def _destination_gates(destination: str, facts: Facts) -> Sequence[Gate]:
    """Return the hold, and what the destination's record says."""
    record, outlook, now_unix_ms = facts.record, facts.outlook, facts.now_unix_ms
    gates = [facts.hold] if facts.hold else []
    until_unix_ms: float = record.not_before_unix_ms
    if record.failures and record.cause in UNREACHABLE_CAUSES:
        if outlook is not None and outlook.connections:
            return gates  # Somebody answers: what is remembered is history.
        # While it is tried again, it is out of reach until it answers.
        until_unix_ms = max(until_unix_ms, now_unix_ms + 1)
    elif outlook is not None:
        return gates  # A throttle's word is its actor's, if there is one.
    elif record.cause == "rate_limit":
        return [*gates, _throttle_at_rest(destination, facts)]
    elif record.cause == "connection_limit":
        site = Gate(record.cause, "site", record.site, until_unix_ms, record.since_unix_ms)
        return [*gates, site]
    else:
        return gates
    reached = Gate(
        record.cause,
        "destination",
        destination,
        until_unix_ms,
        record.since_unix_ms,
        reply=record.reply,
        reason=record.reason,
    )
    return [*gates, reached]


def _throttle_at_rest(destination: str, facts: Facts) -> Gate:
    """Return what an actor rests for: the limit that frees last, or what it found when it began."""
    record = facts.record
    # In line for a limit that others use up, or for one that was; then it is the slowest.
    limit = _last_to_allow(facts.rest_path, 1, facts.now_unix_ms) or _last_to_allow(
        facts.rest_path, BEYOND_ANY_BURST, facts.now_unix_ms
    )
    if limit is None:
        # It holds no more, and its actor has not looked yet.
        is_told = record.reason is Reason.THROTTLED
        return Gate(
            "rate_limit",
            "destination",
            destination,
            record.not_before_unix_ms,
            record.since_unix_ms,
            reply=record.reply if is_told else "",
            reason=record.reason if is_told else None,
        )
    told = limit if isinstance(limit, Gate | TokenBucket) else None
    return Gate(
        limit.code,
        limit.scope,
        limit.key,
        # It is woken for its site's sake in turn, which may be sooner than it looks by itself.
        max(record.not_before_unix_ms, facts.now_unix_ms + 1),
        record.since_unix_ms or (told.since_unix_ms if told else 0),
        limit_text(limit),
        told.reply if told else "",
        Reason.THROTTLED if told and told.reply else None,
    )


def _of_gate(gate: Gate, ready_unix_ms: int | None, facts: Facts) -> Holding:
    now_unix_ms = facts.now_unix_ms
    if ready_unix_ms == now_unix_ms + 1:
        ready_unix_ms = now_unix_ms  # That is how a gate says "at any moment".
    if gate.code == "rate_limit" and ready_unix_ms is not None:
        # One passes at that moment, and those ahead take theirs first.
        path = (*facts.rest_path, *facts.flow_path)
        limit = _last_to_allow(path, facts.ahead + 1, now_unix_ms)
        if limit is not None:
            allowed_unix_ms = _allows_at(limit, facts.ahead + 1, now_unix_ms)
            ready_unix_ms = max(ready_unix_ms, math.ceil(allowed_unix_ms))
    return Holding(
        gate.code,
        gate.scope,
        gate.key,
        gate.since_unix_ms,
        ready_unix_ms,
        gate.limit,
        gate.reply,
        gate.reason,
        gate.note,
        gate.is_own,
    )


def _on_path(destination: str, due_unix_ms: int, facts: Facts) -> Holding:
    """Return what holds a mail that could go now, for all that the time has to say."""
    now_unix_ms, outlook = facts.now_unix_ms, facts.outlook
    if facts.spool_refuses_since_unix_ms is not None:
        return Holding("spool_fault", "engine", "spool", facts.spool_refuses_since_unix_ms, None)
    if outlook is None:
        # Its destination's turn for an actor comes, within moments unless thousands are before it.
        return Holding("waiting_turn", "engine", "destinations", due_unix_ms, None)
    limit, since_unix_ms = _refusing(outlook, facts.ahead, now_unix_ms)
    if limit is None:
        next_unix_ms = _by_rate(outlook.rate_per_s, facts.ahead, now_unix_ms)
        turn = Holding("waiting_turn", "destination", destination, due_unix_ms, next_unix_ms)
        return _silenced(turn, outlook.silence)
    allowed_unix_ms = _allows_at(limit, facts.ahead + 1, now_unix_ms)
    if math.isinf(allowed_unix_ms):
        next_unix_ms = _by_rate(outlook.rate_per_s, max(1, facts.ahead), now_unix_ms)
    else:
        next_unix_ms = math.ceil(allowed_unix_ms)
    told = limit if isinstance(limit, Gate | TokenBucket | ConnectionLimit) else None
    return Holding(
        limit.code,
        limit.scope,
        limit.key,
        since_unix_ms,
        next_unix_ms,
        limit_text(limit),
        told.reply if told else "",
        Reason.THROTTLED if told and told.reply else None,
    )


def _silenced(held: Holding, silence: Silence | None) -> Holding:
    """Return the same of a server that does not answer: what it has goes on when it does."""
    if silence is None:
        return held
    return replace(
        held,
        since_unix_ms=silence.since_unix_ms,
        next_attempt_unix_ms=silence.until_unix_ms,
        is_silent=True,
    )


def _refusing(outlook: Outlook, ahead: int, now_unix_ms: int) -> tuple[Limit | None, int]:
    """Return the limit on the actor's path that says no to this mail, and since when it has."""
    flow_limit = flow_refusing(outlook.flow_path, ahead, now_unix_ms)
    if flow_limit is not None:
        return flow_limit, 0
    record = outlook.record
    since_unix_ms = outlook.throttled_since_unix_ms or 0
    if not since_unix_ms and record.cause == "rate_limit":
        since_unix_ms = record.since_unix_ms
    if since_unix_ms:
        # Between two tokens the bucket says yes, but to one who has fewer before him. And more
        # connections would be no help to an actor that waits for tokens.
        buckets = [each for each in outlook.path if not isinstance(each, ConnectionLimit)]
        limit = _last_to_allow(buckets, ahead + 1, now_unix_ms)
        if limit is not None:
            return limit, since_unix_ms
    return binding_limit(outlook.path, now_unix_ms)[0], since_unix_ms


def flow_refusing(path: Sequence[Limit], ahead: int, now_unix_ms: int) -> Limit | None:
    """Return the limit of a mail's account that says no to it, or to those of its own before it."""
    # Of those ahead some are others'. But a bucket that is full keeps nobody.
    refusing = [
        each
        for each in path
        if isinstance(each, TokenBucket) and each.whole_at(now_unix_ms) < min(ahead + 1, each.burst)
    ]
    return _last_to_allow(refusing, ahead + 1, now_unix_ms)


def _last_to_allow(path: Sequence[Limit], messages: int, now_unix_ms: int) -> Limit | None:
    """Return the limit that will be the last to have let so many pass; None if all would now."""
    ready = [(_allows_at(each, messages, now_unix_ms), each) for each in path]
    at_unix_ms, limit = max(ready, key=itemgetter(0), default=(now_unix_ms, None))
    return limit if at_unix_ms > now_unix_ms else None


def _allows_at(limit: Limit, messages: int, now_unix_ms: int) -> float:
    if isinstance(limit, TokenBucket):
        if limit.whole_at(now_unix_ms) >= messages:
            return now_unix_ms
        return mails_allowed_at(limit, messages, now_unix_ms)
    return limit.ready_at_unix_ms(now_unix_ms)


def _by_rate(rate_per_s: float, ahead: int, now_unix_ms: int) -> int | None:
    """Return when so many will have gone at the measured rate; None if nothing flows."""
    if ahead == 0:
        return now_unix_ms
    return math.ceil(now_unix_ms + ahead / rate_per_s * 1000.0) if rate_per_s > 0 else None
