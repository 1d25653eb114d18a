"""The sixty domains of the demo: who lives there and how their servers behave.

Data and arithmetic only. The numbers are chosen so that a run shows each kind of
trouble and still ends within two minutes; nothing here is tuned to look fast.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.rehearsal.behaviour import Behaviour
from engine.rehearsal.zones import NULL_MX, Records, Zones

ZONE = "demo.test"


@dataclass(frozen=True, slots=True)
class Kind:
    """Several domains that behave alike; `behaviour` is None where no server is.

    `weight` is how much of the mail goes to each of them, beside the others'.
    """

    name: str
    count: int
    weight: int
    note: str
    behaviour: Behaviour | None


KINDS = (
    Kind("fast", 40, 38, "takes everything at once", Behaviour()),
    Kind(
        "distant",
        2,
        38,
        "50 ms away",
        Behaviour(reply_delay_s=0.05),
    ),
    Kind(
        "busy",
        4,
        30,
        "421 above 40 mails a second",
        Behaviour(rate_per_s=40.0, rate_burst=80),
    ),
    Kind("grey", 4, 20, "greylists for 5 s", Behaviour(greylist_s=5.0)),
    Kind(
        "down",
        2,
        20,
        "refuses connections for 15 s",
        Behaviour(down_s=((0.0, 15.0),)),
    ),
    Kind(
        "full",
        2,
        20,
        "one mailbox in ten is full for 20 s",
        Behaviour(full_share=0.1, full_until_s=20.0),
    ),
    Kind(
        "hopeless",
        1,
        10,
        "one mailbox in ten stays full",
        Behaviour(full_share=0.1),
    ),
    Kind(
        "strangers",
        2,
        20,
        "one user in six is unknown",
        Behaviour(unknown_share=1 / 6),
    ),
    Kind("tarpit", 1, 5, "waits 0.3 s before each reply", Behaviour(reply_delay_s=0.3)),
    Kind("nomail", 1, 5, "says in DNS that it takes no mail", None),
    Kind("nowhere", 1, 5, "does not exist", None),
)


@dataclass(frozen=True, slots=True)
class Place:
    """One domain and, where it has a server, the loopback address it listens on."""

    domain: str
    kind: Kind
    address: str


def places(kinds: Sequence[Kind] = KINDS) -> tuple[Place, ...]:
    """Return the domains of all `kinds`, each at an address and so a site of its own."""
    found: list[Place] = []
    for kind in kinds:
        for number in range(1, kind.count + 1):
            found.append(
                Place(f"{kind.name}-{number:02}.{ZONE}", kind, f"127.4.0.{len(found) + 1}")
            )
    return tuple(found)


PLACES = places()


def zones_of(all_places: Sequence[Place]) -> Zones:
    """Return the DNS of these places: an MX each, a null MX, and a name that is missing."""
    table: dict[str, Records] = {}
    for place in all_places:
        if place.kind.behaviour is not None:
            table[place.domain] = Records(mx=((10, f"mx.{place.domain}"),))
            table[f"mx.{place.domain}"] = Records(a=(place.address,))
        elif place.kind.name == "nomail":
            table[place.domain] = NULL_MX
    return Zones(table)


def recipients(all_places: Sequence[Place], count: int) -> Iterator[str]:
    """Yield `count` different addresses, mixed as a campaign's list is.

    Each place gets its share to within one mail: the next address always belongs to
    the place that is furthest behind its share.
    """
    given = [0] * len(all_places)
    total = sum(place.kind.weight for place in all_places)
    shares = [place.kind.weight / total for place in all_places]
    for number in range(1, count + 1):
        behind = max(range(len(shares)), key=lambda i: shares[i] * number - given[i])
        given[behind] += 1
        yield f"reader{number}@{all_places[behind].domain}"
