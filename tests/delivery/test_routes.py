from collections.abc import Mapping

import pytest

from engine.config import Config, Route
from engine.config_values import DomainPattern, Network, NextHop
from engine.delivery.resolver import NEVER_S, MailHost, MailHosts, Unresolved
from engine.delivery.routes import NextHost, Router, Way, may_connect
from protocols.records import Reason, Status


class TableResolver:
    """Answers from two tables; what is missing does not exist."""

    def __init__(
        self,
        domains: Mapping[str, MailHosts] | None = None,
        hosts: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.domains = domains or {}
        self.hosts = hosts or {}

    async def mail_hosts(self, domain: str, *, since_s: float = NEVER_S) -> MailHosts | Unresolved:
        gone = Unresolved(True, Reason.NO_SUCH_DOMAIN, "550 5.1.2 no such domain")
        return self.domains.get(domain, gone)

    async def addresses(
        self, host: str, *, since_s: float = NEVER_S
    ) -> tuple[str, ...] | Unresolved:
        return self.hosts.get(host, Unresolved(True, Reason.DNS, "550 5.4.4 no address"))


FORBIDDEN = [
    "127.0.0.1",
    "127.255.0.9",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "198.18.0.1",
    "192.0.0.8",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "fc00::1",
    "fdff::1",
    "ff02::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
]
ALLOWED = [
    "9.9.9.9",
    "172.32.0.1",
    "100.128.0.1",
    "192.0.2.1",
    "2a00::1",
    "::ffff:9.9.9.9",
    "64:ff9b::909:909",
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_mx_host_cannot_be_in_our_own_network(address: str) -> None:
    assert not may_connect(address, [])


@pytest.mark.parametrize("address", ALLOWED)
def test_public_addresses_are_fair_game(address: str) -> None:
    assert may_connect(address, [])


def test_listed_networks_are_allowed_in_every_disguise() -> None:
    loopback = [Network.parse("127.0.0.0/8"), Network.parse("::1/128")]
    assert may_connect("127.3.0.1", loopback)
    assert may_connect("::1", loopback)
    assert may_connect("::ffff:127.0.0.1", loopback)
    assert not may_connect("10.0.0.1", loopback)


def no_route(domain: str) -> None:
    """What a configuration without routes says."""


def route(domain: str, next_hop: str) -> Route:
    return Route(domain=DomainPattern.parse(domain), next_hop=NextHop.parse(next_hop))


async def test_the_first_matching_route_wins() -> None:
    router = Router(
        TableResolver(hosts={"relay.example": ("192.0.2.7",)}),
        next_hop=Config(
            routes=(
                route("one.test", "[::1]:2526"),
                route("*.test", "127.0.0.1:2525"),
                route("*", "relay.example:26"),
            )
        ).next_hop,
    )
    assert await router.way_to("one.test") == Way(
        "[::1]:2526", (NextHost(0, "::1", ("::1",), 2526),), routed=True
    )
    assert await router.way_to("deep.two.test") == Way(
        "127.0.0.1:2525", (NextHost(0, "127.0.0.1", ("127.0.0.1",), 2525),), routed=True
    )
    assert await router.way_to("example.org") == Way(
        "relay.example:26", (NextHost(0, "relay.example", ("192.0.2.7",), 26),), routed=True
    )


async def test_a_next_hop_without_address_is_no_reason_to_bounce() -> None:
    router = Router(TableResolver(), next_hop=lambda _: NextHop("relay.example", 26))
    way = await router.way_to("one.test")
    assert way == Unresolved(False, Reason.DNS, "451 4.4.4 no address")


async def test_without_route_the_mx_hosts_and_only_their_public_addresses() -> None:
    hosts = MailHosts(
        (
            MailHost(10, "inside.test", ("10.0.0.1", "::1")),
            MailHost(20, "mx.test", ("127.0.0.1", "192.0.2.1", "2a00::1")),
        ),
        "inside.test,mx.test",
    )
    router = Router(TableResolver({"x.test": hosts}), next_hop=no_route, port=2525)
    assert await router.way_to("x.test") == Way(
        "inside.test,mx.test", (NextHost(20, "mx.test", ("192.0.2.1", "2a00::1"), 2525),)
    )


async def test_a_domain_whose_hosts_are_all_inside_is_refused_for_good() -> None:
    hosts = MailHosts((MailHost(10, "inside.test", ("169.254.169.254",)),), "inside.test")
    way = await Router(TableResolver({"x.test": hosts}), next_hop=no_route).way_to("x.test")
    assert isinstance(way, Unresolved)
    assert way.permanent
    assert way.reason is Reason.POLICY
    assert way.status is Status.BLOCKED


async def test_what_the_resolver_says_is_passed_on() -> None:
    way = await Router(TableResolver(), next_hop=no_route).way_to("nowhere.test")
    assert isinstance(way, Unresolved)
    assert way.status is Status.HARD_BOUNCED


async def test_nothing_is_final_while_a_public_host_may_only_be_unknown() -> None:
    """The look-up of the first host failed just now; the second is inside our own network."""
    inside = (MailHost(20, "inside.test", ("10.0.0.1",)),)
    hosts = MailHosts(inside, "inside.test,outside.test", some_failed=True)
    router = Router(TableResolver({"half.test": hosts}), next_hop=lambda domain: None)
    way = await router.way_to("half.test")
    assert isinstance(way, Unresolved)
    assert (way.permanent, way.reason, way.text[:9]) == (False, Reason.DNS, "451 4.4.4")
