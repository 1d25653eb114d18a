"""TXT and reverse look-ups, over a real name server, its failures included."""

from collections.abc import AsyncIterator

import pytest
import trio

from engine.delivery.resolver import DnsResolver, Unresolved
from engine.rehearsal.dns_server import DnsServer
from engine.rehearsal.zones import Fault, Records, Zones

LONG = "v=spf1 " + " ".join(f"ip4:192.0.2.{number}" for number in range(60)) + " -all"
TABLE = {
    "one.test": Records(txt=(LONG,)),
    "two.test": Records(txt=("v=spf1 -all", 'with "quotes" and \\')),
    "alias.test": Records(cname="one.test"),
    "bare.test": Records(a=("192.0.2.1",)),
    "broken.test": Records(fault=Fault.SERVFAIL),
    "7.2.0.192.in-addr.arpa": Records(ptr=("Out.Example", "other.example")),
}


@pytest.fixture
async def resolver(nursery: trio.Nursery) -> AsyncIterator[DnsResolver]:
    server = DnsServer(Zones(TABLE))
    await nursery.start(server.serve)
    yield DnsResolver([f"{server.address}:{server.port}"])
    nursery.cancel_scope.cancel()


async def test_texts_are_put_together_and_kept_apart(resolver: DnsResolver) -> None:
    assert len(LONG) > 512, "several strings, and more than a small UDP answer"
    assert await resolver.texts("one.test") == (LONG,)
    found = await resolver.texts("two.test")
    assert isinstance(found, tuple)
    assert sorted(found) == ["v=spf1 -all", 'with "quotes" and \\']
    assert await resolver.texts("alias.test") == (LONG,)


@pytest.mark.parametrize("name", ["bare.test", "nowhere.test", ".", "a..b", "x" * 70 + ".test"])
async def test_no_text_is_no_failure(resolver: DnsResolver, name: str) -> None:
    assert await resolver.texts(name) == ()


async def test_a_failing_server_is_named_as_one(resolver: DnsResolver) -> None:
    found = await resolver.texts("broken.test")
    assert isinstance(found, Unresolved)
    assert not found.permanent
    assert "SERVFAIL" in found.text


async def test_the_reverse_of_an_address(resolver: DnsResolver) -> None:
    found = await resolver.host_names("192.0.2.7")
    assert isinstance(found, tuple)
    assert sorted(found) == ["other.example", "out.example"]
    assert await resolver.host_names("2001:db8::1") == ()
