"""All sessions of one destination: how many there are, who opens them, what their ends teach.

It is the actor's nursery that they run in; here is only what they do. Concurrency grows from
evidence: two connections at first, one more for each good cohort, fewer after failures. Knows
no mail but how much there is; which goes next is the actor's to say.
"""

import math
from dataclasses import replace
from typing import Final, Protocol

import trio

from engine.delivery.allowance import Allowance
from engine.delivery.health import Health
from engine.delivery.limits import Concurrency, ConnectionLimit, binding_limit
from engine.delivery.pool import Lease
from engine.delivery.session import Feeder, Session
from engine.delivery.surroundings import Surroundings
from engine.delivery.under_way import Silence
from protocols.outcomes import Deferred
from protocols.smtp_states import Stage

# A further connection is worth its handshakes from about so many mails on.
MAILS_PER_CONNECTION_MIN: Final = 20


class Owner(Feeder, Protocol):
    """The actor, as its sessions as a whole know it; it began at `began_s` (trio's clock)."""

    @property
    def began_s(self) -> float: ...

    def sessions_changed(self) -> None:
        """One more is open, or one less is."""
        ...

    def forget_way(self) -> None:
        """A host took no connection: the next opening asks again where the mail goes."""
        ...

    def stop(self) -> None: ...


class Sessions:
    """The sessions of one destination, open and being opened."""

    def __init__(
        self, owner: Owner, name: str, around: Surroundings, allowance: Allowance, health: Health
    ) -> None:
        self._owner = owner
        self._name = name
        self._around = around
        self._allowance = allowance
        self._health = health
        ceiling = allowance.limits.connections_max
        self._limit = ConnectionLimit("destination", name, ceiling)
        self.concurrency: Final = Concurrency(ceiling)
        # Sessions with a connection, and of those the ones without work; then those without one.
        self.connected = 0
        self.idle = 0
        self._leaving = 0
        self._opening: dict[trio.CancelScope, None] = {}
        self._open: dict[Session, None] = {}

    @property
    def count(self) -> int:
        """How many there are, those that have no connection yet among them."""
        return self.connected + len(self._opening)

    @property
    def is_opening(self) -> bool:
        return bool(self._opening)

    def set_ceiling(self, connections_max: int) -> None:
        self._limit.ceiling = self.concurrency.ceiling = connections_max

    def limit_reached(self, now_unix_ms: int) -> ConnectionLimit | None:
        """Return the ceiling, as it stands, if nothing but it keeps the number down."""
        if self.idle:
            return None
        taught = self._allowance.taught_connections(now_unix_ms)
        if taught is not None and taught.ceiling < self.concurrency.allowed:
            return replace(taught, open=self.count)
        ceiling = self._allowance.limits.connections_max
        if self.concurrency.allowed != ceiling:
            return None
        return replace(self._limit, open=self.count)

    def silence(self, envelope_id: int) -> Silence | None:
        """Return the silence of the server that has a mail, or else of all that are connected.

        Of those the one that is waited for least: behind it others go on.
        """
        for session in self._open:
            if envelope_id in session.under_way:
                return session.under_way.silence()
        silences = [session.under_way.silence() for session in self._open]
        known = [each for each in silences if each is not None]
        if not known or len(known) < len(silences):
            return None
        return min(known, key=lambda silence: silence.until_unix_ms)

    def open(self, nursery: trio.Nursery, mails: int, now_unix_ms: int) -> None:
        """Start as many sessions as so many mails are worth and the destination has earned."""
        worth = math.ceil(mails / MAILS_PER_CONNECTION_MIN)
        # While somebody is at work there, a failure only takes from what was earned; else one
        # connection shows first whether it was the only one.
        is_alone = self._health.is_doubtful and not self.connected
        allowed = 1 if is_alone else self.concurrency.allowed
        allowed = min(allowed, self._allowance.connections_allowed(now_unix_ms))
        while self.count < min(worth, allowed):
            self._limit.open = self.count
            if binding_limit([self._limit], now_unix_ms)[0] is not None:
                return
            is_first = self.count == 0
            scope = trio.CancelScope()
            self._opening[scope] = None
            nursery.start_soon(self._run, scope, is_first)

    def cancel_openings(self) -> None:
        for scope in self._opening:
            scope.cancel()

    def must_leave(self, session: Session) -> bool:
        """Say whether this connection is somebody else's by now, and note that it is to go."""
        if not session.is_leaving:
            is_last = self.connected - self._leaving <= 1
            if not session.gives_way(self._around.pool.slots, is_last=is_last):
                return False
            self._leaving += 1
            session.lease.site.leaving += 1
            session.is_leaving = True
        return True

    async def _run(self, scope: trio.CancelScope, is_first: bool) -> None:
        wanted = self._allowance.wanted
        assert wanted is not None
        opened: Lease | Deferred | None = None
        try:
            with scope:
                since_s = self._health.heard_since_s(self._owner.began_s)
                opened = await self._around.pool.borrow(
                    wanted, borrower=self._name, is_first=is_first, since_s=since_s
                )
        finally:
            self._opening.pop(scope)
            self._owner.sessions_changed()
        if isinstance(opened, Lease):
            await self._use(opened)
        elif opened is not None:
            self._owner.forget_way()
            self.concurrency.failed(self.connected)
            self._allowance.hear(opened)
            if self._health.opening_failed(
                opened, others=self.count, now_unix_ms=self._around.clock.now_unix_ms()
            ):
                self._owner.stop()

    async def _use(self, lease: Lease) -> None:
        self._health.opened()
        self.connected += 1
        mails_max = self._allowance.limits.messages_per_connection_max
        session = Session(self._owner, lease, self._around.clock, mails_max=mails_max)
        self._open[session] = None
        try:
            await session.run()
            cause = lease.connection.cause
            if session.mails_left <= 0 and cause is None:
                # Not in the background: receivers count a connection until it is closed, and its
                # successor would be one too many.
                await lease.connection.quit()
        finally:
            del self._open[session]
            self.connected -= 1
            self._leaving -= session.is_leaving
            lease.site.leaving -= session.is_leaving
            self._around.pool.give_back(lease, reuse=session.mails_left > 0)
            self._owner.sessions_changed()
        if cause is None or cause.stage is Stage.QUIT or session.was_stale:
            return
        self.concurrency.failed(self.connected)
        self._allowance.hear(cause)
        if self._health.session_ended(
            cause,
            was_good=session.was_good,
            others=self.count,
            now_unix_ms=self._around.clock.now_unix_ms(),
        ):
            self._owner.stop()
