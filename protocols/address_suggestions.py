"""Typing errors in domains: did the sender mean `gmail.com` when the address says `gmial.com`?

Owns the look-up in a list of known slips and the merging of such lists. An answer is a suggestion
beside an accepted address, or a better one for an address that was refused for its form; nothing is
refused or changed because of it.

Only what stands in a list is suggested. Nearness of letters proves nothing (`gmx.de` and `gmx.at`,
`mail.com` and `gmail.com` are one letter apart, and all four have users), so nothing is computed.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from protocols.addresses import Address, AddressFault, normalise_domain, parse_address

# An entry for every domain under a misspelt top-level domain begins with this.
ANY_DOMAIN = "*."


class TyposRefused(Exception):
    """A list of typing errors cannot be used; the text names the entry and says why."""


class DomainTypos:
    """Known slips, frozen: domains and endings with what was meant, and domains that are right."""

    __slots__ = ("_domains", "_endings", "_real")

    def __init__(self) -> None:
        """A list without entries; `extended` gives fuller ones."""
        self._domains: Mapping[str, str] = MappingProxyType({})
        self._endings: Mapping[str, str] = MappingProxyType({})
        self._real: frozenset[str] = frozenset()

    def domains(self) -> list[str]:
        """Return what is taken for an error: domains, and endings as "*.con"."""
        return [*self._domains, *(f"{ANY_DOMAIN}{ending}" for ending in self._endings)]

    def extended(self, typo: Mapping[str, object], real: Iterable[str] = ()) -> "DomainTypos":
        """Return this list with the entries of another on top, which win over those here.

        `typo` leads from "gmial.com" to "gmail.com" or from "*.con" to "*.com"; what `real` holds
        is taken for no error from now on. Raises TyposRefused for an entry that is no domain, that
        contradicts another one of the same list, or whose right side is itself an error.
        """
        domains, endings = dict(self._domains), dict(self._endings)
        read = _read_entries(typo)
        right = {_entry(text, f"real {text!r}") for text in real}
        if both := sorted(right & read.keys()):
            raise TyposRefused(f"typo {both[0]!r}: is listed as real, too")
        for wrong, meant in read.items():
            target, wrong_key = _table(wrong, domains, endings)
            target[wrong_key] = meant.removeprefix(ANY_DOMAIN)
        for text in right:
            target, right_key = _table(text, domains, endings)
            target.pop(right_key, None)
        found = DomainTypos()
        found._domains = MappingProxyType(domains)
        found._endings = MappingProxyType(endings)
        found._real = self._real - read.keys() | right
        found._check_ends()
        return found

    def right_domain(self, domain: str) -> str | None:
        """Return the domain that was most likely meant; None if this one is as good as any.

        `domain` is in lower-case A-labels, and so is the answer. An answer has none itself.
        """
        if domain in self._real:
            return None
        right = self._domains.get(domain)
        if right is not None:
            return right
        head, _, ending = domain.rpartition(".")
        ending_meant = self._endings.get(ending)
        if ending_meant is None:
            return None
        ended = f"{head}.{ending_meant}"
        return ended if ended in self._real else self._domains.get(ended, ended)

    def suggestion(self, address: Address) -> str | None:
        """Return the address with the domain that was meant, or None; it is always a legal one."""
        right = self.right_domain(address.domain)
        if right is None:
            return None
        meant = f"{address.local}@{right}"
        # A longer domain can make an address too long that was not.
        return meant if isinstance(parse_address(meant), Address) else None

    def parse(self, text: str) -> Address | AddressFault:
        """Do as `parse_address`, but let the suggestion of a fault lead to the domain meant."""
        parsed = parse_address(text)
        if isinstance(parsed, Address) or parsed.suggestion is None:
            return parsed
        repaired = parse_address(parsed.suggestion)
        assert isinstance(repaired, Address), parsed
        meant = self.suggestion(repaired)
        if meant is None:
            return parsed
        return AddressFault(parsed.code, parsed.position, parsed.text, meant)

    def _check_ends(self) -> None:
        for wrong, right in self._domains.items():
            if (further := self.right_domain(right)) is not None:
                raise TyposRefused(
                    f"typo {wrong!r}: leads to {right!r}, which is itself listed as an error "
                    f"for {further!r}"
                )
        for wrong, right in self._endings.items():
            if (further := self._endings.get(right)) is not None:
                raise TyposRefused(
                    f"typo '*.{wrong}': leads to '*.{right}', which is itself listed as an error "
                    f"for '*.{further}'"
                )


def _table(
    entry: str, domains: dict[str, str], endings: dict[str, str]
) -> tuple[dict[str, str], str]:
    """Return the table an entry belongs in, and its key there."""
    if entry.startswith(ANY_DOMAIN):
        return endings, entry.removeprefix(ANY_DOMAIN)
    return domains, entry


def _read_entries(typo: Mapping[str, object]) -> dict[str, str]:
    """Return the entries in A-labels, "*." kept."""
    read: dict[str, str] = {}
    for text, meant_text in typo.items():
        place = f"typo {text!r}"
        if not isinstance(meant_text, str):
            raise TyposRefused(f"{place}: expected the right domain as text, got {meant_text!r}")
        wrong, meant = _entry(text, place), _entry(meant_text, f"{place}: {meant_text!r}")
        if wrong.startswith(ANY_DOMAIN) != meant.startswith(ANY_DOMAIN):
            raise TyposRefused(f"{place}: an ending leads to an ending, a domain to a domain")
        if wrong == meant:
            raise TyposRefused(f"{place}: leads to itself; list it under real if it is right")
        if read.setdefault(wrong, meant) != meant:
            raise TyposRefused(f"{place}: is listed twice, in two spellings")
    return read


def _entry(text: str, place: str) -> str:
    """Return one side of an entry in lower-case A-labels."""
    is_ending = text.startswith(ANY_DOMAIN)
    # An ending is one label, and the grammar of domains wants two.
    domain = normalise_domain(f"x{text[1:]}" if is_ending else text)
    if isinstance(domain, AddressFault):
        raise TyposRefused(f"{place}: is no domain: {domain.text}")
    if not is_ending:
        return domain
    if domain.count(".") > 1:
        raise TyposRefused(f"{place}: an ending is one top-level domain, as in '*.con'")
    return f"{ANY_DOMAIN}{domain.removeprefix('x.')}"
