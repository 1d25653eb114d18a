"""What the mails that wait at one destination wait for: each cause, how many it holds, its reply.

Each mail of a short queue has the verdict that it would have by itself; of a long one some are
looked at (`Spool.waiting_at`), and the counters say how many there are. Knows no words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from engine.delivery.holding import Facts, Gate, Holding, holding
from engine.spool.interface import DestinationRow, Spool
from engine.watch.destinations import PLACE_OF
from engine.watch.explain_facts import KnownFacts
from protocols.records import Account, Envelope, Reason, Status

# Mails of a destination that are looked at: a millisecond's worth.
LOOKED_AT_MAX: Final = 100
# Of what is the same for all that are due, the next one goes at this moment.
_BY_TURNS: Final = frozenset({"rate_limit", "waiting_turn", "connection_limit"})


@dataclass(slots=True)
class Cause:
    """`held` is what holds `count` mails, with the last reply, and when the first of them moves.

    `seq` is the place of that reply in the log.
    """

    held: Holding
    count: int
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Causes:
    """The most frequent first. Not exact where not all were looked at; the sum always is.

    `next_unix_ms` is when the first of all these mails moves, None if nobody can tell.
    """

    causes: Sequence[Cause]
    is_exact: bool
    next_unix_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of a destination's mails are meant, and how many of them are looked at."""

    account_id: int | None
    campaign: str | None = None
    limit: int = LOOKED_AT_MAX


async def causes_at(
    row: DestinationRow,
    whole: Holding,
    spool: Spool,
    facts: KnownFacts,
    wanted: Wanted,
    *,
    account: Account | None,
    row_next_unix_ms: int | None = None,
    release_unix_ms: int | None = None,
) -> Causes:
    """Return what holds the mails of `row`, which are those that are `wanted`, for a reader.

    `whole` is what holds the destination, and with it whatever was not looked at;
    `row_next_unix_ms` is when it is taken up again, `release_unix_ms` when the first paused mail is
    released.
    """
    of_all = facts.of_row(row, account)
    mails = await spool.waiting_at(
        row.destination,
        account_id=wanted.account_id,
        campaign=wanted.campaign,
        limit=wanted.limit,
    )
    found = {Status.QUEUED: dict[object, Cause](), Status.DEFERRED: dict[object, Cause]()}
    judge = _judge(of_all)
    # Most of a queue has one and the same verdict, which is added once.
    alike: dict[tuple[Status, int], Cause] = {}
    for envelope, known in facts.of_each(mails, of_all):
        held = judge(envelope, known)
        state = envelope.state
        if held is None or state.status not in found:
            continue
        cause = alike.setdefault((state.status, id(held)), Cause(held, 0))
        cause.count += 1
        cause.seq = max([cause.seq, *state.event_seqs[-1:]])
    for (status, _), cause in alike.items():
        _add(found[status], cause.held, cause.seq, cause.count)
    is_exact = True
    next_unix_ms: int | None = None
    sums: dict[object, Cause] = {}
    for status, causes in found.items():
        count = row.counts[PLACE_OF[status]]
        looked_at = sum(each.count for each in causes.values())
        is_exact &= looked_at == count
        if looked_at < count and (status is Status.DEFERRED or not looked_at):
            # Those that are due sooner were not looked at.
            next_unix_ms = row_next_unix_ms
        for cause in _scaled(causes, count, whole):
            _add(sums, cause.held, cause.seq, cause.count)
    paused = row.counts[PLACE_OF[Status.PAUSED]]
    if not is_exact and not paused and _is_counted(row, spool):
        _as_counted(sums, row.held.mails if row.held else 0)
    if paused:
        _add(sums, _of_paused(of_all, whole, release_unix_ms, account), 0, paused)
    in_order = sorted(sums.values(), key=lambda each: -each.count)
    for cause in in_order:
        if cause.held.scope != "envelope":
            continue
        if cause.count > 1:
            cause.held = replace(cause.held, key=row.destination)
        elif last := await spool.events_at([cause.seq]):
            cause.held = replace(cause.held, since_unix_ms=last[0].at_unix_ms)
    for cause in in_order:
        if cause.held.code == "waiting_turn" and cause.held.next_attempt_unix_ms is None:
            cause.held = replace(cause.held, next_attempt_unix_ms=row_next_unix_ms)
        next_unix_ms = earlier(next_unix_ms, cause.held.next_attempt_unix_ms)
    return Causes(in_order, is_exact, next_unix_ms)


def refined(whole: Holding, found: Causes, row: DestinationRow) -> Holding:
    """Return what holds a destination, as its mails have it where it is they who wait."""
    is_mails_own = whole.scope in ("envelope", "account", "campaign")
    own = [
        each
        for each in found.causes
        if each.held.code == whole.code
        and (whole.scope == "envelope" or _what(each.held) == _what(whole))
    ]
    if found.causes and (not own or (is_mails_own and whole.code != "retry_wait")):
        # Each mail was put off, though its actor is still there; or each waits for its own account.
        whole = found.causes[0].held
        if whole.scope == "envelope":
            whole = replace(whole, key=row.destination)
        own = [each for each in found.causes if each.held.code == whole.code]
    if whole.code != "retry_wait":
        return whole
    if not own:
        return _without_reply(whole)
    last = max(own, key=lambda each: each.seq).held
    # Of several reasons none is the one; they are told one by one.
    reason = last.reason if len(own) == 1 else None
    return replace(whole, reply=last.reply, reason=reason, since_unix_ms=last.since_unix_ms)


