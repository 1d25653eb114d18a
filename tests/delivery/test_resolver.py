"""The resolver against real name servers: ours over UDP and TCP, and Debian's knot."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.delivery.resolver import (
    FAILURE_TTL_S,
    DnsResolver,
    MailHost,
    MailHosts,
    Memory,
    Unresolved,
)
from engine.rehearsal.dns_server import DnsServer
from engine.rehearsal.zones import NULL_MX, Fault, Records, Zones
from protocols.records import Reason, Status

TABLE = {
    "plain.test": Records(mx=((20, "mx2.plain.test"), (10, "MX1.plain.test"))),
    "mx1.plain.test": Records(a=("192.0.2.1",), aaaa=("2a00::1",)),
    "mx2.plain.test": Records(a=("192.0.2.3",)),
    "implicit.test": Records(a=("192.0.2.4",)),
    "null.test": NULL_MX,
    "empty.test": Records(),
    "dangling.test": Records(mx=((10, "nowhere.plain.test"),)),
    "ours.test": Records(mx=((10, "out.example"), (20, "mx1.plain.test"))),
    "alias.test": Records(cname="plain.test"),
    "mxalias.test": Records(mx=((10, "mxcname.test"),)),
    "mxcname.test": Records(cname="mx2.plain.test"),
    "loop.test": Records(cname="loop2.test"),
    "loop2.test": Records(cname="loop.test"),
    "servfail.test": Records(fault=Fault.SERVFAIL),
    "refused.test": Records(fault=Fault.REFUSED),
    "half.test": Records(mx=((10, "servfail.test"), (20, "mx2.plain.test"))),
    "doubtful.test": Records(mx=((10, "servfail.test"), (20, "nowhere.plain.test"))),
    "many.test": Records(mx=tuple((n, f"mx{n}.many.test") for n in range(1, 301))),
    "wide.test": Records(mx=((0, "hub.wide.test"),)),
    "hub.wide.test": Records(
        a=tuple(f"192.0.2.{n}" for n in range(1, 31)), aaaa=tuple(f"2a00::{n}" for n in range(30))
    ),
    "literal.test": Records(mx=((0, "192.0.2.9"),)),
}


def host_of_many(name: str) -> Records | None:
    return Records(a=("192.0.2.77",))


@pytest.fixture
async def server(nursery: trio.Nursery) -> AsyncIterator[DnsServer]:
    server = DnsServer(Zones(TABLE, {"many.test": host_of_many}))
    await nursery.start(server.serve)
    yield server
    nursery.cancel_scope.cancel()


def resolver_for(server: DnsServer) -> DnsResolver:
    return DnsResolver([f"{server.address}:{server.port}"], own_names=["out.example"])


async def test_hosts_by_preference_with_both_kinds_of_address_in_turns(server: DnsServer) -> None:
    assert await resolver_for(server).mail_hosts("plain.test") == MailHosts(
        (
            MailHost(10, "mx1.plain.test", ("2a00::1", "192.0.2.1")),
            MailHost(20, "mx2.plain.test", ("192.0.2.3",)),
        ),
        "mx1.plain.test,mx2.plain.test",
    )


@pytest.mark.parametrize(
    ("domain", "hosts"),
    [
        ("implicit.test", ["implicit.test"]),
        ("alias.test", ["mx1.plain.test", "mx2.plain.test"]),
        ("mxalias.test", ["mxcname.test"]),
        ("half.test", ["mx2.plain.test"]),
    ],
)
async def test_who_takes_the_mail(server: DnsServer, domain: str, hosts: list[str]) -> None:
    found = await resolver_for(server).mail_hosts(domain)
    assert isinstance(found, MailHosts)
    assert [host.name for host in found.hosts] == hosts
    assert all(host.addresses for host in found.hosts)


@pytest.mark.parametrize(
    ("domain", "reason", "status", "code"),
    [
        ("nowhere.plain.test", Reason.NO_SUCH_DOMAIN, Status.HARD_BOUNCED, "550 5.1.2"),
        ("null.test", Reason.NULL_MX, Status.HARD_BOUNCED, "556 5.1.10"),
        ("empty.test", Reason.NO_SUCH_DOMAIN, Status.HARD_BOUNCED, "550 5.1.2"),
        ("dangling.test", Reason.DNS, Status.SOFT_BOUNCED, "550 5.4.4"),
        ("literal.test", Reason.DNS, Status.SOFT_BOUNCED, "550 5.4.4"),
        ("ours.test", Reason.DNS, Status.SOFT_BOUNCED, "550 5.4.6"),
        ("bad..name", Reason.NO_SUCH_DOMAIN, Status.HARD_BOUNCED, "550 5.1.2"),
        ("x" * 64 + ".test", Reason.NO_SUCH_DOMAIN, Status.HARD_BOUNCED, "550 5.1.2"),
    ],
)
async def test_what_will_never_work(
    server: DnsServer, domain: str, reason: Reason, status: Status, code: str
) -> None:
    found = await resolver_for(server).mail_hosts(domain)
    assert isinstance(found, Unresolved)
    assert found.permanent
    assert (found.reason, found.status) == (reason, status)
    assert found.text.startswith(code)
    assert domain in found.text


@pytest.mark.parametrize("domain", ["servfail.test", "refused.test", "loop.test", "doubtful.test"])
async def test_what_may_work_later(server: DnsServer, domain: str) -> None:
    found = await resolver_for(server).mail_hosts(domain)
    assert isinstance(found, Unresolved)
    assert not found.permanent
    assert found.reason is Reason.DNS
    assert found.text.startswith("451 4.4.3 ")


async def test_it_is_told_that_one_of_several_hosts_failed(server: DnsServer) -> None:
    resolver = resolver_for(server)
    for domain, some_failed in (("half.test", True), ("plain.test", False)):
        found = await resolver.mail_hosts(domain)
        assert isinstance(found, MailHosts)
        assert found.some_failed is some_failed


async def test_three_hundred_hosts_come_over_tcp_and_are_capped(server: DnsServer) -> None:
    found = await resolver_for(server).mail_hosts("many.test")
    assert isinstance(found, MailHosts)
    assert [host.name for host in found.hosts] == [f"mx{n}.many.test" for n in range(1, 21)]
    assert server.statistics().tcp >= 1


async def test_addresses_are_capped(server: DnsServer) -> None:
    found = await resolver_for(server).addresses("hub.wide.test")
    assert isinstance(found, tuple)
    assert len(found) == 8
    assert sum(":" in address for address in found) == 4


async def test_fifty_at_once_ask_once(server: DnsServer) -> None:
    resolver = resolver_for(server)
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(resolver.mail_hosts, "plain.test")
    # One for MX, and A and AAAA for each of two hosts.
    assert server.statistics().udp == 5


async def test_who_was_told_to_try_asks_again(server: DnsServer) -> None:
    """Whatever is remembered from before that; what was asked since counts."""
    resolver = resolver_for(server)
    for domain, asked in (("servfail.test", 1), ("plain.test", 5)):
        before_s = trio.current_time()
        await resolver.mail_hosts(domain)
        told_s = trio.current_time()
        for since_s, more in ((before_s, 0), (told_s, asked), (told_s, 0)):
            udp = server.statistics().udp
            await resolver.mail_hosts(domain, since_s=since_s)
            assert server.statistics().udp == udp + more, (domain, since_s)


async def test_failures_are_remembered_too(server: DnsServer) -> None:
    resolver = resolver_for(server)
    for _ in range(5):
        await resolver.mail_hosts("servfail.test")
        await resolver.mail_hosts("nowhere.plain.test")
    assert server.statistics().udp == 2


async def test_a_failure_is_soon_forgotten(mock_clock: MockClock, server: DnsServer) -> None:
    resolver = resolver_for(server)
    for after_s, is_asked in ((0, True), (FAILURE_TTL_S - 1, False), (1, True)):
        mock_clock.jump(after_s)
        before = server.statistics().udp
        found = await resolver.mail_hosts("servfail.test")
        assert isinstance(found, Unresolved)
        assert not found.permanent
        assert (server.statistics().udp > before) == is_asked


async def test_a_second_server_helps_out(server: DnsServer, nursery: trio.Nursery) -> None:
    broken = DnsServer(Zones({}, {"test": lambda name: Records(fault=Fault.SERVFAIL)}))
    await nursery.start(broken.serve)
    resolver = DnsResolver(
        [f"127.0.0.1:{broken.port}", f"127.0.0.1:{server.port}"], own_names=["out.example"]
    )
    assert isinstance(await resolver.mail_hosts("plain.test"), MailHosts)
    assert broken.statistics().udp > 0


async def test_nonsense_from_the_network_is_a_passing_failure(nursery: trio.Nursery) -> None:
    """Wrong number, wrong question, no DNS at all, a header alone: never an exception."""
    answers: list[Callable[[bytes], bytes]] = [
        lambda query: b"rubbish",
        lambda query: bytes([query[0] ^ 1]) + query[1:],
        lambda query: query[:12],
        lambda query: query[:2] + b"\x81\x80" + query[4:12] + b"\x01z\x00\x00\x0f\x00\x01",
    ]
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as udp:
        await udp.bind(("127.0.0.1", 0))

        async def serve() -> None:
            number = 0
            while True:
                query, peer = await udp.recvfrom(4096)
                await udp.sendto(answers[number % len(answers)](query), peer)
                number += 1

        nursery.start_soon(serve)
        server = f"127.0.0.1:{udp.getsockname()[1]}"
        resolver = DnsResolver([server], try_s=0.02, lifetime_s=0.1)
        found = await resolver.mail_hosts("plain.test")
        assert isinstance(found, Unresolved)
        assert not found.permanent
        nursery.cancel_scope.cancel()


async def test_memory_forgets_in_time_and_in_number(autojump_clock: MockClock) -> None:
    asked: list[str] = []

    async def look_up(name: str) -> tuple[str, float]:
        asked.append(name)
        return name.upper(), 10.0

    memory: Memory[str] = Memory(entries_max=2)
    assert await memory.get("a", look_up) == "A"
    await memory.get("a", look_up)
    assert asked == ["a"]
    await trio.sleep(11)
    await memory.get("a", look_up)
    assert asked == ["a", "a"]
    for name in ("b", "c", "a"):
        await memory.get(name, look_up)
    assert asked == ["a", "a", "b", "c", "a"]
    assert len(memory) == 2


async def test_who_waits_for_a_cancelled_look_up_asks_himself() -> None:
    started = 0
    go_on = trio.Event()

    async def look_up(name: str) -> tuple[str, float]:
        nonlocal started
        started += 1
        await go_on.wait()
        return name, 10.0

    memory: Memory[str] = Memory(entries_max=2)
    results: list[str] = []

    async def ask() -> None:
        results.append(await memory.get("a", look_up))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as first:
            async with trio.open_nursery() as cancelled:
                cancelled.start_soon(memory.get, "a", look_up)
                await wait_all_tasks_blocked()
                nursery.start_soon(ask)
                nursery.start_soon(ask)
                await wait_all_tasks_blocked()
                first.cancel()
        await wait_all_tasks_blocked()
        assert started == 2
        go_on.set()
    assert results == ["a", "a"]


KNOT_ZONE = """
$ORIGIN test.
$TTL 300
@ SOA ns.test. hostmaster.test. 1 3600 600 86400 30
@ NS ns.test.
ns A 127.0.0.1
plain MX 10 mx1.plain
plain MX 20 mx2.plain
mx1.plain A 192.0.2.1
mx1.plain AAAA 2a00::1
mx2.plain A 192.0.2.3
implicit A 192.0.2.4
null MX 0 .
alias CNAME plain
loop CNAME loop2
loop2 CNAME loop
empty TXT "nothing else"
"""


@pytest.fixture(scope="module")
def knot_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    knotd = shutil.which("knotd") or shutil.which("knotd", path="/usr/sbin")
    if knotd is None:
        pytest.skip("needs Debian package knot")
    home: Path = tmp_path_factory.mktemp("knot")
    many = "".join(f"many MX {n} mx{n}.many\nmx{n}.many A 192.0.2.7\n" for n in range(1, 301))
    (home / "test.zone").write_text(KNOT_ZONE + many)
    for port in range(20000 + 7919 * 3 % 9000, 60000, 977):
        (home / "knot.conf").write_text(
            f'server:\n  listen: 127.0.0.1@{port}\n  rundir: "{home}"\n'
            f'database:\n  storage: "{home}"\n'
            f'zone:\n  - domain: test.\n    file: "{home}/test.zone"\n'
            f"    zonefile-sync: -1\n    journal-content: none\n"
            "log:\n  - target: stderr\n    any: info\n"
        )
        process = subprocess.Popen(
            [knotd, "-c", str(home / "knot.conf")], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "server started" in line:
                break
        else:
            process.wait()
            continue  # the port was somebody else's
        yield port
        process.terminate()
        process.stderr.close()
        process.wait()
        return
    pytest.skip("knotd does not start here")


@pytest.mark.slow
async def test_knot_says_the_same(knot_port: int) -> None:
    resolver = DnsResolver([f"127.0.0.1:{knot_port}"])
    found = await resolver.mail_hosts("plain.test")
    assert found == MailHosts(
        (
            MailHost(10, "mx1.plain.test", ("2a00::1", "192.0.2.1")),
            MailHost(20, "mx2.plain.test", ("192.0.2.3",)),
        ),
        "mx1.plain.test,mx2.plain.test",
    )
    assert await resolver.mail_hosts("alias.test") == found
    implicit = await resolver.mail_hosts("implicit.test")
    assert isinstance(implicit, MailHosts)
    many = await resolver.mail_hosts("many.test")
    assert isinstance(many, MailHosts)
    assert len(many.hosts) == 20
    for domain, permanent, reason in [
        ("nowhere.test", True, Reason.NO_SUCH_DOMAIN),
        ("null.test", True, Reason.NULL_MX),
        ("empty.test", True, Reason.NO_SUCH_DOMAIN),
        ("loop.test", False, Reason.DNS),
        ("outside.example", False, Reason.DNS),
    ]:
        failed = await resolver.mail_hosts(domain)
        assert isinstance(failed, Unresolved)
        assert (failed.permanent, failed.reason) == (permanent, reason), domain
