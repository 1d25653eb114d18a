"""What the engine consists of for those who look from outside, and how well a part can be.

The words are those of Statuspage, because monitors and dashboards know them.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from protocols.languages import Language


class Level(StrEnum):
    """How well a component works, from best to worst."""

    OPERATIONAL = "operational"
    DEGRADED = "degraded_performance"
    PARTIAL = "partial_outage"
    MAJOR = "major_outage"


LEVELS: Final = tuple(Level)
UNDER_MAINTENANCE: Final = "under_maintenance"


class Impact(StrEnum):
    """How much an incident means for senders, from least to most."""

    NONE = "none"
    MINOR = "minor"
    MAJOR = "major"
    CRITICAL = "critical"


IMPACTS: Final = tuple(Impact)


class Component(StrEnum):
    """A part, by the id under which it is known outside."""

    HTTP_INTAKE = "http_intake"
    DELIVERY = "delivery"
    STREAM = "stream"
    DNS = "dns"
    DISK = "disk"


COMPONENTS: Final = tuple(Component)
NAMES: Final[dict[Language, dict[Component, str]]] = {
    "en": {
        Component.HTTP_INTAKE: "Mail intake over HTTP",
        Component.DELIVERY: "Delivery",
        Component.STREAM: "Event stream",
        Component.DNS: "Name resolution (DNS)",
        Component.DISK: "Storage",
    },
    "de": {
        Component.HTTP_INTAKE: "Annahme über HTTP",
        Component.DELIVERY: "Zustellung",
        Component.STREAM: "Ereignisstrom",
        Component.DNS: "Namensauflösung (DNS)",
        Component.DISK: "Speicher",
    },
}
DESCRIPTIONS: Final[dict[Language, dict[Component, str]]] = {
    "en": {
        Component.HTTP_INTAKE: "Takes mail from senders' programs.",
        Component.DELIVERY: "Hands mail to the receivers' servers.",
        Component.STREAM: "Tells what becomes of each mail.",
        Component.DNS: "Finds out where a domain takes its mail.",
        Component.DISK: "Keeps mail until it is delivered.",
    },
    "de": {
        Component.HTTP_INTAKE: "Nimmt Mails von den Programmen der Absender an.",
        Component.DELIVERY: "Übergibt Mails an die Server der Empfänger.",
        Component.STREAM: "Meldet, was aus jeder Mail wird.",
        Component.DNS: "Findet heraus, wo eine Domain ihre Mails annimmt.",
        Component.DISK: "Bewahrt Mails auf, bis sie zugestellt sind.",
    },
}


def worst(levels: Iterable[Level]) -> Level:
    """Return the worst of some levels; none at all are operational."""
    return max(levels, key=LEVELS.index, default=Level.OPERATIONAL)
