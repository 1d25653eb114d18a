"""What single configuration values may say: addresses, domain patterns, rates.

Each type reads its own text with `parse` and raises `ValueError` with what was expected; where the
value stood is added by `engine.config`. Nothing here opens a file or a socket.
"""

import ipaddress
import math
import re
from typing import ClassVar, Final, Self

import re2
from idna import IDNAError
from idna import encode as idna_encode

SECONDS_PER: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0}

_RATE: Final = re.compile(
    r"(?P<count>\d+(?:\.\d+)?) */ *(?P<unit>s|min|h|day)(?: *, *burst +(?P<burst>\d+))?"
)
_DURATION: Final = r"(?P<span>\d+(?:\.\d+)?) ?(?P<span_unit>s|min|h|day)"
_STEP: Final = re.compile(
    r"rate x(?P<factor>0?\.\d+)"
    rf"|suspend {_DURATION}"
    rf"|connections (?P<connections>\d{{1,6}}) for {_DURATION.replace('?P<span', '?P<c_span')}"
    rf"|rate (?P<rate>.+?) for {_DURATION.replace('?P<span', '?P<r_span')}"
)
# What a receiver may write in one reply is as long as it likes; reasons stand at its beginning.
REPLY_CHARACTERS_MAX: Final = 2048
# RFC 1035 2.3.4: a label has at most 63 octets. Underscores are no host names, but do occur.
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_HOST_PORT: Final = re.compile(
    r"(?:\[(?P<six>[^\]]*)\]|(?P<host>[^\[\]:]*))(?::(?P<port>\d{1,5}))?"
)


class _Value:
    """Compared, hashed and shown by its slots.

    No dataclass: msgspec would read one from a table of its fields, and never ask for `parse`.
    """

    __slots__: tuple[str, ...] = ()

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._fields()))})"


class Endpoint(_Value):
    """A host and a TCP or UDP port; the subclasses say which forms are legal where."""

    expected: ClassVar[str]
    default_port: ClassVar[int | None] = None
    port_min: ClassVar[int] = 1
    names_allowed: ClassVar[bool] = False

    __slots__ = ("host", "port")

    def __init__(self, host: str, port: int) -> None:
        self.host: Final = host
        self.port: Final = port

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "192.0.2.1:25", "[2001:db8::1]:25" or, where names are legal, "mx.example:25"."""
        found = _HOST_PORT.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"expected {cls.expected}, got {text!r}")
        host = found["six"] if found["six"] is not None else found["host"]
        port = int(found["port"]) if found["port"] else cls.default_port
        if (
            port is None
            or not cls.port_min <= port <= 65535
            or not cls._is_host(host, found["six"])
        ):
            raise ValueError(f"expected {cls.expected}, got {text!r}")
        return cls("127.0.0.1" if host == "localhost" else host, port)

    @classmethod
    def _is_host(cls, host: str, bracketed: str | None) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            named = host == "localhost" or (cls.names_allowed and _is_domain(host))
            return bracketed is None and named
        return (address.version == 6) == (bracketed is not None)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address; a name is never taken for one."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ListenAddress(Endpoint):
    """Where we listen. Port 0 lets the system choose; names are refused as they may move."""

    expected = 'IP address and port, like "127.0.0.1:8620" or "[::1]:8620"'
    port_min = 0


class NextHop(Endpoint):
    """Where a route delivers to."""

    expected = 'host and port, like "127.0.0.1:2525" or "relay.example:25"'
    names_allowed = True


class DnsServer(Endpoint):
    """A resolver to ask."""

    expected = 'IP address, with a port if it is not 53, like "127.0.0.1:5300"'
    default_port = 53


class DomainPattern(_Value):
    """Which recipient domains a route or rule is for: "host.example", "*.example" or "*".

    "*.example" means every domain below `example`, not `example` itself. Names are compared as
    lower-case A-labels.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text: Final = text

    @classmethod
    def parse(cls, text: str) -> Self:
        star, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
        if text == "*":
            return cls(text)
        try:
            name = name.lower() if name.isascii() else idna_encode(name, uts46=True).decode()
        except IDNAError as error:
            raise ValueError(f"{text!r} is no domain name: {error}") from error
        if not _is_domain(name):
            raise ValueError(
                f'expected a domain like "host.example", "*.example" or "*", got {text!r}'
            )
        return cls(star + name)

    def matches(self, domain: str) -> bool:
        """Say whether `domain` (lower-case A-labels) is meant."""
        if self.text.startswith("*."):
            return domain.endswith(self.text[1:]) and len(domain) >= len(self.text)
        return self.text in ("*", domain)

    def covers(self, other: "DomainPattern") -> bool:
        """Say whether every domain that `other` means is meant by this one, too."""
        if self.text == "*" or self.text == other.text:
            return True
        return self.text.startswith("*.") and other.text.endswith(self.text[1:])

    @property
    def narrowness(self) -> tuple[bool, int]:
        """Order among matching patterns: a whole name beats a star, a longer star a shorter one."""
        return ("*" not in self.text, len(self.text))

    def __str__(self) -> str:
        return self.text


