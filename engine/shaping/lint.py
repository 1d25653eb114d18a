"""What is wrong with rules that can be read: reactions that never fire, rules that never hold.

Likewise routes that are never taken.

Each reaction proves with its sample that it can fire: its own expression finds the sample, and no
reaction before it takes the sample away. Pure; the files have been read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from engine.config import Reaction, Rule
from engine.config_values import DomainPattern
from engine.shaping.book import (
    FIELDS,
    SELECTORS,
    PlacedReaction,
    PlacedRoute,
    PlacedRule,
    RuleBook,
    covers,
    scope_of,
)
from engine.shaping.places import Place
from protocols.addresses import AddressFault, normalise_domain


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One fault, in the line where somebody has to change something."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def idle_routes(routes: Sequence[PlacedRoute]) -> list[Finding]:
    """Return which routes no mail can ever take, by file and line."""
    found: list[Finding] = []
    for number, placed in enumerate(routes):
        domain = placed.route.domain
        fault = _no_address_fault(domain)
        shadow = next((each for each in routes[:number] if each.route.domain.covers(domain)), None)
        if fault is not None:
            found.append(Finding(placed.place, f"no mail takes the route {domain}: {fault}"))
        elif shadow is not None:
            text = (
                f"no mail takes the route {domain}: the route {shadow.route.domain} in line "
                f"{shadow.place.line} comes first and has all of it"
            )
            found.append(Finding(placed.place, text))
    return found


def findings(book: RuleBook) -> list[Finding]:
    """Return what is wrong, by file and line."""
    return sorted([*_of_rules(book.rules), *_of_reactions(book.reactions)])


def _of_rules(rules: Sequence[PlacedRule]) -> Iterator[Finding]:
    for placed in rules:
        given = [name for name in FIELDS if getattr(placed.rule, name) is not None]
        if not given:
            yield Finding(placed.place, "the rule sets nothing")
        destination = placed.rule.destination
        if destination is not None and (fault := _no_address_fault(destination)):
            yield Finding(placed.place, f"the rule never holds: {destination}: {fault}")
    for earlier, later in combinations(rules, 2):
        # Between files it is meant: one's own file changes what another one says.
        if earlier.place.file != later.place.file or not _is_same(earlier.rule, later.rule):
            continue
        for name in FIELDS:
            one, other = getattr(earlier.rule, name), getattr(later.rule, name)
            if one is None or other is None:
                continue
            if one == other:
                yield Finding(earlier.place, f"{name} is said again in line {later.place.line}")
            else:
                yield Finding(
                    earlier.place,
                    f"{name} never holds: line {later.place.line} has the same match and says "
                    "something else",
                )


def _of_reactions(reactions: Sequence[PlacedReaction]) -> Iterator[Finding]:
    for number, placed in enumerate(reactions):
        reaction = placed.reaction
        if not (reaction.sample[:1] in "45" and reaction.sample[:3].isdigit()):
            yield Finding(placed.place, "the sample is no refusal: it begins with no 4yz or 5yz")
        if not reaction.reply.matches(reaction.sample):
            yield Finding(
                placed.place, f"never shown to fire: {reaction.reply} is not in its sample"
            )
            continue
        shadow = _shadow(reactions[:number], reaction)
        if shadow is not None:
            yield Finding(
                placed.place, f"never fires on its sample: the reaction at {shadow.place} is first"
            )


def _shadow(earlier: Sequence[PlacedReaction], reaction: Reaction) -> PlacedReaction | None:
    for placed in earlier:
        if covers(placed.reaction, reaction) and placed.reaction.reply.matches(reaction.sample):
            return placed
    return None


def _no_address_fault(pattern: DomainPattern) -> str | None:
    """Return why no address can have a domain that is meant; None if one can."""
    if pattern.text == "*":
        return None
    domain = normalise_domain(pattern.text.replace("*", "a", 1))
    return domain.text if isinstance(domain, AddressFault) else None


def _is_same(one: Rule, other: Rule) -> bool:
    return scope_of(one) == scope_of(other) and all(
        getattr(one, selector) == getattr(other, selector) for selector in SELECTORS
    )
