"""The simulation's resolver says what the engine's own says, asked over real DNS."""

import pytest
import trio

from engine.delivery.resolver import DnsResolver, MailHosts, Unresolved
from engine.rehearsal.dns_server import DnsServer
from engine.rehearsal.resolver import TableResolver
from engine.rehearsal.zones import NULL_MX, Fault, Records, Zones
from protocols.records import Reason

TABLE = {
    "good.test": Records(mx=((20, "mx2.good.test"), (10, "mx1.good.test"), (5, "gone.test"))),
    "mx1.good.test": Records(a=("127.0.0.2",), aaaa=("::1",)),
    "mx2.good.test": Records(a=("127.0.0.3",)),
    "implicit.test": Records(a=("127.0.0.5",)),
    "aliased.test": Records(cname="good.test"),
    "none.test": NULL_MX,
    "bare.test": Records(),
    "hostless.test": Records(mx=((10, "gone.test"),)),
    "ours.test": Records(mx=((10, "out.example"),)),
    "broken.test": Records(fault=Fault.SERVFAIL),
    "broken-host.test": Records(mx=((10, "broken.test"),)),
    "loop-a.test": Records(cname="loop-b.test"),
    "loop-b.test": Records(cname="loop-a.test"),
}
CASES = [*TABLE, "gone.test"]


def gist(answer: MailHosts | Unresolved) -> object:
    """The answer without its words, which only a person reads."""
    if isinstance(answer, MailHosts):
        return answer
    return (answer.permanent, answer.reason, answer.status)


async def test_both_resolvers_agree_about_every_name(nursery: trio.Nursery) -> None:
    zones = Zones(TABLE)
    server = DnsServer(zones)
    await nursery.start(server.serve)
    real = DnsResolver([f"{server.address}:{server.port}"], own_names=["out.example"])
    ours = TableResolver(zones, own_names=["out.example"])
    said_really = {name: gist(await real.mail_hosts(name)) for name in CASES}
    assert {name: gist(await ours.mail_hosts(name)) for name in CASES} == said_really
    hosts = ["mx1.good.test", "mx2.good.test", "gone.test", "broken.test"]
    for host in hosts:
        by_name = await real.addresses(host), await ours.addresses(host)
        assert isinstance(by_name[0], tuple) == isinstance(by_name[1], tuple)
        if isinstance(by_name[0], tuple):
            assert by_name[0] == by_name[1]
    nursery.cancel_scope.cancel()


async def test_a_silent_name_fails_after_the_resolvers_patience(
    autojump_clock: trio.testing.MockClock,
) -> None:
    answer = await TableResolver(Zones({"mute.test": Records(fault=Fault.SILENCE)})).mail_hosts(
        "mute.test"
    )
    assert isinstance(answer, Unresolved)
    assert not answer.permanent
    assert answer.reason is Reason.DNS
    assert trio.current_time() == pytest.approx(10.0)