class NamePattern(_Value):
    """Which accounts or campaigns a rule is for: "spring", or with a star at the end "spring*".

    Names are compared as they are; "*" means every name, and no mail without one.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text: Final = text

    @classmethod
    def parse(cls, text: str) -> Self:
        if not text or "*" in text[:-1]:
            raise ValueError(f'expected a name like "spring" or "spring*", got {text!r}')
        return cls(text)

    def matches(self, name: str | None) -> bool:
        if name is None:
            return False
        return name.startswith(self.text[:-1]) if self.text.endswith("*") else name == self.text

    def covers(self, other: "NamePattern") -> bool:
        """Say whether every name that `other` means is meant by this one, too."""
        if self.text.endswith("*"):
            return other.text.startswith(self.text[:-1])
        return self.text == other.text

    @property
    def narrowness(self) -> tuple[bool, int]:
        """Order among matching patterns: a whole name beats a star, a longer star a shorter one."""
        return ("*" not in self.text, len(self.text))

    def __str__(self) -> str:
        return self.text


class Rate(_Value):
    """So many messages a second in the long run, and at most `burst` at once.

    Without a burst in the text it is a tenth of a second's worth and at least one: enough that a
    bucket wastes nothing when the loop is late, too little to be seen as a breach by the receiver.
    """

    __slots__ = ("burst", "per_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self.per_s: Final = per_s
        self.burst: Final = burst

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "20/s", "100/min", "1000/h" or "5/day", each with or without ", burst N"."""
        found = _RATE.fullmatch(text.strip())
        per_s = float(found["count"]) / SECONDS_PER[found["unit"]] if found else 0.0
        burst = int(found["burst"]) if found and found["burst"] else max(1, math.ceil(per_s / 10))
        if per_s <= 0.0 or burst < 1:
            raise ValueError(f'expected a rate like "20/s, burst 20" or "100/min", got {text!r}')
        return cls(per_s, burst)

    def __str__(self) -> str:
        for unit, seconds in SECONDS_PER.items():
            # A whole number of a unit is how it was meant: 100/min is 1.667/s to nobody. What was
            # learned is no whole number of anything, so the unit is one that people can picture.
            whole = round(self.per_s * seconds)
            is_meant = 0 < whole < 10_000 or whole % 1_000 == 0
            if is_meant and math.isclose(self.per_s * seconds, whole, rel_tol=1e-6):
                return f"{whole}/{unit}, burst {self.burst}"
        unit = next((each for each, s in SECONDS_PER.items() if self.per_s * s >= 1), "day")
        count = float(f"{self.per_s * SECONDS_PER[unit]:.3g}")
        return f"{count:.12g}/{unit}, burst {self.burst}"


class ReplyPattern(_Value):
    """A regular expression that is looked for in replies, in time linear to their length.

    Receivers write what they like, so an engine that can be made to try all ways to match is out
    of the question: this is RE2, which refuses what it could not match in linear time.
    """

    __slots__ = ("_compiled", "text")

    def __init__(self, text: str) -> None:
        options = re2.Options()
        options.log_errors = False
        self.text: Final = text
        self._compiled: Final = re2.compile(text, options)

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            return cls(text)
        except re2.error as error:
            fault = error.args[0] if error.args else ""
            said = fault.decode("utf-8", "replace") if isinstance(fault, bytes) else str(fault)
            raise ValueError(
                f"expected a regular expression (RE2), got {text!r}: {said}"
            ) from error

    def matches(self, reply: str) -> bool:
        """Say whether the expression is found anywhere in `reply`."""
        # A reply may hold what is no character; it must not end the process.
        text = reply[:REPLY_CHARACTERS_MAX].encode("utf-8", "replace").decode()
        return self._compiled.search(text) is not None

    def _fields(self) -> tuple[object, ...]:
        return (self.text,)

    def __str__(self) -> str:
        return self.text


class Step(_Value):
    """What a reaction does: one of "rate x0.5", "suspend 2h", "connections 1 for 30min" or
    "rate 10/min for 30min".

    Exactly one of `factor`, `rate`, `connections` is given, or none: then nothing goes for `for_s`.
    """

    __slots__ = ("connections", "factor", "for_s", "rate", "text")

    def __init__(
        self,
        text: str,
        *,
        factor: float | None,
        rate: Rate | None,
        connections: int | None,
        for_s: float,
    ) -> None:
        self.text: Final = text
        self.factor: Final = factor
        self.rate: Final = rate
        self.connections: Final = connections
        self.for_s: Final = for_s

    @classmethod
    def parse(cls, text: str) -> Self:
        found = _STEP.fullmatch(text.strip())
        if found is None:
            raise ValueError(
                'expected "rate x0.5", "suspend 2h", "connections 1 for 30min" or '
                f'"rate 10/min for 30min", got {text!r}'
            )
        span = found["span"] or found["c_span"] or found["r_span"]
        unit = found["span_unit"] or found["c_span_unit"] or found["r_span_unit"]
        step = cls(
            text.strip(),
            factor=float(found["factor"]) if found["factor"] else None,
            rate=Rate.parse(found["rate"]) if found["rate"] else None,
            connections=int(found["connections"]) if found["connections"] else None,
            for_s=float(span) * SECONDS_PER[unit] if span else 0.0,
        )
        if step.connections == 0 or step.factor == 0.0 or (span and step.for_s <= 0.0):
            raise ValueError(f"a step to nothing is a suspension for a time, got {text!r}")
        return step

    def __str__(self) -> str:
        return self.text


class Network(_Value):
    """A CIDR network of either family; a single address is a network of one."""

    __slots__ = ("network",)

    def __init__(self, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
        self.network: Final = network

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            return cls(ipaddress.ip_network(text))
        except ValueError as error:
            raise ValueError(f'expected a CIDR network like "10.0.0.0/8": {error}') from error

    def __contains__(self, address: str) -> bool:
        return ipaddress.ip_address(address) in self.network

    def __str__(self) -> str:
        return str(self.network)


def _is_domain(name: str) -> bool:
    # RFC 1035 2.3.4 counts 255 octets with the length octets and the root: 253 characters.
    return len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split("."))