def _judge(of_all: Facts) -> Callable[[Envelope, Facts], Holding | None]:
    """Return what judges one mail after the other.

    Those of a flow that are due, or held for longer than that, are alike.
    """
    of_flow: dict[tuple[int, str | None, Gate | None], Holding | None] = {}

    def judge(envelope: Envelope, facts: Facts) -> Holding | None:
        fixed, state = envelope.fixed, envelope.state
        flow = (fixed.account_id, fixed.campaign, facts.hold)
        until_unix_ms = facts.hold.until_unix_ms if facts.hold else 0
        is_alike = state.due_unix_ms <= max(of_all.now_unix_ms, until_unix_ms)
        if is_alike and flow in of_flow:
            return of_flow[flow]
        held = holding(envelope, facts)
        if held is not None and held.code in _BY_TURNS:
            first = holding(envelope, replace(facts, ahead=0))
            assert first is not None, "what waits is held by something"
            held = replace(held, next_attempt_unix_ms=first.next_attempt_unix_ms)
        if is_alike:
            of_flow[flow] = held
        return held

    return judge


def _add(causes: dict[object, Cause], held: Holding, seq: int, count: int = 1) -> None:
    key = "" if held.scope == "envelope" else held.key
    name = (
        held.code,
        held.scope,
        key,
        held.limit,
        held.reason,
        held.note,
        held.is_own,
        held.is_silent,
    )
    cause = causes.get(name)
    if cause is None:
        causes[name] = Cause(held, count, seq)
        return
    cause.count += count
    known = cause.held
    last = held if seq > cause.seq else known
    cause.seq = max(seq, cause.seq)
    cause.held = replace(
        known,
        reply=last.reply or known.reply or held.reply,
        since_unix_ms=earlier(known.since_unix_ms or None, held.since_unix_ms or None) or 0,
        next_attempt_unix_ms=earlier(known.next_attempt_unix_ms, held.next_attempt_unix_ms),
    )


def earlier(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)


def _scaled(causes: dict[object, Cause], count: int, whole: Holding) -> list[Cause]:
    """Return the causes as many times as the counters say that there are mails."""
    looked_at = sum(each.count for each in causes.values())
    if not looked_at:
        return [Cause(_without_reply(whole), count)] if count else []
    scaled = [
        Cause(each.held, each.count * count // looked_at, each.seq) for each in causes.values()
    ]
    most = max(scaled, key=lambda each: each.count)
    most.count += count - sum(each.count for each in scaled)
    return [each for each in scaled if each.count > 0]


def _what(held: Holding) -> tuple[str, str, str]:
    return held.code, held.scope, held.key


def _is_counted(row: DestinationRow, spool: Spool) -> bool:
    """Say whether the counters have how many mails are held, and nothing else could be in the way.

    A hold with an end may be outlasted by a mail's own wait, and what holds mail by mail is not
    counted.
    """
    return all(
        hold.wanted.is_of_flow and hold.until_unix_ms is None
        for hold in spool.holds()
        if hold.wanted.fits_place(row.destination, row.record.site)
    )


def _as_counted(sums: dict[object, Cause], held: int) -> None:
    """Have holds come to `held` mails, and all else to the rest: flows differ in their length."""
    waiting = sum(each.count for each in sums.values())
    of_holds = [each for each in sums.values() if each.held.code == "hold"]
    others = [each for each in sums.values() if each.held.code != "hold"]
    groups = ((of_holds, held), (others, waiting - held))
    if any(bool(causes) is not bool(count) for causes, count in groups):
        return  # Of one kind nothing was looked at.
    for causes, count in groups:
        looked_at = sum(each.count for each in causes)
        for each in causes:
            each.count = each.count * count // looked_at
        for most in sorted(causes, key=lambda each: -each.count)[:1]:
            most.count += count - sum(each.count for each in causes)
    for name in [name for name, each in sums.items() if not each.count]:
        del sums[name]


def _without_reply(whole: Holding) -> Holding:
    # A destination remembers the last reply of all, which may be about anybody's mail.
    return replace(whole, reply="", reason=None) if whole.scope == "envelope" else whole


def _of_paused(
    of_all: Facts, whole: Holding, release_unix_ms: int | None, account: Account | None
) -> Holding:
    hold = of_all.hold
    if whole.code == "hold" and hold is not None and hold.until_unix_ms > (release_unix_ms or 0):
        return whole
    return Holding(
        "quota",
        "account",
        account.name if account else "",
        0,
        release_unix_ms,
        limit=of_all.quota,
        reason=Reason.QUOTA,
    )
