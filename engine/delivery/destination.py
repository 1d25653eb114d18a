"""One destination's actor: pulls its mail, keeps to its limits, feeds borrowed connections.

It is woken by name and pulls everything else itself. It is the second of the two places
that start tasks for others: each connection in use has a task in the actor's nursery. It
ends by storing a rest: when nothing is due, when its limits let nothing pass for a while,
when the destination cannot be reached, or when its turn is over and others wait.

Decides no wait of a single mail (`disposition`), opens no connection (`sessions`, `pool`) and
speaks no SMTP (`connection`); what failures add up to is `health`.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from engine.delivery.allowance import Allowance
from engine.delivery.health import Health
from engine.delivery.holding import Outlook
from engine.delivery.limits import Limit
from engine.delivery.mail import RECIPIENTS_PER_TRANSACTION_MAX, DestinationMail
from engine.delivery.meter import Meter
from engine.delivery.resolver import Unresolved
from engine.delivery.session import Session
from engine.delivery.sessions import Sessions
from engine.delivery.surroundings import DestinationStatistics, Surroundings
from engine.delivery.window import ENVELOPES_MAX, WindowSize
from engine.spool.interface import Rest
from protocols.outcomes import Delivered, Unattempted
from protocols.records import DestinationRecord, EnvelopeFixed
from protocols.transactions import EnvelopeOutcome, Transaction

# Limits of accounts, of which some may be ready at any moment, are looked at so often.
FLOWS_LOOK_S: Final = 0.05
# An actor with nothing to do stays so long for the next mail: a steady trickle then costs no
# rest and no new start for each mail.
LINGER_S: Final = 1.0
# An actor that others wait for keeps its place so long.
TURN_S: Final = 1.0
# A name may move; sessions that are opened later find its new hosts.
WAY_LIVES_S: Final = 60.0


class Destination:
    """The actor of one recipient domain. `run` once; see `scheduler.Actor`."""

    def __init__(self, name: str, around: Surroundings) -> None:
        self._name = name
        self.began_s = 0.0
        self._around = around
        self._allowance = Allowance(name, around)
        self._mail = DestinationMail(
            name, around.spool, around.clock, around.budget, lambda: self._changed.set()
        )
        self._health = Health(DestinationRecord(), around.backoff_ms)
        self._sessions = Sessions(self, name, around, self._allowance, self._health)
        self._meter = Meter()
        self._window = WindowSize()
        self._way_until_s = 0.0
        self._earliest_due_unix_ms: float = math.inf
        self._ending = False
        self._changed: trio.Event = trio.Event()
        self._more = trio.Event()

    # What the scheduler and the sessions ask and say.

    @property
    def is_ending(self) -> bool:
        """Whether no more mail is handed out; see `scheduler.Actor`."""
        return self._ending

    def wake(self, *, recall: bool = False) -> None:
        """New mail has come, or holds have changed: `recall` what is not with a server yet."""
        self._mail.wake(recall=recall)
        self._changed.set()

    def rules_changed(self) -> None:
        """Other rules hold from now on."""
        self.forget_way()
        self._changed.set()

    def sessions_changed(self) -> None:
        self._changed.set()

    def forget_way(self) -> None:
        """Ask again where the mail goes before more is sent."""
        self._way_until_s = 0.0

    def stop(self) -> None:
        """Hand out no more mail; what is in flight is waited for."""
        self._ending = True
        self._changed.set()

    async def run(self) -> int | None:
        """Deliver what is due and rest; return when to look again (wall milliseconds)."""
        around = self._around
        left, self.began_s = 0, trio.current_time()
        stored = await around.spool.destination(self._name)
        if stored is not None:
            self._health.take_up(stored)
        try:
            record = self._health.record
            if record.not_before_unix_ms <= around.clock.now_unix_ms():
                await self._set_rate()
                if not self._must_rest():
                    async with trio.open_nursery() as nursery:
                        await self._feed(nursery)
                        self._finish_sessions()
                        # At once: a session may take ten minutes more, and who waits behind it
                        # could neither expire nor be cancelled.
                        left = self._mail.give_back()
            self._ending = True
            is_more = left > 0 or self._mail.more_due or self._mail.next_due_unix_ms is not None
            self._allowance.store(self._health, self._now_unix_ms(), is_more=is_more)
        except BaseException:
            self._mail.give_back()
            self._mail.abandon()
            raise
        finally:
            self._allowance.leave()
        return await self._rest(left)

    def statistics(self) -> DestinationStatistics:
        state = "idle"
        if self._health.is_unreachable and not self._sessions.connected:
            state = "unreachable"
        elif self._allowance.holds_back(self._now_unix_ms()):
            state = "throttled"
        elif self._sessions.connected:
            state = "flowing"
        return DestinationStatistics(
            state,
            self._health.record.site,
            self._sessions.connected,
            self._mail.in_flight,
            self._mail.ready + self._mail.claimed,
            self._meter.rate_per_s(trio.current_time()),
            self._sessions.concurrency.allowed,
        )

    def outlook(self, mail: EnvelopeFixed | None, account_id: int | None = None) -> Outlook:
        """Say how this actor stands towards one of its mails, or all; no limit is charged.

        Of accounts' limits only those of `account_id` are told, if it is given.
        """
        now_unix_ms = self._now_unix_ms()
        path: list[Limit] = self._allowance.path_copied(now_unix_ms)
        reached = self._sessions.limit_reached(now_unix_ms)
        if self._mail.has_backlog and reached is not None:
            path.append(reached)
        if self._sessions.is_opening and self._allowance.wanted is not None:
            path += self._around.pool.limits_before(self._allowance.wanted)
        return Outlook(
            msgspec.structs.replace(self._health.record),
            self._mail.place_of(0 if mail is None else mail.envelope_id),
            tuple(path),
            self._allowance.refusals.since(now_unix_ms),
            self._sessions.connected,
            self._meter.rate_per_s(trio.current_time()),
            self._allowance.flow_path(
                mail,
                now_unix_ms,
                passing=self._mail.passing(now_unix_ms),
                account_id=account_id,
            ),
            self._sessions.silence(0 if mail is None else mail.envelope_id),
        )

    def _now_unix_ms(self) -> int:
        return self._around.clock.now_unix_ms()

    # Feeding.

    async def _feed(self, nursery: trio.Nursery) -> None:
        while not self._ending:
            self._changed = trio.Event()
            if not await self._find_way() or (not self._sessions.connected and self._must_rest()):
                return
            await self._fill()
            if self._ending:
                return
            self._open_sessions(nursery)
            if self._is_done() and not await self._linger():
                return
            turn_is_over = trio.current_time() - self.began_s >= TURN_S
            if turn_is_over and self._allowance.others_wait():
                self._give_up_place()
                return
            with trio.move_on_after(self._longest_wait_s()):
                await self._changed.wait()

    def _longest_wait_s(self) -> float:
        """Return after which time something has to be looked at though nothing has changed."""
        now_unix_ms = self._now_unix_ms()
        # Sessions look by themselves; this is for those that are not open yet, and for pulls.
        flows_s = max(FLOWS_LOOK_S, self._mail.flows_wait_s(now_unix_ms))
        expiry_s = max(0.0, self._mail.expires_unix_ms - now_unix_ms) / 1000.0
        return min(expiry_s, flows_s, TURN_S if self._allowance.is_crowded() else math.inf)

    def _give_up_place(self) -> None:
        """Rest behind those that were due before this moment, or until the site has room."""
        now_unix_ms = self._now_unix_ms()
        wanted, pool = self._allowance.wanted, self._around.pool
        if wanted is not None and not self._sessions.connected and pool.is_full(wanted, self._name):
            pool.park(wanted, self._name)
            self._health.park(now_unix_ms)
        else:
            self._health.hold_until(now_unix_ms, "", now_unix_ms)

    async def _find_way(self) -> bool:
        """Make sure that we know where the mail goes; False if it goes nowhere (now)."""
        is_held = self._mail.is_held(self._health.record.site)
        if is_held or trio.current_time() < self._way_until_s:
            return not is_held
        since_s = self._health.heard_since_s(self.began_s)
        way = await self._around.router.way_to(self._name, since_s=since_s)
        if isinstance(way, Unresolved):
            if self._sessions.connected:
                return True  # What is connected goes on; the next opening asks again.
            if way.permanent:
                await self._finish_all(way)
            else:
                self._health.name_failed(way.reason, way.text, self._now_unix_ms())
            return False
        self._way_until_s = trio.current_time() + WAY_LIVES_S
        self._health.record.site = way.site
        self._allowance.take_up(way, self._health.record.waits)
        self._mail.go_by(self._allowance.flows)
        self._sessions.set_ceiling(self._allowance.limits.connections_max)
        await self._set_rate()
        return not self._mail.is_held(way.site)

    async def _finish_all(self, verdict: Unresolved) -> None:
        """End all due mail of a destination that takes none, window by window."""
        record = self._health.record
        record.reply, record.reason = verdict.text, verdict.reason
        while self._mail.more_due and not self._ending:
            await self._mail.pull(ENVELOPES_MAX)
            await self._around.disposition.decide(
                self._mail.finish_claimed(verdict.status, verdict.reason, verdict.text)
            )

    async def _fill(self) -> None:
        """Claim mail and fetch content, as far as the sessions will soon need it."""
        mail = self._mail
        if mail.expires_unix_ms <= self._now_unix_ms():
            await self._around.disposition.decide(mail.expire())
        mail.look_when_due(self._now_unix_ms())
        if mail.more_due and mail.ready + mail.claimed - mail.limited < self._window.low:
            await mail.pull(self._next_window())
        # Content is only fetched for those who have a connection: who waits for one must not
        # hold memory that others could use.
        if not self._sessions.connected:
            mail.unpark()
        while (
            self._sessions.connected
            and mail.may_load
            and mail.ready - mail.limited < self._window.low
        ):
            finishes = await mail.load()
            self._give_more()
            await self._around.disposition.decide(finishes)
        self._give_more()

    def _next_window(self) -> int:
        size = self._window.next_size(
            trio.current_time(),
            connections=self._sessions.connected,
            is_crowded=self._around.is_crowded(),
        )
        # What the limits will not let pass soon stays in the spool, where it can be cancelled.
        return max(1, int(min(size, self._allowance.soon(self._now_unix_ms()))))

    def _give_more(self) -> None:
        mail = self._mail
        is_empty = not (mail.claimed or mail.ready)
        if self._sessions.idle and (is_empty or mail.passing(self._now_unix_ms())):
            self._more.set()
            self._more = trio.Event()

    def _open_sessions(self, nursery: trio.Nursery) -> None:
        """Have as many sessions as the mail here is worth."""
        if self._sessions.idle:
            return
        # What is known to be there: of a backlog in the spool, a window as large as this one.
        mail, now_unix_ms = self._mail, self._now_unix_ms()
        backlog = mail.has_backlog * self._window.envelopes
        here = mail.passing(now_unix_ms) + mail.claimed
        self._sessions.open(nursery, here + backlog, now_unix_ms)

    def _is_done(self) -> bool:
        return not self._sessions.connected and self._mail.is_empty and not self._mail.more_due

    async def _linger(self) -> bool:
        """Stay for a moment in case of new mail; return whether there is some."""
        if self._ending or self._allowance.others_wait():
            return False
        due_unix_ms = min(self._earliest_due_unix_ms, self._mail.next_due_unix_ms or math.inf)
        wait_s = (due_unix_ms - self._now_unix_ms()) / 1000.0
        with trio.move_on_after(min(max(wait_s, 0.0), LINGER_S)):
            await self._changed.wait()
        if due_unix_ms <= self._now_unix_ms():
            self._earliest_due_unix_ms = math.inf
            self.wake()
        return self._mail.more_due and not self._ending

    def _finish_sessions(self) -> None:
        """Let sessions end: those that wait at once, the others after what is in flight."""
        self._ending = True
        self._sessions.cancel_openings()
        self._more.set()

    # Limits.

    async def _set_rate(self) -> None:
        record = self._health.record
        if self._allowance.set_rate(record, self._now_unix_ms()):
            await self._around.disposition.decide([Rest(self._name, record)])

    def next_transaction(self, session: Session) -> Transaction | None:
        """Return what may go now; all limits are asked, then all are charged, without a wait."""
        mail = self._mail
        if self._ending or session.must_end:
            return None
        if not mail.ready:
            self._changed.set()
            return None
        allowed = min(self._around.disposition.room(), session.mails_left)
        now_unix_ms = self._now_unix_ms()
        whole = self._allowance.whole_at(now_unix_ms)
        if whole is not None:
            allowed = min(allowed, whole)
        if mail.limited:
            allowed = min(allowed, mail.bring_forward(now_unix_ms))
        if allowed <= 0:
            return None
        recipients_max = session.lease.connection.recipients_max or RECIPIENTS_PER_TRANSACTION_MAX
        transaction = mail.take(min(allowed, recipients_max))
        count = len(transaction.recipients)
        self._around.disposition.reserve(count)
        self._allowance.charge(count, now_unix_ms)
        session.lease.mails += count
        session.under_way.took(mail.expiries(transaction))
        if mail.ready - mail.limited < self._window.low and (mail.claimed or mail.more_due):
            self._changed.set()
        return transaction

    def must_leave(self, session: Session) -> bool:
        return self._sessions.must_leave(session)

    async def wait_for_work(self, session: Session) -> bool:
        """Wait until `session` can have another transaction; False when it had better end."""
        sessions = self._sessions
        sessions.idle += 1
        try:
            while not self._ending and not session.must_end:
                mail = self._mail
                if not (mail.ready or mail.claimed or mail.more_due):
                    return False
                if self._allowance.whole_at(self._now_unix_ms()) == 0:
                    # One waits for the limit on behalf of all.
                    if sessions.idle > 1 or not await self._wait_for_tokens():
                        return False
                elif not mail.passing(self._now_unix_ms()):
                    # For the limits of accounts, too, one waits on behalf of all.
                    if mail.ready and sessions.idle > 1:
                        return False
                    mail.look_when_due(self._now_unix_ms())
                    if mail.claimed or mail.more_due or not mail.ready:
                        self._changed.set()
                    with trio.move_on_after(mail.flows_wait_s(self._now_unix_ms())):
                        await self._more.wait()
                elif self._around.disposition.room() <= 0:
                    await self._around.disposition.wait_for_room()
                else:
                    return True
            return False
        finally:
            sessions.idle -= 1

    def _must_rest(self) -> bool:
        """Say whether a limit lets nothing pass for so long that the actor rests meanwhile."""
        now_unix_ms = self._now_unix_ms()
        rest = self._allowance.rest(now_unix_ms)
        if rest is not None:
            self._health.hold_until(*rest, now_unix_ms)
        return rest is not None

    async def _wait_for_tokens(self) -> bool:
        if self._must_rest():
            self.stop()
            return False
        now_unix_ms = self._now_unix_ms()
        # Not for each mail: a high rate would wake us as often.
        wait_ms = self._allowance.batch_ready_at_unix_ms(now_unix_ms) - now_unix_ms
        with trio.move_on_after(wait_ms / 1000.0):
            while not self._ending:
                await self._more.wait()
        return not self._ending

    # Outcomes.

    def handing_over(self, envelope_ids: Sequence[int]) -> None:
        self._around.spool.handing_over(self._mail.attempts(envelope_ids))

    def note_outcome(self, session: Session, result: EnvelopeOutcome) -> None:
        """Pass one outcome on and learn from it."""
        outcome = result.outcome
        envelope = self._mail.land(result.envelope_id)
        session.under_way.landed(result.envelope_id)
        due_unix_ms = self._around.disposition.report(envelope, outcome, session.peer)
        if isinstance(outcome, Delivered):
            self._sessions.concurrency.delivered(1)
            self._meter.count(trio.current_time())
            self._health.delivered()
            return
        if due_unix_ms:
            self._earliest_due_unix_ms = min(self._earliest_due_unix_ms, due_unix_ms)
        if isinstance(outcome, Unattempted):
            self._mail.look_again()
            return
        if self._allowance.hear(outcome):
            self._changed.set()
        if self._health.refused(outcome, self._now_unix_ms()):
            self.stop()

    # The end.

    async def _rest(self, left: int) -> int | None:
        record, now_unix_ms = self._health.record, self._now_unix_ms()
        if record.not_before_unix_ms <= now_unix_ms and not record.failures:
            record.cause, record.since_unix_ms = "", 0
        was_due = left > 0 or self._mail.more_due
        self._mail.more_due = False
        await self._around.disposition.decide([Rest(self._name, record)])
        if was_due or self._mail.more_due:
            return max(self._now_unix_ms(), record.not_before_unix_ms)
        due_unix_ms = min(self._earliest_due_unix_ms, self._mail.next_due_unix_ms or math.inf)
        return None if math.isinf(due_unix_ms) else max(int(due_unix_ms), record.not_before_unix_ms)
