"""Which hosts may we give a domain's mail to: a configured route, or its MX hosts.

Owns the choice between the two, the name of the site, and the guard that keeps
mail away from addresses that are nobody's mail server but our own network's
(loopback, private, link-local and their disguises in IPv6). Every address is
checked after it was resolved, and it is the checked address that is connected to:
a name that changes its answer in between gains nothing.
"""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from engine.config_values import Network, NextHop
from engine.delivery.resolver import NEVER_S, Resolver, Unresolved
from protocols.records import Reason

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 6890 and its registries, as far as mail to them can only reach ourselves or nobody.
# The documentation ranges are not here: nothing answers there, and tests need addresses.
_FORBIDDEN: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local: the metadata services of clouds are here
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks between devices
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/127",  # unspecified and loopback
        "64:ff9b:1::/48",  # local translation
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


@dataclass(frozen=True, slots=True)
class NextHost:
    """One host to connect to, with its checked addresses."""

    preference: int
    name: str
    addresses: tuple[str, ...]
    port: int


@dataclass(frozen=True, slots=True)
class Way:
    """Where a domain's mail goes now. `site` names what its limits are shared over.

    `routed` says that the operator named the next hop himself.
    """

    site: str
    hosts: tuple[NextHost, ...]
    routed: bool = False


class Router:
    """Turns a recipient domain into a `Way`.

    `next_hop` says which route the configuration has for a domain, if any.
    `private_targets` are the networks that an MX record may name although they
    are private; a route may always name one.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        next_hop: Callable[[str], NextHop | None],
        port: int = 25,
        private_targets: Sequence[Network] = (),
    ) -> None:
        self._resolver = resolver
        self._next_hop = next_hop
        self._port = port
        self._private_targets = tuple(private_targets)

    async def way_to(self, domain: str, *, since_s: float = NEVER_S) -> Way | Unresolved:
        """Return where mail to `domain` goes, or why nowhere (for ever, or just now).

        What was found out before `since_s` (trio's clock) is looked up again.
        """
        next_hop = self._next_hop(domain)
        if next_hop is not None:
            return await self._routed(next_hop, since_s)
        found = await self._resolver.mail_hosts(domain, since_s=since_s)
        if isinstance(found, Unresolved):
            return found
        hosts = []
        for host in found.hosts:
            addresses = tuple(a for a in host.addresses if may_connect(a, self._private_targets))
            if addresses:
                hosts.append(NextHost(host.preference, host.name, addresses, self._port))
        if not hosts and found.some_failed:
            # The public ones may be those that failed: nothing is final before they have answered.
            text = (
                f"451 4.4.4 of the MX hosts of {domain} those with a public address are not known"
            )
            return Unresolved(False, Reason.DNS, text)
        if not hosts:
            text = f"550 5.4.4 the MX hosts of {domain} have only private addresses"
            return Unresolved(True, Reason.POLICY, text)
        return Way(found.site, tuple(hosts))

    async def _routed(self, next_hop: NextHop, since_s: float) -> Way | Unresolved:
        try:
            ipaddress.ip_address(next_hop.host)
        except ValueError:
            addresses = await self._resolver.addresses(next_hop.host, since_s=since_s)
            if isinstance(addresses, Unresolved):
                # The operator's mistake, not the recipient's: nothing is final until he had time.
                return Unresolved(False, Reason.DNS, addresses.text.replace("550 5.", "451 4.", 1))
        else:
            addresses = (next_hop.host,)
        host = NextHost(0, next_hop.host, addresses, next_hop.port)
        return Way(str(next_hop), (host,), routed=True)


def may_connect(address: str, allowed: Sequence[Network]) -> bool:
    """Say whether an MX host may be at `address`: it is public, or `allowed` has it."""
    given = ipaddress.ip_address(address)
    meant = _meant_address(given)
    if not any(meant in network for network in _FORBIDDEN if network.version == meant.version):
        return True
    return any(address in network or str(meant) in network for network in allowed)


def _meant_address(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address itself."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    # RFC 6052: the translator's well-known prefix; RFC 4291 2.5.5.1: the old compatible form.
    if address in _TRANSLATED or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
