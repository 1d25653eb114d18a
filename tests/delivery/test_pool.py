"""Connections between destinations: reuse, room, what is remembered of hosts that failed."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio
from trio.testing import MockClock

from engine.delivery.connection import Connection
from engine.delivery.pool import BROKEN_TLS_S, IDLE_S, SITE_DOWN_S, Lease, Pool
from engine.delivery.routes import NextHost, Way
from engine.delivery.target import Target, TlsContexts
from engine.rehearsal.behaviour import Behaviour
from engine.rehearsal.memory_network import MemoryNetwork
from engine.rehearsal.receiver import Receiver
from protocols.outcomes import Deferred, lost
from protocols.records import Reason
from protocols.smtp_states import Stage
from protocols.transactions import TlsPolicy

ONE = Way("mx1", (NextHost(10, "mx1", ("192.0.2.1",), 25),))
TWO = Way("mx2", (NextHost(10, "mx2", ("192.0.2.2",), 25),))
BOTH = Way(
    "mx1,mx2",
    (NextHost(10, "mx1", ("192.0.2.1",), 25), NextHost(20, "mx2", ("192.0.2.2",), 25)),
)


@dataclass
class Rig:
    """A pool, two receivers, and a list of what was tried."""

    connections_max: int = 10
    learned: dict[str, int] = field(default_factory=dict)
    broken_tls: set[str] = field(default_factory=set)
    down: set[str] = field(default_factory=set)
    tried: list[tuple[str, TlsPolicy]] = field(default_factory=list)
    woken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.receivers = {f"192.0.2.{n}": Receiver(f"mx{n}", Behaviour()) for n in (1, 2)}
        self.network = MemoryNetwork(self.receivers, connect_s=0.1)
        self.pool = Pool(
            self._open,
            random.Random(1),
            connections_max=self.connections_max,
            ehlo_name="out.example",
            on_room=self._wake,
            learned_ceiling=self.learned.get,
        )

    def _wake(self, name: str) -> bool:
        self.woken.append(name)
        return name != "busy.test"

    async def _open(self, target: Target) -> Connection | Deferred:
        self.tried.append((target.address, target.tls))
        if target.address in self.down:
            await trio.sleep(30.0)
            return lost("no connection", stage=Stage.CONNECT)
        if target.address in self.broken_tls and target.tls is not TlsPolicy.NONE:
            await trio.sleep(1.0)
            return lost("TLS handshake: bad", stage=Stage.TLS, reason=Reason.TLS)
        plain = Target(target.host, target.address, target.port, "out.example", tls=TlsPolicy.NONE)
        return await Connection.open(
            plain, tls_contexts=TlsContexts(), connect=self.network.connect
        )

    async def borrow(
        self,
        way: Way,
        *,
        tls: TlsPolicy = TlsPolicy.NONE,
        site_max: int = 5,
        borrower: str = "a.test",
    ) -> Lease | Deferred:
        wanted = self.pool.wanted(way, tls, site_max)
        return await self.pool.borrow(wanted, borrower=borrower, is_first=True)

    async def lease(self, way: Way, **options: object) -> Lease:
        got = await self.borrow(way, **options)  # type: ignore[arg-type]  # passed on as given
        assert isinstance(got, Lease)
        return got

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.network.serve)
            nursery.start_soon(self.pool.run)
            yield
            nursery.cancel_scope.cancel()


async def test_a_connection_that_was_given_back_serves_the_next(autojump_clock: MockClock) -> None:
    rig = Rig()
    async with rig.running():
        first = await rig.lease(ONE)
        rig.pool.give_back(first, reuse=True)
        assert rig.pool.idle == 1
        # Another site with a host in common: the connection belongs to the address.
        second = await rig.lease(BOTH)
        assert second.connection is first.connection
        rig.pool.give_back(second, reuse=True)
        await trio.sleep(IDLE_S + 1)
        assert rig.receivers["192.0.2.1"].connections_open == 0
        assert (rig.pool.idle, rig.pool.slots.open) == (0, 0)


async def test_policies_do_not_share(autojump_clock: MockClock) -> None:
    rig = Rig()
    async with rig.running():
        rig.pool.give_back(await rig.lease(ONE, tls=TlsPolicy.NONE), reuse=True)
        rig.pool.give_back(await rig.lease(ONE, tls=TlsPolicy.REQUIRED), reuse=True)
        assert rig.pool.idle == 2


async def test_a_dead_idle_connection_is_not_lent(autojump_clock: MockClock) -> None:
    rig = Rig()
    async with rig.running():
        lease = await rig.lease(ONE)
        lease.connection.close()
        rig.pool.give_back(lease, reuse=True)
        assert (rig.pool.idle, rig.pool.slots.open) == (0, 0)


async def test_idle_ones_make_room_for_those_who_need_it(autojump_clock: MockClock) -> None:
    rig = Rig(connections_max=1)
    async with rig.running():
        rig.pool.give_back(await rig.lease(ONE), reuse=True)
        assert rig.pool.slots.is_full
        with trio.fail_after(1):
            lease = await rig.lease(TWO)
        assert rig.receivers["192.0.2.1"].connections_open == 0
        rig.pool.give_back(lease, reuse=True)
        with trio.fail_after(1):
            await rig.lease(TWO, tls=TlsPolicy.REQUIRED, site_max=1)


async def test_a_site_has_as_many_connections_as_its_replies_allow(
    autojump_clock: MockClock,
) -> None:
    rig = Rig(learned={"mx1": 2, "mx2": 9})
    routed = replace(TWO, routed=True)
    async with rig.running():
        for way, ceiling in ((ONE, 2), (TWO, 5)):
            wanted = rig.pool.wanted(way, TlsPolicy.NONE, 5)
            for _ in range(ceiling):
                assert not rig.pool.is_full(wanted, "new.test")
                await rig.lease(way)
            assert rig.pool.is_full(wanted, "new.test")
        # Behind a next hop are many receivers, and what one of them said is not about the others.
        rig.learned["mx2"] = 1
        assert not rig.pool.is_full(rig.pool.wanted(routed, TlsPolicy.NONE, 5), "new.test")


async def test_what_is_beyond_a_ceiling_that_fell_is_closed_when_it_comes_back(
    autojump_clock: MockClock,
) -> None:
    rig = Rig()
    async with rig.running():
        leases = [await rig.lease(ONE, site_max=3) for _ in range(3)]
        rig.pool.site_of(rig.pool.wanted(ONE, TlsPolicy.NONE, 1))  # One is left to the site now.
        for lease in leases:
            rig.pool.give_back(lease, reuse=True)
        await trio.sleep(1)
        assert (rig.pool.idle, rig.pool.slots.open) == (1, 1)
        assert rig.receivers["192.0.2.1"].connections_open == 1


async def test_broken_tls_is_left_for_plain_text_and_remembered(autojump_clock: MockClock) -> None:
    rig = Rig(broken_tls={"192.0.2.1"})
    opportunistic, plain = TlsPolicy.OPPORTUNISTIC, TlsPolicy.NONE
    async with rig.running():
        rig.pool.give_back(await rig.lease(ONE, tls=opportunistic), reuse=False)
        assert rig.tried == [("192.0.2.1", opportunistic), ("192.0.2.1", plain)]
        rig.tried.clear()
        rig.pool.give_back(await rig.lease(ONE, tls=opportunistic), reuse=False)
        assert rig.tried == [("192.0.2.1", plain)]
        await trio.sleep(BROKEN_TLS_S)
        rig.tried.clear()
        rig.pool.give_back(await rig.lease(ONE, tls=opportunistic), reuse=False)
        assert rig.tried[0] == ("192.0.2.1", opportunistic)


async def test_required_tls_goes_to_the_next_host_and_never_to_plain_text(
    autojump_clock: MockClock,
) -> None:
    rig = Rig(broken_tls={"192.0.2.1"})
    async with rig.running():
        await rig.lease(BOTH, tls=TlsPolicy.REQUIRED)
        assert rig.tried == [
            ("192.0.2.1", TlsPolicy.REQUIRED),
            ("192.0.2.2", TlsPolicy.REQUIRED),
        ]
        failure = await rig.borrow(ONE, tls=TlsPolicy.REQUIRED)
        assert isinstance(failure, Deferred)
        assert failure.reason is Reason.TLS
        assert all(tls is TlsPolicy.REQUIRED for _, tls in rig.tried)


async def test_a_bad_address_is_tried_last_for_a_while(autojump_clock: MockClock) -> None:
    rig = Rig(down={"192.0.2.1"})
    async with rig.running():
        rig.pool.give_back(await rig.lease(BOTH), reuse=False)
        assert [address for address, _ in rig.tried] == ["192.0.2.1", "192.0.2.2"]
        rig.tried.clear()
        began_s = trio.current_time()
        rig.pool.give_back(await rig.lease(BOTH), reuse=False)
        assert trio.current_time() - began_s < 1
        assert [address for address, _ in rig.tried] == ["192.0.2.2"]


async def test_one_destination_finds_out_for_all_of_a_dead_site(
    autojump_clock: MockClock,
) -> None:
    rig = Rig(down={"192.0.2.1"})
    failures: list[float] = []

    async def want(borrower: str) -> None:
        failure = await rig.borrow(ONE, site_max=2, borrower=borrower)
        assert isinstance(failure, Deferred)
        failures.append(trio.current_time())

    async with rig.running():
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(want, f"d{number}.test")
        # Two tried, for half a minute; the other forty-eight did not have to.
        assert len(rig.tried) == 2
        assert max(failures) < 31
        # Who found out looks again himself; the memory is short for the others.
        down = set(rig.down)
        rig.down.clear()
        await trio.sleep(SITE_DOWN_S + 0.1)
        rig.pool.give_back(await rig.lease(ONE, borrower="d99.test"), reuse=False)
        assert down
        assert rig.pool.slots.open <= 1


async def test_who_is_tried_by_hand_asks_for_himself(autojump_clock: MockClock) -> None:
    """But not what somebody else asked after that."""
    rig = Rig(down={"192.0.2.1"})
    wanted = rig.pool.wanted(ONE, TlsPolicy.NONE, 5)
    async with rig.running():
        assert isinstance(await rig.borrow(ONE, borrower="a.test"), Deferred)
        asked_s = trio.current_time()
        tried = len(rig.tried)
        await trio.sleep(0.1)
        for borrower, since_s, more in (
            ("b.test", float("-inf"), 0),
            ("b.test", asked_s, 1),
            ("c.test", asked_s, 0),
        ):
            failure = await rig.pool.borrow(
                wanted, borrower=borrower, is_first=True, since_s=since_s
            )
            assert isinstance(failure, Deferred)
            tried += more
            assert len(rig.tried) == tried


async def test_a_cancelled_opening_gives_its_place_back(autojump_clock: MockClock) -> None:
    rig = Rig(down={"192.0.2.1"})
    async with rig.running():
        with trio.move_on_after(5):
            await rig.borrow(ONE)
        assert rig.pool.slots.open == 0


async def test_at_the_end_nothing_is_left_open(autojump_clock: MockClock) -> None:
    rig = Rig()
    async with rig.running():
        for way in (ONE, TWO):
            rig.pool.give_back(await rig.lease(way), reuse=True)
        await rig.pool.close_idle()
        assert rig.pool.slots.open == 0
        await trio.sleep(0.1)
        assert all(not r.connections_open for r in rig.receivers.values())


async def test_a_site_wakes_its_domains_one_by_one(autojump_clock: MockClock) -> None:
    rig = Rig()
    wanted = rig.pool.wanted(ONE, TlsPolicy.NONE, 1)
    async with rig.running():
        lease = await rig.lease(ONE, site_max=1)
        assert rig.pool.is_full(wanted, "a.test")
        for name in ("a.test", "busy.test", "b.test", "c.test"):
            rig.pool.park(wanted, name)
        assert rig.woken == []
        rig.pool.give_back(lease, reuse=True)
        assert rig.woken == ["a.test"]
        # Who borrows waits no more; who has an actor already leaves his turn to the next.
        lease = await rig.lease(ONE, site_max=1, borrower="c.test")
        rig.pool.give_back(lease, reuse=False)
        assert rig.woken == ["a.test", "busy.test", "b.test"]
        rig.pool.give_back(await rig.lease(ONE, site_max=1), reuse=True)
        assert rig.woken == ["a.test", "busy.test", "b.test"]


async def test_who_gave_up_before_his_borrowing_began_stays_parked(
    autojump_clock: MockClock,
) -> None:
    """A session is started, and in the same moment its actor's turn is over."""
    rig = Rig()
    wanted = rig.pool.wanted(ONE, TlsPolicy.NONE, 1)
    async with rig.running():
        lease = await rig.lease(ONE, site_max=1)
        rig.pool.park(wanted, "parked.test")
        with trio.CancelScope() as given_up:
            given_up.cancel()
            await rig.pool.borrow(wanted, borrower="parked.test", is_first=True)
        assert given_up.cancelled_caught
        rig.pool.give_back(lease, reuse=True)
        assert rig.woken == ["parked.test"]
