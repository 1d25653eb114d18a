"""Which MX hosts rules about sites are matched with, for one domain, and how they are known.

As given, as a route says, as the running engine knows them, or looked up now, in this order; of a
large receiver a host is known without the DNS.
"""

from dataclasses import dataclass
from typing import Final

import trio

from engine.cli.control import EngineStopped, running_engine
from engine.config import Config
from engine.delivery.resolver import Unresolved
from engine.delivery.service import resolver_for
from engine.shaping.loading import placed_routes
from engine.shaping.receivers import usual_host

# Somebody waits at a terminal; a name server that lives answers well within this.
LOOK_UP_S_MAX: Final = 5.0


@dataclass(frozen=True, slots=True)
class Site:
    """The hosts, and in words what that rests on. Without hosts it is why there are none."""

    hosts: tuple[str, ...]
    based_on: str


def find_site(config: Config, domain: str, given: str | None) -> Site:
    """Return the site of a domain (A-labels). Raises EngineRefused."""
    if given is not None:
        hosts = tuple(host.strip().lower() for host in given.split(",") if host.strip())
        return Site(hosts, "--site")
    for placed in placed_routes(config):
        if placed.route.domain.matches(domain):
            return Site((placed.route.next_hop.host,), f"the route at {placed.place}")
    try:
        with running_engine(config.control_socket) as control:
            answer = control.get("/v1/destinations", destination=domain)
    except EngineStopped:
        pass
    else:
        known = [row["site"] for row in answer["destinations"] if row["destination"] == domain]
        if known and known[0]:
            return Site(tuple(known[0].split(",")), "what the running engine knows")
    looked_up = trio.run(_looked_up, config, domain)
    usual = None if looked_up.hosts else usual_host(domain)
    if usual is None:
        return looked_up
    return Site((usual,), f"its usual MX host; the DNS has none: {looked_up.based_on}")


async def _looked_up(config: Config, domain: str) -> Site:
    with trio.move_on_after(LOOK_UP_S_MAX):
        found = await resolver_for(config).mail_hosts(domain)
        if isinstance(found, Unresolved):
            return Site((), found.text)
        return Site(tuple(found.site.split(",")), "MX records looked up now")
    return Site((), f"no name server answered within {LOOK_UP_S_MAX:g} s")
