"""The engine's `Resolver` answered from `zones` directly, for the simulation.

It draws the same line between "never" and "not now" as the one on dnspython; a
test asks both the same questions. It keeps nothing: a look-up in a table is
cheaper than a cache, and a scenario may change the table at any time.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain, zip_longest

import trio

from engine.delivery.resolver import LIFETIME_S, NEVER_S, MailHost, MailHosts, Unresolved
from engine.rehearsal.zones import Fault, Records, Zones
from protocols.mx import ADDRESSES_MAX, NoMx, mail_hosts, site_name
from protocols.records import Reason


@dataclass(frozen=True, slots=True)
class _Failure:
    text: str


class TableResolver:
    """Answers at once, in the loop; a silent name takes as long as a real resolver waits."""

    def __init__(self, zones: Zones, *, own_names: Collection[str] = ()) -> None:
        self._zones = zones
        self._own_names = frozenset(own_names)

    async def mail_hosts(self, domain: str, *, since_s: float = NEVER_S) -> MailHosts | Unresolved:
        records = await self._ask(domain)
        if isinstance(records, _Failure):
            return _not_now(domain, records)
        if records is None:
            text = f"550 5.1.2 domain {domain} does not exist"
            return Unresolved(True, Reason.NO_SUCH_DOMAIN, text)
        hosts = mail_hosts(domain, records.mx, own_names=self._own_names)
        if hosts is NoMx.NULL_MX:
            text = f"556 5.1.10 domain {domain} takes no mail (null MX)"
            return Unresolved(True, Reason.NULL_MX, text)
        if hosts is NoMx.OURSELVES:
            text = f"550 5.4.6 mail for {domain} would come back to this system"
            return Unresolved(True, Reason.DNS, text)
        usable: list[MailHost] = []
        failure: Unresolved | None = None
        for host in hosts:
            addresses = await self.addresses(host.name)
            if isinstance(addresses, tuple):
                usable.append(MailHost(host.preference, host.name, addresses))
            elif not addresses.permanent:
                failure = failure or addresses
        if usable:
            return MailHosts(tuple(usable), site_name(hosts))
        if failure is not None:
            return failure
        if records.mx:
            text = f"550 5.4.4 no MX host of {domain} has an address"
            return Unresolved(True, Reason.DNS, text)
        text = f"550 5.1.2 domain {domain} has neither MX nor address"
        return Unresolved(True, Reason.NO_SUCH_DOMAIN, text)

    async def addresses(
        self, host: str, *, since_s: float = NEVER_S
    ) -> tuple[str, ...] | Unresolved:
        records = await self._ask(host)
        if isinstance(records, _Failure):
            return _not_now(host, records)
        pairs = zip_longest(records.aaaa, records.a) if records is not None else ()
        mixed = tuple(address for address in chain(*pairs) if address is not None)
        if mixed:
            return mixed[:ADDRESSES_MAX]
        return Unresolved(True, Reason.DNS, f"550 5.4.4 host {host} has no address")

    async def _ask(self, name: str) -> Records | _Failure | None:
        await trio.lowlevel.checkpoint()
        passed, records = self._zones.follow(name)
        if records is not None and records.fault is Fault.SILENCE:
            await trio.sleep(LIFETIME_S)
            return _Failure("no name server answered in time")
        if records is not None and records.fault is not None:
            return _Failure(records.fault.name)
        if passed and records is not None and passed[0][0] in {r.cname for _, r in passed}:
            return _Failure("too many aliases, or a loop of them")
        return records


def _not_now(name: str, failure: _Failure) -> Unresolved:
    return Unresolved(False, Reason.DNS, f"451 4.4.3 DNS look-up of {name} failed: {failure.text}")
