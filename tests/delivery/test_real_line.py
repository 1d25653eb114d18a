"""The same line over real sockets, real DNS messages and the spool on disk."""

import random
from collections import Counter
from pathlib import Path

import pytest
import trio

from engine.clock import SystemClock
from engine.config import Config, Route
from engine.config import Delivery as DeliverySettings
from engine.config_values import DomainPattern, Network, NextHop
from engine.delivery.resolver import DnsResolver
from engine.delivery.service import Delivery
from engine.rehearsal.behaviour import Behaviour
from engine.rehearsal.dns_server import DnsServer
from engine.rehearsal.receiver import Receiver
from engine.rehearsal.receivers import serve_receivers
from engine.rehearsal.zones import NULL_MX, Records, Zones
from engine.spool import open_spool
from engine.spool.interface import AcceptRequest, NewMessage, NewRecipient, Spool, SpoolSettings
from engine.spool.listing_calls import EnvelopeFilter
from protocols.records import Account, ApiKey, Status

ZONES = {
    "good.test": Records(mx=((10, "mx.good.test"),)),
    # Nobody listens on the better host, nor on the IPv6 address of the second.
    "fall.test": Records(mx=((10, "dead.good.test"), (20, "mx6.good.test"))),
    "mx.good.test": Records(a=("127.0.0.1",)),
    "dead.good.test": Records(a=("127.0.0.99",)),
    "mx6.good.test": Records(a=("127.0.0.2",), aaaa=("::1",)),
    "null.test": NULL_MX,
    "inside.test": Records(a=("10.0.0.1",)),
}


async def accept(spool: Spool, account: Account, recipients: list[str]) -> None:
    content = b"From: a@out.example\r\nSubject: x\r\n\r\n" + b"0123456789" * 500 + b"\r\n.\r\n"
    messages = [
        NewMessage(
            content,
            [NewRecipient(random.randbytes(16), name, name, name.rpartition("@")[2])],
            "a@out.example",
        )
        for name in recipients
    ]
    await spool.accept([AcceptRequest(account, messages)])


@pytest.mark.slow
async def test_sockets_dns_and_disk(tmp_path: Path) -> None:
    receivers = {
        "127.0.0.1": Receiver("mx.good.test", Behaviour(unknown_share=0.1), keep_content=True),
        "127.0.0.2": Receiver("mx6.good.test"),
    }
    clock, rand = SystemClock(), random.Random(1)
    async with trio.open_nursery() as nursery:
        dns = DnsServer(Zones(ZONES))
        await nursery.start(dns.serve)
        port: int = await nursery.start(serve_receivers, receivers)
        config = Config(
            routes=(Route(domain=DomainPattern("*.route.test"), next_hop=NextHop("::1", 1)),),
            delivery=DeliverySettings(
                ehlo_name="out.example", port=port, private_targets=(Network.parse("127.0.0.0/8"),)
            ),
        )
        async with open_spool(
            "lmdb:",
            tmp_path,
            settings=SpoolSettings(),
            clock=clock,
            run_blocking=trio.to_thread.run_sync,
            random=rand,
        ) as spool:
            account = await spool.create_account(
                Account(0, "acme", "", 1), ApiKey("key", 0, b"\0" * 32, 1)
            )
            settled = trio.Event()
            # Of all mail, only the routed one stays: nobody listens at its next hop.
            spool.add_listener(
                lambda notice: (
                    settled.set() if spool.spool_statistics().envelopes_open == 1 else None
                )
            )
            names = [f"r{n}@good.test" for n in range(200)] + ["a@fall.test", "b@deep.route.test"]
            await accept(spool, account, [*names, "c@null.test", "d@nowhere.test", "e@inside.test"])
            delivery = Delivery(
                spool,
                config,
                clock,
                rand,
                DnsResolver([f"127.0.0.1:{dns.port}"], own_names=["out.example"]),
            )
            async with trio.open_nursery() as running:
                await running.start(delivery.run)
                with trio.fail_after(20):
                    await settled.wait()
                # The spool may only be closed when the actors have left their rests there.
                delivery.stop()
            page = await spool.find(EnvelopeFilter(), None, 1000)
            status = {e.fixed.address: e.state.status for e in page.envelopes}
            record = await spool.destination("deep.route.test")
        nursery.cancel_scope.cancel()
    assert status["a@fall.test"] is Status.DELIVERED
    assert status["b@deep.route.test"] is Status.QUEUED
    assert status["c@null.test"] is status["d@nowhere.test"] is Status.HARD_BOUNCED
    assert status["e@inside.test"] is Status.BLOCKED
    good = Counter(status[name] for name in names[:200])
    taken = receivers["127.0.0.1"].acceptances
    assert good == {Status.DELIVERED: len(taken), Status.HARD_BOUNCED: 200 - len(taken)}
    assert 150 < len(taken) < 200
    assert {acceptance.content[-9:] for acceptance in taken} == {b"6789\r\n.\r\n"}
    assert len(receivers["127.0.0.2"].acceptances) == 1
    assert record is not None
    assert record.cause == "destination_unreachable"
    assert record.site == "[::1]:1"
