"""Who may have a connection: everybody gets one before anybody gets a second.

Owns the counts of open connections, of the whole engine and of each site, and the
queues in front of them. A connection is kept by its site while it is open, whoever
uses it, so what waits here waits for a slot or for a connection that another
destination of the same site has done with. Opens and closes nothing itself.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Final, Generic, TypeVar

import trio

from engine.delivery.limits import ConnectionLimit, binding_limit

C = TypeVar("C")

# Without a limit on files of the process's own, this many sockets are a fair share of 1,024
# descriptors beside the spool, the clients and the resolver.
CONNECTIONS_MAX: Final = 800


@dataclass(eq=False, slots=True)
class _Waiter(Generic[C]):
    """One who waits. `granted` is set with a slot, or with a connection that brings its slot."""

    kinds: frozenset[Hashable]
    granted: trio.Event = field(default_factory=trio.Event)
    connection: C | None = None


@dataclass(eq=False, slots=True)
class Site(Generic[C]):
    """The connections of one site and those who wait for one; `opening` are not open yet.

    `leaving` of the open ones are being closed, or told to, and are none too many any more.
    """

    limit: ConnectionLimit
    opening: int = 0
    leaving: int = 0
    firsts: deque[_Waiter[C]] = field(default_factory=deque)
    others: deque[_Waiter[C]] = field(default_factory=deque)

    @property
    def has_too_many(self) -> bool:
        """Whether the ceiling has come down, and more has to be closed than is told to."""
        return self.limit.open - self.leaving > self.limit.ceiling

    @property
    def has_waiters(self) -> bool:
        return bool(self.firsts or self.others)


class Slots(Generic[C]):
    """Counts connections of type `C`; hands on what becomes free.

    A `kind` says what a connection is good for (address, port, TLS policy): a waiter names
    the kinds that it can use. `discard` closes a connection that nobody can be given any more.
    """

    def __init__(
        self, connections_max: int = CONNECTIONS_MAX, *, discard: Callable[[C], None]
    ) -> None:
        self._discard = discard
        self._total = ConnectionLimit("engine", "connections", connections_max)
        self._sites: dict[str, Site[C]] = {}
        # Sites with waiters, in turns: a slot that any of them may have goes to the next one.
        self._waiting: OrderedDict[str, Site[C]] = OrderedDict()

    @property
    def open(self) -> int:
        """How many connections the engine has."""
        return self._total.open

    @property
    def is_full(self) -> bool:
        """Whether the engine has as many connections as it may have."""
        return self._total.open >= self._total.ceiling

    def site(self, name: str, ceiling: int) -> Site[C]:
        """Return the site of that name, with the ceiling that holds now."""
        site = self._sites.get(name)
        if site is None:
            site = self._sites[name] = Site(ConnectionLimit("site", name, ceiling))
        site.limit.ceiling = ceiling
        return site

    def take_nowait(self, site: Site[C]) -> bool:
        """Take a slot if one is free and nobody waits for it; say whether it was taken."""
        if site.has_waiters or not self._has_room(site):
            return False
        self._count(site, 1)
        return True

    async def wait_take(
        self, site: Site[C], kinds: frozenset[Hashable], *, is_first: bool
    ) -> C | None:
        """Wait for a slot or a connection; the slot is taken, or comes with the connection.

        `is_first` says that the one who asks has no connection yet; those go before.
        """
        waiter: _Waiter[C] = _Waiter(kinds)
        queue = site.firsts if is_first else site.others
        queue.append(waiter)
        self._waiting.setdefault(site.limit.key, site)
        self._grant_free()
        try:
            await waiter.granted.wait()
        except trio.Cancelled:
            if waiter.granted.is_set():
                # Granted and cancelled in the same moment: what was given goes back.
                if waiter.connection is not None:
                    self._discard(waiter.connection)
                self.give_back(site)
            else:
                queue.remove(waiter)
                self._forget_if_idle(site)
            raise
        return waiter.connection

    def give_back(self, site: Site[C]) -> None:
        """Give back the slot of a connection that is closed (or was never opened)."""
        self._count(site, -1)
        self._grant_free()
        self._forget_if_idle(site)

    def hand_on(self, site: Site[C], kind: Hashable, connection: C) -> bool:
        """Give a connection that is still good to one who waits for it; say whether one did."""
        for queue in (site.firsts, site.others):
            if queue and kind in queue[0].kinds:
                waiter = queue.popleft()
                waiter.connection = connection
                waiter.granted.set()
                self._forget_if_idle(site)
                return True
        return False

    def newcomer_waits(self, site: Site[C]) -> bool:
        """Say whether somebody without any connection waits for one that this site could free."""
        if site.firsts:
            return True
        if self._total.open < self._total.ceiling:
            return False
        return any(other.firsts for other in self._waiting.values())

    def limits_before(self, name: str) -> tuple[ConnectionLimit, ...]:
        """Return copies of the limits that those in front of a site ask; none if nobody waits."""
        site = self._sites.get(name)
        if site is None or not site.has_waiters:
            return ()
        return (replace(site.limit), replace(self._total))

    def _has_room(self, site: Site[C]) -> bool:
        # The same question that the actors and explain ask; time plays no part in it.
        return binding_limit((site.limit, self._total), 0)[0] is None

    def _count(self, site: Site[C], change: int) -> None:
        site.limit.open += change
        self._total.open += change
        assert site.limit.open >= 0, site.limit.key

    def _grant_free(self) -> None:
        """Give free slots to waiters: newcomers of all sites first, each site in its turn."""
        for firsts_only in (True, False):
            for name in list(self._waiting):
                if self._total.open >= self._total.ceiling:
                    return
                site = self._waiting[name]
                queue = site.firsts if firsts_only else (site.firsts or site.others)
                while queue and self._has_room(site):
                    self._count(site, 1)
                    queue.popleft().granted.set()
                    self._waiting.move_to_end(name)
                    if not firsts_only:
                        queue = site.firsts or site.others
                self._forget_if_idle(site)

    def _forget_if_idle(self, site: Site[C]) -> None:
        if not site.has_waiters:
            self._waiting.pop(site.limit.key, None)
            if site.limit.open == 0:
                self._sites.pop(site.limit.key, None)
