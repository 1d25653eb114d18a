"""The rehearsal's name server, asked by dnspython's own resolver over both transports."""

from collections.abc import AsyncIterator

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import pytest
import trio

from engine.rehearsal.dns_server import DnsServer
from engine.rehearsal.zones import NULL_MX, Fault, Records, Zones

TABLE = {
    "good.test": Records(mx=((10, "mx1.good.test"), (20, "mx2.good.test"))),
    "mx1.good.test": Records(a=("127.0.0.2",), aaaa=("::1",)),
    "mx2.good.test": Records(a=("127.0.0.3",)),
    "none.test": NULL_MX,
    "broken.test": Records(fault=Fault.SERVFAIL),
    "shut.test": Records(fault=Fault.REFUSED),
    "mute.test": Records(fault=Fault.SILENCE),
    "alias.test": Records(cname="good.test"),
    "lost.test": Records(cname="nowhere.test"),
    "loop-a.test": Records(cname="loop-b.test"),
    "loop-b.test": Records(cname="loop-a.test"),
    "many.test": Records(mx=tuple((i, f"mx{i}.a-rather-long-name.test") for i in range(60))),
}


def bulk(name: str) -> Records | None:
    label = name.split(".")[0]
    return Records(a=(f"127.1.0.{label[1:]}",)) if label[1:].isdigit() else None


@pytest.fixture
async def server(nursery: trio.Nursery) -> AsyncIterator[DnsServer]:
    server = DnsServer(Zones(TABLE, {"bulk.test": bulk}))
    await nursery.start(server.serve)
    yield server
    nursery.cancel_scope.cancel()


def resolver_of(server: DnsServer) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = [server.address]
    resolver.port = server.port
    return resolver


async def texts(server: DnsServer, name: str, kind: str) -> list[str]:
    answer = await resolver_of(server).resolve(name, kind)
    return sorted(item.to_text().lower() for item in answer)


async def test_records_of_each_kind_are_given(server: DnsServer) -> None:
    assert await texts(server, "GOOD.test", "MX") == ["10 mx1.good.test.", "20 mx2.good.test."]
    assert await texts(server, "mx1.good.test", "A") == ["127.0.0.2"]
    assert await texts(server, "mx1.good.test", "AAAA") == ["::1"]
    assert await texts(server, "none.test", "MX") == ["0 ."]
    assert await texts(server, "alias.test", "MX") == ["10 mx1.good.test.", "20 mx2.good.test."]


async def test_a_family_answers_for_any_name_below_it(server: DnsServer) -> None:
    assert await texts(server, "d7.bulk.test", "A") == ["127.1.0.7"]
    with pytest.raises(dns.resolver.NXDOMAIN):
        await texts(server, "other.bulk.test", "A")


async def test_absence_is_told_from_having_no_data(server: DnsServer) -> None:
    with pytest.raises(dns.resolver.NXDOMAIN):
        await texts(server, "nowhere.test", "MX")
    with pytest.raises(dns.resolver.NXDOMAIN):
        await texts(server, "lost.test", "MX")
    with pytest.raises(dns.resolver.NoAnswer):
        await texts(server, "good.test", "A")
    with pytest.raises(dns.resolver.NoAnswer):
        await texts(server, "test", "A")


async def test_a_loop_of_aliases_is_given_once_around(server: DnsServer) -> None:
    query = dns.message.make_query("loop-a.test", "MX")
    response = await dns.asyncquery.udp(query, server.address, port=server.port, timeout=5)
    assert [rrset.to_text() for rrset in response.answer] == [
        "loop-a.test. 300 IN CNAME loop-b.test.",
        "loop-b.test. 300 IN CNAME loop-a.test.",
    ]
    with pytest.raises(dns.resolver.NoNameservers, match="CNAME chain is too long"):
        await texts(server, "loop-a.test", "MX")


@pytest.mark.parametrize(
    ("name", "rcode"), [("broken.test", dns.rcode.SERVFAIL), ("shut.test", dns.rcode.REFUSED)]
)
async def test_a_failing_server_says_so(
    server: DnsServer, name: str, rcode: dns.rcode.Rcode
) -> None:
    query = dns.message.make_query(name, "MX")
    response = await dns.asyncquery.udp(query, server.address, port=server.port, timeout=5)
    assert response.rcode() == rcode
    assert not response.answer


def test_silence_and_rubbish_get_no_answer() -> None:
    server = DnsServer(Zones(TABLE))
    assert server.answer(dns.message.make_query("mute.test", "A").to_wire(), over_udp=True) == b""
    assert server.answer(b"\x00" * 5, over_udp=True) == b""
    assert server.answer(b"", over_udp=True) == b""
    assert server.statistics().unanswered == 3


async def test_a_large_answer_is_cut_over_udp_and_whole_over_tcp(server: DnsServer) -> None:
    query = dns.message.make_query("many.test", "MX")
    cut = await dns.asyncquery.udp(query, server.address, port=server.port, timeout=5)
    assert cut.flags & dns.flags.TC
    assert len(await texts(server, "many.test", "MX")) == 60
    assert server.statistics().tcp == 1


async def test_a_change_of_the_table_is_seen_at_once() -> None:
    zones = Zones(TABLE)
    server = DnsServer(zones)
    question = dns.message.make_query("good.test", "A").to_wire()
    before = dns.message.from_wire(server.answer(question, over_udp=True))
    zones.set("good.test", Records(a=("127.0.0.9",)))
    after = dns.message.from_wire(server.answer(question, over_udp=True))
    assert not before.answer
    assert after.answer[0].to_text() == "good.test. 300 IN A 127.0.0.9"
    zones.set("good.test", None)
    gone = dns.message.from_wire(server.answer(question, over_udp=True))
    # Its MX hosts are still there below it, so the name itself exists.
    assert gone.rcode() == dns.rcode.NOERROR
    assert not gone.answer


async def test_the_kept_answer_carries_the_number_of_the_new_question(server: DnsServer) -> None:
    for number in (1, 2):
        query = dns.message.make_query("mx2.good.test", "A", id=number)
        response = await dns.asyncquery.udp(query, server.address, port=server.port, timeout=5)
        assert response.id == number
        assert response.answer[0].to_text() == "mx2.good.test. 300 IN A 127.0.0.3"
