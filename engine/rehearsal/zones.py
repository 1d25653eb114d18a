"""What the rehearsal's DNS knows: a table of names, and rules for families of names.

Pure look-ups without a codec or a socket. `dns_server` puts the answers on the
wire and `resolver` gives the same ones to the simulation, so a scenario that
works in virtual time works over real DNS too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum


class Fault(Enum):
    """How a name server can fail to answer for one name."""

    SERVFAIL = "the server says that it failed"
    REFUSED = "the server will not answer us"
    SILENCE = "the server says nothing"


@dataclass(frozen=True, slots=True)
class Records:
    """All records of one name. Nothing set means that it exists and has no data.

    `mx` holds (preference, host) pairs; a host of "." is the null MX of RFC 7505.
    With `cname` the other types are ignored (RFC 1034 3.6.2); with `fault` everything is.
    """

    mx: tuple[tuple[int, str], ...] = ()
    a: tuple[str, ...] = ()
    aaaa: tuple[str, ...] = ()
    txt: tuple[str, ...] = ()
    ptr: tuple[str, ...] = ()
    cname: str = ""
    fault: Fault | None = None
    # Shorter than any rehearsal would make the resolver ask again all the time,
    # and what is measured is mail.
    ttl_s: int = 300


NULL_MX = Records(mx=((0, "."),))
NO_DATA = Records()

# How many aliases are followed. Resolvers stop at 8 to 16; a loop shows itself before that.
ALIASES_MAX = 8


class Zones:
    """Names and their records; a name that is nowhere does not exist.

    `families` maps a suffix ("bulk.test") to a rule that gives the records of any
    name below it, or None where that name does not exist. An entry of the table
    comes before a rule, and the longest suffix before a shorter one.
    """

    def __init__(
        self,
        table: Mapping[str, Records],
        families: Mapping[str, Callable[[str], Records | None]] | None = None,
    ) -> None:
        self._table = {normalise(name): records for name, records in table.items()}
        self._families = {normalise(name): rule for name, rule in (families or {}).items()}
        self._ancestors: set[str] = set()
        self._find_ancestors()
        # Grows with each change, so that whoever keeps answers knows when to drop them.
        self.version = 0

    def set(self, name: str, records: Records | None) -> None:
        """Change one name; None makes it not exist."""
        name = normalise(name)
        if records is None:
            self._table.pop(name, None)
        else:
            self._table[name] = records
        self._find_ancestors()
        self.version += 1

    def look_up(self, name: str) -> Records | None:
        """Return the records of exactly this name, or None for NXDOMAIN."""
        name = normalise(name)
        records = self._table.get(name)
        if records is not None:
            return records
        for suffix in _suffixes(name):
            rule = self._families.get(suffix)
            if rule is not None and suffix != name:
                return rule(name)
        # An empty non-terminal exists (RFC 8020 2): "test" is no NXDOMAIN
        # while "a.test" has an address.
        return NO_DATA if name in self._ancestors else None

    def follow(self, name: str) -> tuple[list[tuple[str, Records]], Records | None]:
        """Follow aliases from `name`.

        Returns the aliases passed, each with its records, and the records at the
        end, or None if that name does not exist. A loop ends at its first
        repetition, with no data.
        """
        passed: list[tuple[str, Records]] = []
        name = normalise(name)
        records = self.look_up(name)
        while records is not None and records.cname and records.fault is None:
            if len(passed) == ALIASES_MAX or any(name == alias for alias, _ in passed):
                return passed, NO_DATA
            passed.append((name, records))
            name = normalise(records.cname)
            records = self.look_up(name)
        return passed, records

    def _find_ancestors(self) -> None:
        names = [*self._table, *self._families]
        self._ancestors = {suffix for name in names for suffix in _suffixes(name)}


def normalise(name: str) -> str:
    """Return `name` in lower case without the final dot."""
    return name.lower().rstrip(".")


def _suffixes(name: str) -> Iterator[str]:
    """Yield `name` and everything above it, longest first."""
    while name:
        yield name
        _, _, name = name.partition(".")
