"""Connections outlive the destination that opened them: borrowed, given back, reused, closed.

A connection belongs to (egress source, MX address, TLS policy) and serves every destination
with a host there. Owns the choice of host and address, what is remembered about bad
addresses and failed TLS, the idle ones, and their end. Who may have one at all is `slots`;
what is said on one is `connection`.
"""

import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from engine.delivery.connection import Connection
from engine.delivery.limits import Limit
from engine.delivery.routes import NextHost, Way
from engine.delivery.slots import Site, Slots
from engine.delivery.target import Target
from protocols.mx import in_trying_order
from protocols.outcomes import Deferred
from protocols.smtp_states import Stage
from protocols.transactions import TlsPolicy

# Long enough for the next mail of a steady trickle, short enough that receivers do not mind.
IDLE_S: Final = 10.0
# One opening tries so many addresses at most: RFC 5321 5.1 asks for two at least, and each can
# cost a connect timeout.
ADDRESSES_TRIED_MAX: Final = 10
# An address that failed is tried after all others for this long.
BAD_ADDRESS_S: Final = 120.0
# A server whose TLS failed is spoken to in the clear for this long, if the policy allows.
BROKEN_TLS_S: Final = 3600.0
# What one destination learned about a dead site holds for the others so long. Short, because it
# only has to spare a queue of them the same connect timeout one after the other.
SITE_DOWN_S: Final = 5.0
# A route's next hop stands for many receivers and is the operator's own.
ROUTE_CONNECTIONS_FACTOR: Final = 10
# QUIT is said politely; its answer is not worth more than this.
QUIT_S: Final = 2.0
# Addresses and sites remembered as bad; beyond it the oldest are forgotten.
BAD_ADDRESSES_MAX: Final = 10_000


# Opens a connection that is ready for mail, or says why there is none.
Opener = Callable[[Target], Awaitable[Connection | Deferred]]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a connection is good for."""

    source: str  # the local address, "" for the system's choice
    address: str
    port: int
    tls: TlsPolicy


@dataclass(eq=False, slots=True)
class Lease:
    """A connection and the place that it takes; one borrower at a time."""

    connection: Connection
    kind: Kind
    site: Site["Lease"]
    mails: int = 0  # handed to it so far, by whomever


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a destination can use: its way under a TLS policy, and the kinds that follow.

    `kinds` are in the order of preference.
    """

    way: Way
    tls: TlsPolicy
    site_connections_max: int
    kinds: tuple[Kind, ...]

    @classmethod
    def of(cls, way: Way, tls: TlsPolicy, site_connections_max: int, source: str) -> "Wanted":
        kinds = tuple(
            Kind(source, address, host.port, tls)
            for host in way.hosts
            for address in host.addresses
        )
        return cls(way, tls, site_connections_max, kinds)


@dataclass(eq=False, slots=True)
class _Idle:
    lease: Lease
    until_s: float
    is_taken: bool = False


@dataclass(frozen=True, slots=True)
class _Down:
    """A site where nothing answered: who found out, when, and what was heard."""

    found_by: str
    found_s: float
    failure: Deferred


@dataclass(eq=False, slots=True)
class _Known:
    """What is remembered about addresses and sites; times are trio's clock."""

    bad: dict[tuple[str, int], float] = field(default_factory=dict)
    plain: dict[tuple[str, int], float] = field(default_factory=dict)
    down: dict[str, _Down] = field(default_factory=dict)


