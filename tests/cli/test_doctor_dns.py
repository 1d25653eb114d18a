"""The doctor's look at the DNS, over a real name server, and its one connection."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio

from engine.cli.doctor_dns import look_at_dns
from engine.cli.findings import Finding, Verdict
from engine.config import Config, Delivery, ResolverTable
from engine.config_values import DnsServer as Server
from engine.rehearsal.dns_server import DnsServer
from engine.rehearsal.zones import Fault, Records, Zones

TABLE = {
    "out.test": Records(a=("192.0.2.1",), aaaa=("2001:db8::1",)),
    "1.2.0.192.in-addr.arpa": Records(ptr=("OUT.test",)),
    "1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa": Records(ptr=("out.test",)),
    "bare.test": Records(a=("192.0.2.2",)),
    "lying.test": Records(a=("192.0.2.3",)),
    "3.2.0.192.in-addr.arpa": Records(ptr=("elsewhere.test",)),
    "other.test": Records(a=("192.0.2.4",)),
    "4.2.0.192.in-addr.arpa": Records(ptr=("hosting.test",)),
    "hosting.test": Records(a=("192.0.2.4",)),
    "broken.test": Records(fault=Fault.SERVFAIL),
    "good.test": Records(txt=("some=thing", "V=SPF1 a:out.test -all")),
    "_dmarc.good.test": Records(txt=("v=DMARC1; p=reject",)),
    "twice.test": Records(txt=("v=spf1 -all", "v=spf1 ~all", "v=spf10 x")),
    "_dmarc.twice.test": Records(txt=("v=DMARC1; p=none", "v=DMARC1; p=reject")),
    "open.test": Records(txt=("v=spf1 +all",)),
    "local.test": Records(a=("127.0.0.1",)),
}
Look = Callable[..., Awaitable[dict[str, Finding]]]


@pytest.fixture
async def zones() -> Zones:
    return Zones(TABLE)


@pytest.fixture
async def look(zones: Zones, nursery: trio.Nursery) -> AsyncIterator[Look]:
    server = DnsServer(zones)
    await nursery.start(server.serve)

    async def look_with(
        name: str = "out.test", *domains: str, probe: str | None = None, port: int = 25
    ) -> dict[str, Finding]:
        config = Config(
            delivery=Delivery(ehlo_name=name, port=port),
            resolver=ResolverTable(servers=(Server(server.address, server.port),)),
        )
        return {each.check: each for each in await look_at_dns(config, domains, probe)}

    yield look_with
    nursery.cancel_scope.cancel()


async def test_a_name_that_leads_both_ways_is_sound(look: Look) -> None:
    found = await look("Out.test.")
    assert {each.verdict for each in found.values()} == {Verdict.OK}, found
    assert [*found] == [
        "resolver",
        "EHLO name Out.test.",
        "reverse of 2001:db8::1",
        "reverse of 192.0.2.1",
    ]


@pytest.mark.parametrize(
    ("name", "check", "verdict", "text"),
    [
        ("bare.test", "reverse of 192.0.2.2", Verdict.FAULT, "none"),
        ("lying.test", "reverse of 192.0.2.3", Verdict.FAULT, "does not lead back"),
        ("other.test", "reverse of 192.0.2.4", Verdict.WARNING, "hosting.test"),
        ("nowhere.test", "EHLO name nowhere.test", Verdict.FAULT, "no address"),
        ("broken.test", "EHLO name broken.test", Verdict.FAULT, "SERVFAIL"),
        ("vm", "EHLO name vm", Verdict.FAULT, "no full host name"),
        ("[192.0.2.1]", "EHLO name [192.0.2.1]", Verdict.WARNING, "no name"),
    ],
)
async def test_what_receivers_would_hold_against_a_name(
    look: Look, name: str, check: str, verdict: Verdict, text: str
) -> None:
    found = await look(name)
    assert found["resolver"].verdict is Verdict.OK
    assert found[check].verdict is verdict, found
    assert text in found[check].found
    assert found[check].advice


async def test_a_resolver_that_fails_is_named_with_its_failure(zones: Zones, look: Look) -> None:
    zones.set("", Records(fault=Fault.SERVFAIL))
    found = await look("out.test")
    assert found["resolver"].verdict is Verdict.OK, "it answers what is needed"
    zones.set("out.test", Records(fault=Fault.SERVFAIL))
    found = await look("out.test")
    assert found["resolver"].verdict is Verdict.FAULT
    assert "SERVFAIL" in found["resolver"].found
    assert "[resolver] servers" in found["resolver"].advice


async def test_sender_domains(look: Look) -> None:
    domains = ("good.test", "a.good.test", "twice.test", "open.test", "broken.test")
    found = await look("out.test", *domains)
    verdicts = {check: each.verdict for check, each in found.items() if " of " in check}
    assert {check: each for check, each in verdicts.items() if "reverse" not in check} == {
        "SPF of good.test": Verdict.OK,
        "DMARC of good.test": Verdict.OK,
        "SPF of a.good.test": Verdict.FAULT,
        "DMARC of a.good.test": Verdict.OK,
        "SPF of twice.test": Verdict.FAULT,
        "DMARC of twice.test": Verdict.FAULT,
        "SPF of open.test": Verdict.WARNING,
        "DMARC of open.test": Verdict.WARNING,
        "SPF of broken.test": Verdict.FAULT,
        "DMARC of broken.test": Verdict.WARNING,
    }
    assert found["DMARC of a.good.test"].found.endswith("(at _dmarc.good.test)")
    assert found["SPF of twice.test"].found.startswith("2 records")


@pytest.mark.parametrize(
    ("greeting", "verdict", "text"),
    [
        (b"220 mx.local.test ready\r\n", Verdict.OK, "220 mx.local.test ready"),
        (b"554 not you\r\n", Verdict.FAULT, "554 not you"),
        (b"", Verdict.FAULT, "closed without a greeting"),
    ],
)
async def test_the_way_out_is_tried_where_a_host_is_given(
    look: Look, nursery: trio.Nursery, greeting: bytes, verdict: Verdict, text: str
) -> None:
    heard = bytearray()

    async def receive(stream: trio.SocketStream) -> None:
        await stream.send_all(greeting)
        await stream.send_eof()
        async for piece in stream:
            heard.extend(piece)

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    nursery.start_soon(trio.serve_listeners, receive, [listener])
    for host in ("local.test", "127.0.0.1"):
        way_out = (await look("out.test", probe=host, port=port))[f"way out to {host} port {port}"]
        assert way_out.verdict is verdict, way_out
        assert text in way_out.found
    assert heard in (b"", b"QUIT\r\n", 2 * b"QUIT\r\n"), "and nothing but that"


async def test_no_way_out_says_why(look: Look) -> None:
    with trio.socket.socket() as closed:
        await closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        found = await look("out.test", probe="local.test", port=port)
    assert "refused" in found[f"way out to local.test port {port}"].found
    found = await look("out.test", probe="nowhere.test")
    assert found["way out to nowhere.test port 25"].verdict is Verdict.FAULT
