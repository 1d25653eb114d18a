"""The law: what must be true of every run, whatever the receivers did and whenever the engine died.

Each function is one paragraph of it and returns its breaches, a line each. Every accepted mail has
its end; it was delivered as often as somebody said 250, and more than once only where nobody on our
side could know; what was refused was never delivered; the books balance; whoever resumes has missed
nothing; limits hold over every window. The times that it allows are derived from the run's own.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import islice, pairwise

import msgspec

from engine.config_values import Rate
from engine.spool.interface import Group
from protocols.records import FINAL_STATUSES, STATUSES, Envelope, Event, Reason, Status
from protocols.stream_frames import stream_event, uuid_text
from tests.simulation.campaigning import RATE
from tests.simulation.lives import Life
from tests.simulation.operating import OPERATED
from tests.simulation.peers import Taken
from tests.simulation.plan import ACCOUNT_RATES, CEILINGS, REGULARS, THROTTLES
from tests.simulation.run import Observed

Key = tuple[str, str]

# After the final dot a server has ten minutes; before it, who is silent loses what is too old.
IN_FLIGHT_S = 640.0
# An answer is on disk so soon, or the process died.
UNSETTLED_S = 8.0
# What a connection has in its pipe when a hold comes goes on; receivers here answer within this.
HOLD_FELT_S = 15.0
# What is in flight has ten seconds, what is said last two, and the port as much again.
STOPPING_S = 25.0
# A spool that cannot commit ends the process before anything else happens.
FAIL_STOP_S = 1.0
SITE_CEILING = 20
BUCKET_ROUNDING = 1e-3

# What becomes of mail to those who are never in any other mood.
WORDS = {
    "fast.test": (Status.DELIVERED, None),
    "nowhere.test": (Status.HARD_BOUNCED, Reason.NO_SUCH_DOMAIN),
    "no-mail.test": (Status.HARD_BOUNCED, Reason.NULL_MX),
    "dead.test": (Status.SOFT_BOUNCED, Reason.EXPIRED),
    "gone.test": (Status.SOFT_BOUNCED, Reason.EXPIRED),
    "silent.test": (Status.SOFT_BOUNCED, Reason.EXPIRED),
    "loop.test": (Status.SOFT_BOUNCED, Reason.EXPIRED),
    "never.test": (Status.SOFT_BOUNCED, Reason.EXPIRED),
}
OUT_OF_REACH = ("dead.test", "gone.test", "silent.test", "loop.test")


def faults_of(seen: Observed) -> list[str]:
    """Return every breach; an empty list is the law kept."""
    faults = [*seen.faults, *seen.steps.faults, *seen.follower.faults]
    for paragraph in PARAGRAPHS:
        faults += [f"{paragraph.__name__[1:]}: {fault}" for fault in paragraph(seen)]
    return faults


def _what_was_accepted_is_there(seen: Observed) -> Iterator[str]:
    """Answered yes: one envelope each, with the identifiers of the answer. Refused: none."""
    there: dict[Key, list[Envelope]] = defaultdict(list)
    for envelope in seen.envelopes:
        there[_key(envelope)].append(envelope)
    for request in seen.world.requests:
        answer = seen.answers[request.number]
        found = [there.get(key, []) for key in request.good]
        if any(len(each) > 1 for each in found):
            yield f"request {request.number} is stored more than once"
        stored = sum(map(len, found))
        if answer.status in (200, 400):
            for key in request.good:
                identifiers = [(e.fixed.envelope_id, uuid_text(e.fixed.uuid)) for e in there[key]]
                if identifiers != [answer.accepted.get(key)]:
                    yield f"{key} was answered {answer.accepted.get(key)}, stored is {identifiers}"
        elif stored not in ((0, len(request.good)) if answer.is_in_doubt else (0,)):
            yield f"request {request.number} was not accepted, {stored} of its mails are stored"
        for key in request.good:
            there.pop(key, None)
    for campaign in seen.campaigns:
        for recipient in campaign.plan.people:
            there.pop((campaign.plan.name, recipient), None)
    yield from (f"{key} is stored and nobody handed it in" for key in there if there[key])


def _every_mail_has_its_end(seen: Observed) -> Iterator[str]:
    finals = Counter(event.envelope_id for event in seen.events if _is_final(event))
    for envelope in seen.envelopes:
        fixed, state = envelope.fixed, envelope.state
        if state.status not in FINAL_STATUSES:
            yield f"{_key(envelope)} is still {state.status}, due {state.due_unix_ms}"
        elif finals[fixed.envelope_id] != 1:
            yield f"{_key(envelope)} has {finals[fixed.envelope_id]} final events"


def _delivered_is_what_a_receiver_said(seen: Observed) -> Iterator[str]:
    """`delivered` has a 250 behind it, from before; and every 250 that was heard has its status."""
    taken = _taken_by_key(seen)
    for event, envelope in _final_events(seen):
        answered = [each for each in taken[_key(envelope)] if each.answered_s is not None]
        if event.status is Status.DELIVERED:
            by_then = [
                each for each in answered if _unix_ms(seen, each.answered_s) <= event.at_unix_ms
            ]
            if not by_then:
                yield f"{_key(envelope)} is delivered and no receiver had said so"


def _nothing_else_is_delivered(seen: Observed) -> Iterator[str]:
    """What was refused, to a sender or in the stored status, is with no receiver."""
    known = {_key(envelope): envelope for envelope in seen.envelopes}
    finals = {envelope.fixed.envelope_id: event for event, envelope in _final_events(seen)}
    for key, taken in _taken_by_key(seen).items():
        envelope = known.get(key)
        if envelope is None:
            yield f"{key} was delivered and never accepted"
            continue
        final = finals.get(envelope.fixed.envelope_id)
        for each in taken:
            if each.digest not in seen.contents[key]:
                yield f"{key} arrived with other octets than were stored"
            # A dead process' octets may still arrive after the next life has ended the mail.
            is_late = final is not None and _unix_ms(seen, each.began_s) > final.at_unix_ms
            if is_late and final is not None and _started_in(final, each.life):
                yield f"{key} was sent again after its end, {final.status}"


def _twice_only_if_nobody_could_know(seen: Observed) -> Iterator[str]:
    """A second copy needs a first whose 250 was lost, with its connection or with the process."""
    attempts: dict[int, list[Event]] = defaultdict(list)
    for event in seen.events:
        if event.attempt:
            attempts[event.envelope_id].append(event)
    known = {_key(envelope): envelope for envelope in seen.envelopes}
    for key, taken in _taken_by_key(seen).items():
        for each in taken[:-1]:
            if each.answered_s is None or not each.is_clear or key not in known:
                continue
            life = each.life
            committed = [
                event
                for event in attempts[known[key].fixed.envelope_id]
                if _started_in(event, life) and event.at_unix_ms >= _unix_ms(seen, each.at_s)
            ]
            waited_s = life.ended_s - each.answered_s
            if not life.has_crashed or committed or waited_s > UNSETTLED_S:
                yield f"{key} was taken over and answered at {each.at_s:.3f}, and sent again"


def _what_may_be_twice_is_told(seen: Observed) -> Iterator[str]:
    """Between two copies the log says of the first that nobody knows what became of it."""
    told: dict[int, list[int]] = defaultdict(list)
    for event in seen.events:
        if event.reason is Reason.OUTCOME_UNKNOWN:
            told[event.envelope_id].append(event.at_unix_ms)
    known = {_key(envelope): envelope.fixed.envelope_id for envelope in seen.envelopes}
    for key, taken in _taken_by_key(seen).items():
        for first, second in pairwise(taken):
            if not first.is_clear or key not in known:
                continue  # What was said on a wire like that is no reply, and told as such.
            from_unix_ms, until_unix_ms = _unix_ms(seen, first.at_s), _unix_ms(seen, second.at_s)
            if not any(from_unix_ms <= at <= until_unix_ms for at in told[known[key]]):
                yield f"{key} was taken over at {first.at_s:.3f} and again, and nobody was told"


def _books_balance(seen: Observed) -> Iterator[str]:
    """Over the eight statuses, by each grouping, for everybody and for each account."""
    by_account: dict[str | None, Counter[Status]] = defaultdict(Counter)
    for envelope in seen.envelopes:
        by_account[None][envelope.state.status] += 1
        by_account[envelope.fixed.account][envelope.state.status] += 1
    for (account, group), rows in seen.statistics.items():
        sums = tuple(map(sum, zip(*(row.counts for row in rows), strict=True)))
        wanted = tuple(by_account[account][status] for status in STATUSES)
        if any(wanted) and sums != wanted:
            yield f"statistics of {account or 'all'} by {group.value}: {sums}, mails: {wanted}"


def _resuming_misses_nothing(seen: Observed) -> Iterator[str]:
    log = [msgspec.to_builtins(stream_event(event, seen.stream_id)) for event in seen.events]
    if seen.follower.seen != log:
        pairs = zip(seen.follower.seen, log, strict=False)
        differ = next((n for n, (told, kept) in enumerate(pairs) if told != kept), None)
        yield (
            f"the subscriber has seen {len(seen.follower.seen)} events of {len(log)}; the first"
            f" that differs is {differ}"
        )


def _no_mail_grows_too_old(seen: Observed) -> Iterator[str]:
    """Expiry comes neither early nor late; nothing begins after it."""
    promise_ms = round(seen.world.span.housekeeping_s * 1000) + 4000
    for event, envelope in _final_events(seen):
        expires = envelope.state.expires_unix_ms
        late_ms = event.at_unix_ms - _awake_unix_ms(seen, expires, promise_ms)
        if event.reason is Reason.EXPIRED and event.at_unix_ms < expires:
            yield f"{_key(envelope)} expired {expires - event.at_unix_ms} ms early"
        if late_ms > (round(IN_FLIGHT_S * 1000) if event.attempt else promise_ms):
            yield f"{_key(envelope)} has its end {late_ms} ms too late: {event.reply}"
    known = {_key(envelope): envelope for envelope in seen.envelopes}
    for key, taken in _taken_by_key(seen).items():
        for each in taken:
            if key not in known:
                continue
            late_ms = _unix_ms(seen, each.began_s) - known[key].state.expires_unix_ms
            if late_ms > promise_ms:
                yield f"{key} was sent {late_ms} ms after its time was over"


def _attempts_are_counted(seen: Observed) -> Iterator[str]:
    """From one, one by one, none before its time; a destination out of reach costs none."""
    counts: Counter[int] = Counter()
    due: dict[str, list[Event]] = defaultdict(list)
    recipients = {e.fixed.envelope_id: e.fixed.recipient for e in seen.envelopes}
    for event in seen.events:
        if event.attempt:
            counts[event.envelope_id] += 1
            if event.attempt != counts[event.envelope_id]:
                yield f"event {event.seq} is of attempt {event.attempt}, others before it are not"
        due[recipients[event.envelope_id]].append(event)
    for asked in seen.world.notebook.asked:
        if asked.recipient in REGULARS:
            continue  # Which of its mails it was, nobody can say.
        at_unix_ms = _unix_ms(seen, asked.at_s)
        known = [event for event in due[asked.recipient] if event.at_unix_ms < at_unix_ms]
        if any(at_s <= asked.at_s for at_s in seen.operator.retries.get(asked.domain, ())):
            continue  # Somebody has made it due by hand, which has no event.
        early_ms = known[-1].next_attempt_unix_ms - at_unix_ms if known else 0
        # What a dead process had sent may be read when the next one has deferred it already.
        if early_ms > 0 and _started_in(known[-1], asked.life):
            yield f"{asked.recipient} was tried {early_ms} ms before its time"


def _each_kind_of_trouble_has_its_word(seen: Observed) -> Iterator[str]:
    called_off = {each.plan.name for each in seen.campaigns if each.plan.is_cancelled}
    for envelope in seen.envelopes:
        wanted = WORDS.get(envelope.fixed.destination)
        state = envelope.state
        is_called_off = state.status is Status.CANCELLED and envelope.fixed.campaign in called_off
        if state.status is Status.BLOCKED or is_called_off:
            continue
        if wanted is not None and (state.status, state.reason) != wanted:
            yield f"{_key(envelope)} is {state.status}, {state.reason}: {state.reply}"
        if envelope.fixed.destination in OUT_OF_REACH and (state.attempts or not state.reply):
            yield f"{_key(envelope)} has {state.attempts} attempts and the reply {state.reply!r}"


def _a_bounced_address_is_left_alone(seen: Observed) -> Iterator[str]:
    """What comes after a hard bounce to the same address is blocked, and nothing else is."""
    bounced: dict[tuple[str, str], int] = {}
    for event, envelope in _final_events(seen):
        if event.status is Status.HARD_BOUNCED:
            bounced.setdefault((event.account, envelope.fixed.recipient), event.seq)
    taken = _taken_by_key(seen)
    for envelope in seen.envelopes:
        fixed, state = envelope.fixed, envelope.state
        bounced_seq = bounced.get((fixed.account, fixed.recipient))
        is_after = bounced_seq is not None and bounced_seq < state.event_seqs[0]
        if is_after != (state.status is Status.BLOCKED):
            yield f"{_key(envelope)} is {state.status}, its address bounced at event {bounced_seq}"
        if state.status is Status.BLOCKED and (state.attempts or taken[_key(envelope)]):
            yield f"{_key(envelope)} is blocked and was tried"


def _what_is_held_stays(seen: Observed) -> Iterator[str]:
    """No mail is offered to a held destination, but for what was with a connection already."""
    for span in seen.operator.spans:
        for asked in seen.world.notebook.asked:
            # The engine counts whole milliseconds.
            is_meanwhile = span.from_s + HOLD_FELT_S < asked.at_s < span.until_s - 0.002
            is_alive = asked.at_s < asked.life.ended_s
            if is_meanwhile and is_alive and asked.domain == span.destination:
                after_s = asked.at_s - span.from_s
                yield f"{asked.recipient} was tried {after_s:.1f} s after its destination was held"


def _limits_hold(seen: Observed) -> Iterator[str]:
    """The rate over every window, crash or no crash; the ceilings at every moment."""
    for domains, text in THROTTLES.items():
        times = [each.at_s for each in seen.world.notebook.asked if each.domain in domains]
        yield from islice(_over_rate(Rate.parse(text), times), 1)
    for account, text in ACCOUNT_RATES.items():
        # Who sends is not seen on the wire; these recipients have mail from nobody else.
        senders: dict[str, set[str]] = defaultdict(set)
        for request in seen.world.requests:
            for _, recipient in request.good:
                senders[recipient].add(request.account)
        asked = seen.world.notebook.asked
        times = [each.at_s for each in asked if senders.get(each.recipient) == {account}]
        yield from islice(_over_rate(Rate.parse(text), times), 1)
    for address, peak in seen.world.notebook.connections_peak.items():
        ceiling = CEILINGS.get(seen.world.receivers[address].name, SITE_CEILING)
        if peak > ceiling:
            yield f"{peak} connections to {address} at once, the ceiling is {ceiling}"


def _it_ends_when_it_should(seen: Observed) -> Iterator[str]:
    """In time when asked to, and at once when a commit has failed."""
    for life in seen.lives:
        if life.stopping_s is not None and life.ended_s - life.stopping_s > STOPPING_S:
            yield f"life {life.number} took {life.ended_s - life.stopping_s:.1f} s to stop"
        if life.failed_s is not None and life.ended_s - life.failed_s > FAIL_STOP_S:
            yield f"life {life.number} went on after a failed commit"


def _over_rate(rate: Rate, times: list[float]) -> Iterator[str]:
    """Return the windows between any two of these moments that hold more than the rate allows."""
    for first, begin_s in enumerate(times):
        for last in range(first, len(times)):
            width_s = times[last] - begin_s
            if last - first + 1 > rate.burst + rate.per_s * width_s + BUCKET_ROUNDING:
                yield f"{last - first + 1} in {width_s:.3f} s from {begin_s:.3f} on, against {rate}"


def _quota_is_exact(seen: Observed) -> Iterator[str]:
    days = Counter(
        envelope.state.release_day
        for envelope in seen.envelopes
        # Cancelled while it waited, it has given its place to another.
        if envelope.fixed.account == "small"
        and envelope.state.status not in (Status.CANCELLED, Status.BLOCKED)
    )
    for day, count in days.items():
        if count > seen.world.small_per_day:
            yield f"{count} mails on day {day}, the plan has {seen.world.small_per_day}"


def _a_campaign_is_what_its_sender_said(seen: Observed) -> Iterator[str]:
    """Each address has one mail, none is missing once a list was answered for, counts are exact."""
    for campaign in seen.campaigns:
        plan = campaign.plan
        yield from campaign.faults
        own = [each for each in seen.envelopes if each.fixed.campaign == plan.name]
        counts = Counter(envelope.fixed.recipient for envelope in own)
        yield from (f"{plan.name}: {who} has {n} mails" for who, n in counts.items() if n > 1)
        yield from (f"{plan.name}: {who} was not in it" for who in counts.keys() - {*plan.people})
        if campaign.is_complete and len(counts) != len({*plan.people}):
            yield f"{plan.name}: {len(counts)} mails for {len({*plan.people})} people"
        stored = seen.stored_campaigns.get(plan.name)
        if stored is None or stored.accepted != len(own):
            yield f"{plan.name}: the spool has {stored}, there are {len(own)} mails"
        rows = seen.statistics[None, Group.CAMPAIGN]
        told = next((row.counts for row in rows if row.key == plan.name), (0,) * len(STATUSES))
        by_status = Counter(envelope.state.status for envelope in own)
        if told != tuple(by_status[status] for status in STATUSES):
            yield f"{plan.name}: the books say {told}, its mails {by_status}"


def _a_campaign_stands_still_when_it_is_told_to(seen: Observed) -> Iterator[str]:
    """Paused or cancelled, nothing of it goes but what was with a connection; its rate holds."""
    for campaign in seen.campaigns:
        people = {*campaign.plan.people}
        asked = [each for each in seen.world.notebook.asked if each.recipient in people]
        for each in asked:
            if each.at_s >= each.life.ended_s:
                continue  # The dead: what they had sent is read by and by.
            if campaign.paused_s + HOLD_FELT_S < each.at_s < campaign.resumed_s:
                yield f"{each.recipient} was tried at {each.at_s:.1f}, its campaign is paused"
            if each.at_s > campaign.cancelled_s + HOLD_FELT_S:
                yield f"{each.recipient} was tried at {each.at_s:.1f}, its campaign is cancelled"
        yield from islice(_over_rate(Rate.parse(RATE), [each.at_s for each in asked]), 1)
        for event, envelope in _final_events(seen):
            is_own = envelope.fixed.campaign == campaign.plan.name
            early = event.at_unix_ms < _unix_ms(seen, min(campaign.cancel_asked_s, 1e12))
            if is_own and event.status is Status.CANCELLED and early:
                domain = envelope.fixed.destination
                if domain not in OPERATED:
                    yield f"{_key(envelope)} was cancelled before anybody asked for it"


PARAGRAPHS: tuple[Callable[[Observed], Iterator[str]], ...] = (
    _what_was_accepted_is_there,
    _every_mail_has_its_end,
    _delivered_is_what_a_receiver_said,
    _nothing_else_is_delivered,
    _twice_only_if_nobody_could_know,
    _what_may_be_twice_is_told,
    _books_balance,
    _resuming_misses_nothing,
    _no_mail_grows_too_old,
    _attempts_are_counted,
    _each_kind_of_trouble_has_its_word,
    _a_bounced_address_is_left_alone,
    _what_is_held_stays,
    _limits_hold,
    _quota_is_exact,
    _a_campaign_is_what_its_sender_said,
    _a_campaign_stands_still_when_it_is_told_to,
    _it_ends_when_it_should,
)


def _key(envelope: Envelope) -> Key:
    return envelope.fixed.subject, envelope.fixed.recipient


def _is_final(event: Event) -> bool:
    return event.kind == "status" and event.status in FINAL_STATUSES


def _final_events(seen: Observed) -> Iterator[tuple[Event, Envelope]]:
    known = {envelope.fixed.envelope_id: envelope for envelope in seen.envelopes}
    for event in seen.events:
        if _is_final(event):
            yield event, known[event.envelope_id]


def _taken_by_key(seen: Observed) -> dict[Key, list[Taken]]:
    taken: dict[Key, list[Taken]] = defaultdict(list)
    for each in seen.world.notebook.taken:
        taken[each.key].append(each)
    return taken


def _unix_ms(seen: Observed, at_s: float | None) -> int:
    assert at_s is not None
    return seen.world.start_unix_ms + int(at_s * 1000.0)


def _started_in(event: Event, life: Life) -> bool:
    # The first start made the accounts, before the first life.
    return event.start_count == life.number + 1


def _awake_unix_ms(seen: Observed, unix_ms: int, for_ms: int) -> int:
    """Return the first moment from `unix_ms` on at which the engine had so long to live."""
    for life in seen.lives:
        begin_unix_ms = max(unix_ms, _unix_ms(seen, life.began_s))
        if _unix_ms(seen, life.ended_s) >= begin_unix_ms + for_ms:
            return begin_unix_ms
    return unix_ms