class Pool:
    """All connections for delivery. `run` closes what is no longer wanted."""

    def __init__(
        self,
        opener: Opener,
        rand: random.Random,
        *,
        connections_max: int,
        ehlo_name: str,
        source: str | None = None,
        idle_s: float = IDLE_S,
        on_room: Callable[[str], bool],
        learned_ceiling: Callable[[str], int | None] = lambda site: None,
    ) -> None:
        """`on_room` wakes a destination that was parked; it says whether that was of use.

        `learned_ceiling` is how many connections a site's replies allow, if they said.
        """
        self._learned_ceiling = learned_ceiling
        self._open = opener
        self._on_room = on_room
        self._parked: dict[str, dict[str, None]] = {}
        # How many places each borrower has in which a connection is being opened.
        self._opening_for: Counter[str] = Counter()
        self._rand = rand
        self._ehlo_name = ehlo_name
        self._source = source
        self._idle_s = idle_s
        self.slots: Slots[Lease] = Slots(connections_max, discard=_drop)
        self._idle: dict[Kind, list[_Idle]] = {}
        self._oldest: deque[_Idle] = deque()
        self._to_close: deque[Lease] = deque()
        self._known = _Known()
        self._quitting = 0
        self._has_quit = trio.Event()
        self._work = trio.Event()

    def wanted(self, way: Way, tls: TlsPolicy, site_connections_max: int) -> Wanted:
        if way.routed:
            site_connections_max *= ROUTE_CONNECTIONS_FACTOR
        return Wanted.of(way, tls, site_connections_max, self._source or "")

    async def borrow(
        self, wanted: Wanted, *, borrower: str, is_first: bool, since_s: float = float("-inf")
    ) -> Lease | Deferred:
        """Return a connection for `borrower`, or why none could be opened.

        Waits for a place; `is_first` says that the borrower has none yet. What others found out
        about the site before `since_s` (trio's clock) does not count. What is borrowed goes to
        `give_back`, whatever happens.
        """
        # Whoever gave up before he came here may be parked by now, and must stay so.
        await trio.lowlevel.checkpoint_if_cancelled()
        name = wanted.way.site
        if name in self._parked:
            self._parked[name].pop(borrower, None)
        lease = self._take_idle(wanted)
        if lease is not None:
            return lease
        down = self._known.down.get(name)
        if down is not None and _counts(down, borrower, since_s):
            return down.failure
        site = self.site_of(wanted)
        if not self.slots.take_nowait(site):
            self._make_room(site)
            handed = await self.slots.wait_take(site, frozenset(wanted.kinds), is_first=is_first)
            if handed is not None:
                return handed
        opened: Lease | Deferred | None = None
        site.opening += 1
        self._opening_for[borrower] += 1
        try:
            down = self._known.down.get(name)
            if down is not None and _counts(down, borrower, since_s):
                return down.failure
            opened = await self._open_one(wanted, site)
            if isinstance(opened, Lease):
                self._known.down.pop(name, None)
            elif site.limit.open == site.opening:
                # Nobody has a connection there: what we heard holds for all who wait for one.
                self._known.down.pop(name, None)
                self._known.down[name] = _Down(borrower, trio.current_time(), opened)
                if len(self._known.down) > BAD_ADDRESSES_MAX:
                    del self._known.down[next(iter(self._known.down))]
        finally:
            site.opening -= 1
            self._opening_for[borrower] -= 1
            if not self._opening_for[borrower]:
                del self._opening_for[borrower]
            if not isinstance(opened, Lease):
                self.slots.give_back(site)
        return opened

    def site_of(self, wanted: Wanted) -> Site[Lease]:
        """Return the site that is wanted, with the ceiling that holds now."""
        ceiling = wanted.site_connections_max
        learned = None if wanted.way.routed else self._learned_ceiling(wanted.way.site)
        return self.slots.site(
            wanted.way.site, ceiling if learned is None else min(ceiling, learned)
        )

    def is_full(self, wanted: Wanted, borrower: str) -> bool:
        """Whether the site has as many connections as it may have, so that borrowing takes long.

        Not for a borrower that one of them is being opened for.
        """
        limit = self.site_of(wanted).limit
        return limit.open >= limit.ceiling and borrower not in self._opening_for

    def limits_before(self, wanted: Wanted) -> Sequence[Limit]:
        """Return the limits, as they are now, that those who wait for this site's places ask."""
        return self.slots.limits_before(wanted.way.site)

    def park(self, wanted: Wanted, name: str) -> None:
        """Remember a destination that waits for its site without an actor.

        A site wakes its domains one by one: there can be ten thousand of them, and they would
        take the places of all others.
        """
        self._parked.setdefault(wanted.way.site, {})[name] = None

    def give_back(self, lease: Lease, *, reuse: bool) -> None:
        """Take a connection back: for the next borrower, for later, or to be closed."""
        self._take_back(lease, reuse=reuse)
        name = lease.site.limit.key
        parked = self._parked.get(name)
        while parked and not lease.site.has_waiters:
            destination = next(iter(parked))
            del parked[destination]
            if self._on_room(destination):
                break
        if parked is not None and not parked:
            del self._parked[name]

    def _take_back(self, lease: Lease, *, reuse: bool) -> None:
        if not lease.connection.is_open:
            lease.connection.close()
            self.slots.give_back(lease.site)
        elif not reuse or lease.site.has_too_many:
            self._close(lease)
        elif not self.slots.hand_on(lease.site, lease.kind, lease):
            if lease.site.has_waiters or self.slots.is_full:
                self._close(lease)
                return
            idle = _Idle(lease, trio.current_time() + self._idle_s)
            self._idle.setdefault(lease.kind, []).append(idle)
            self._oldest.append(idle)
            self._work.set()

    async def run(self) -> None:
        """Close idle connections in time; when cancelled, drop what is left."""
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    while self._to_close:
                        nursery.start_soon(self._quit, self._to_close.popleft())
                    self._work = trio.Event()
                    with trio.move_on_at(self._close_expired()):
                        await self._work.wait()
        finally:
            while self._oldest:
                idle = self._oldest.popleft()
                if not idle.is_taken:
                    idle.lease.connection.close()
            for lease in self._to_close:
                lease.connection.close()

    async def close_idle(self) -> None:
        """Take leave on all connections that nobody uses, and wait for it, within a limit."""
        while self._oldest:
            self._close_oldest()
        with trio.move_on_after(QUIT_S):
            while self._quitting or self._to_close:
                self._has_quit = trio.Event()
                await self._has_quit.wait()

    @property
    def idle(self) -> int:
        return sum(map(len, self._idle.values()))

    # Idle ones.

    def _take_idle(self, wanted: Wanted) -> Lease | None:
        if not self._idle:
            return None
        for kind in wanted.kinds:
            stack = self._idle.get(kind)
            while stack:
                idle = stack.pop()
                if not stack:
                    del self._idle[kind]
                idle.is_taken = True
                if idle.lease.connection.is_open:
                    return idle.lease
                self.slots.give_back(idle.lease.site)
        return None

    def _close_oldest(self) -> None:
        idle = self._oldest.popleft()
        if idle.is_taken:
            return
        idle.is_taken = True
        stack = self._idle[idle.lease.kind]
        stack.remove(idle)
        if not stack:
            del self._idle[idle.lease.kind]
        self._close(idle.lease)

    def _close_expired(self) -> float:
        """Close what has been idle for too long; return when to look again (trio's clock)."""
        now_s = trio.current_time()
        while self._oldest and (self._oldest[0].is_taken or self._oldest[0].until_s <= now_s):
            self._close_oldest()
        return self._oldest[0].until_s if self._oldest else float("inf")

    def _make_room(self, site: Site[Lease]) -> None:
        """Close an idle connection that stands in the way of one that is wanted now."""
        if self.slots.is_full:
            while self._oldest:
                was_taken = self._oldest[0].is_taken
                self._close_oldest()
                if not was_taken:
                    return
        elif site.limit.open >= site.limit.ceiling:
            for idle in self._oldest:
                if idle.lease.site is site and not idle.is_taken:
                    # To the front, so that it is the oldest: this is rare and the queue short.
                    self._oldest.remove(idle)
                    self._oldest.appendleft(idle)
                    self._close_oldest()
                    return

    def _close(self, lease: Lease) -> None:
        lease.site.leaving += 1
        self._to_close.append(lease)
        self._work.set()

    async def _quit(self, lease: Lease) -> None:
        self._quitting += 1
        try:
            with trio.move_on_after(QUIT_S):
                await lease.connection.quit()
        finally:
            lease.connection.close()
            lease.site.leaving -= 1
            self.slots.give_back(lease.site)
            self._quitting -= 1
            self._has_quit.set()

    # Opening.

    async def _open_one(self, wanted: Wanted, site: Site[Lease]) -> Lease | Deferred:
        failure: Deferred | None = None
        for host, address in self._candidates(wanted.way):
            place = (address, host.port)
            tls = wanted.tls
            opportunistic = tls is TlsPolicy.OPPORTUNISTIC
            if opportunistic and self._known.plain.get(place, 0.0) > trio.current_time():
                tls = TlsPolicy.NONE
            opened = await self._open(self._target(host, address, tls))
            failed_tls = isinstance(opened, Deferred) and opened.stage is Stage.TLS
            if failed_tls and opportunistic:
                # RFC 3207 leaves an opportunistic client free to go on in the clear, but never on
                # the connection whose handshake failed.
                self._remember(self._known.plain, place, BROKEN_TLS_S)
                opened = await self._open(self._target(host, address, TlsPolicy.NONE))
            if not isinstance(opened, Deferred):
                self._known.bad.pop(place, None)
                kind = Kind(self._source or "", address, host.port, wanted.tls)
                return Lease(opened, kind, site)
            self._remember(self._known.bad, place, BAD_ADDRESS_S)
            failure = opened
        assert failure is not None, "a way has at least one address"
        return failure

    def _target(self, host: NextHost, address: str, tls: TlsPolicy) -> Target:
        return Target(host.name, address, host.port, self._ehlo_name, self._source, tls)

    def _candidates(self, way: Way) -> list[tuple[NextHost, str]]:
        def flat() -> Iterator[tuple[NextHost, str]]:
            for host in in_trying_order(way.hosts, self._rand):
                for address in host.addresses:
                    yield host, address

        now_s = trio.current_time()
        bad = self._known.bad
        candidates = sorted(flat(), key=lambda c: bad.get((c[1], c[0].port), 0.0) > now_s)
        return candidates[:ADDRESSES_TRIED_MAX]

    def _remember(
        self, memory: dict[tuple[str, int], float], key: tuple[str, int], s: float
    ) -> None:
        memory.pop(key, None)
        memory[key] = trio.current_time() + s
        if len(memory) > BAD_ADDRESSES_MAX:
            del memory[next(iter(memory))]


def _counts(down: _Down, borrower: str, since_s: float) -> bool:
    # Who found out asks again himself, when his own back-off is over.
    still_s = max(since_s, trio.current_time() - SITE_DOWN_S)
    return down.found_by != borrower and down.found_s > still_s


def _drop(lease: Lease) -> None:
    lease.connection.close()
