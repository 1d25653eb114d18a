"""MX records: which hosts take a domain's mail, in which order, and which domains belong together.

Owns the reading of an MX answer by RFC 5321 5.1 and RFC 7505: preference order with randomised
ties, the implicit MX, the null MX, and the rule that our own name ends the list. Looks nothing up
and connects to nothing; what an address may be is for the caller too.
"""

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import Final, Protocol, TypeVar

# A domain with more than this is a mistake or an attack (V20: answers with 300 and more exist).
# Those with the lowest preference values are kept, so the ones that would be tried first remain.
MX_HOSTS_MAX: Final = 20
# Eight addresses for one host name are more than any session will try before it moves on.
ADDRESSES_MAX: Final = 8


class NoMx(Enum):
    """Why a domain has no host that we may give its mail to."""

    NULL_MX = "the domain declares that it takes no mail (RFC 7505)"
    OURSELVES = "the best host for this domain is this system itself"


@dataclass(frozen=True, slots=True, order=True)
class MxHost:
    """One host to try; `name` in lower case without a final dot."""

    preference: int
    name: str


def mail_hosts(
    domain: str, records: Iterable[tuple[int, str]], *, own_names: Collection[str] = ()
) -> tuple[MxHost, ...] | NoMx:
    """Return the hosts of `domain` by preference, ties by name, from its MX `records`.

    `records` holds (preference, exchange) pairs, empty where the domain has no MX: the domain
    itself is then its only host. `own_names` are ours in lower case: the first host of such a name
    and all that are no better than it are left out, or mail would go round in circles.
    """
    given = [(preference, name.lower().rstrip(".")) for preference, name in records]
    # RFC 7505 3: a root name beside others is no null MX, only a host that cannot be reached.
    named = {MxHost(preference, name) for preference, name in given if name}
    if given and not named:
        return NoMx.NULL_MX
    if not given:
        named = {MxHost(0, domain.lower().rstrip("."))}
    ours = min((host.preference for host in named if host.name in own_names), default=None)
    if ours is not None:
        named = {host for host in named if host.preference < ours}
        if not named:
            return NoMx.OURSELVES
    # The same name twice is one host at its better preference.
    best: dict[str, MxHost] = {}
    for host in sorted(named):
        best.setdefault(host.name, host)
    return tuple(best.values())[:MX_HOSTS_MAX]


class Preferred(Protocol):
    """Anything with an MX preference: lower goes first."""

    @property
    def preference(self) -> int: ...


H = TypeVar("H", bound=Preferred)


def in_trying_order(hosts: Sequence[H], rand: random.Random) -> list[H]:
    """Return `hosts` sorted by preference, each group of equals shuffled (RFC 5321 5.1, MUST)."""
    order: list[H] = []
    ranked = sorted(hosts, key=lambda host: host.preference)
    for _, equals in groupby(ranked, key=lambda host: host.preference):
        group = list(equals)
        rand.shuffle(group)
        order += group
    return order


def site_name(hosts: Sequence[MxHost]) -> str:
    """Return the one name for the set of `hosts`, whatever their order and preferences.

    Domains with the same set share a site. The name is the hosts' names in order, and so readable;
    a set is told apart from every other because no host name has a comma.
    """
    return ",".join(sorted({host.name for host in hosts}))
