"""One connection in the hands of one destination.

Owns how long a destination keeps a borrowed connection: its share of mails, its turn while
others wait, and its waits for more work. Which mail goes next is the actor's to say; what is
said on the wire is `connection`'s.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import trio

from engine.clock import Clock
from engine.delivery.disposition import Peer
from engine.delivery.health import is_work
from engine.delivery.pool import Lease
from engine.delivery.slots import Slots
from engine.delivery.under_way import UnderWay
from protocols.transactions import EnvelopeOutcome, Transaction

# A destination's only connection is handed on to others that wait after so many mails.
TURN_MAILS: Final = 64


class Feeder(Protocol):
    """The actor, as its sessions know it."""

    def next_transaction(self, session: "Session") -> Transaction | None: ...

    def handing_over(self, envelope_ids: Sequence[int]) -> None:
        """Note which mails a server may have from now on."""
        ...

    def note_outcome(self, session: "Session", result: EnvelopeOutcome) -> None: ...

    def must_leave(self, session: "Session") -> bool:
        """Say whether the connection has to go to another destination now."""
        ...

    async def wait_for_work(self, session: "Session") -> bool:
        """Wait until there may be a transaction for `session`; False when it had better end."""
        ...


class Session:
    """Feeds one lease until it is done with, closed, or wanted elsewhere."""

    __slots__ = (
        "_feeder",
        "_mails_at_start",
        "_mails_max",
        "is_leaving",
        "lease",
        "peer",
        "under_way",
        "was_good",
    )

    def __init__(self, feeder: Feeder, lease: Lease, clock: Clock, *, mails_max: int) -> None:
        self._feeder = feeder
        self._mails_max = mails_max
        self._mails_at_start = lease.mails
        self.lease = lease
        self.under_way = UnderWay(lease.connection, clock)
        target = lease.connection.target
        self.peer = Peer(target.host, target.address, lease.connection.tls)
        # Whether the server did its work: it took a mail, or refused one for a reason of its own.
        self.was_good = False
        # Whether it was told to make room for another destination.
        self.is_leaving = False

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.under_way.watch)
            await self._deliver()
            nursery.cancel_scope.cancel()

    async def _deliver(self) -> None:
        connection = self.lease.connection
        while connection.is_open:
            await connection.deliver(
                self._next_transaction, self._report, self._feeder.handing_over
            )
            if not connection.is_open or not await self._feeder.wait_for_work(self):
                return

    @property
    def was_stale(self) -> bool:
        """Whether the connection came from another use and ended before we said anything."""
        return 0 < self._mails_at_start == self.lease.mails

    @property
    def mails_left(self) -> int:
        """How many more mails this connection may carry in its life."""
        return self._mails_max - self.lease.mails

    @property
    def has_had_turn(self) -> bool:
        return self.lease.mails - self._mails_at_start >= TURN_MAILS

    def gives_way(self, slots: Slots[Lease], *, is_last: bool) -> bool:
        """Say whether a destination without any connection has more right to this one.

        Or nobody has: its site's ceiling has come down. `is_last`: it is our only one.
        """
        site = self.lease.site
        if site.has_too_many:
            return True
        return slots.newcomer_waits(site) and (self.has_had_turn or not is_last)

    @property
    def must_end(self) -> bool:
        """Whether the connection has done its share, in its life or in this turn."""
        return self.lease.mails >= self._mails_max or self._feeder.must_leave(self)

    def _next_transaction(self) -> Transaction | None:
        return self._feeder.next_transaction(self)

    def _report(self, results: Sequence[EnvelopeOutcome]) -> None:
        for result in results:
            if not self.was_good and is_work(result.outcome):
                self.was_good = True
            self._feeder.note_outcome(self, result)
