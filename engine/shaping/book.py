"""The rules that hold, and which of them win on one way: to a destination, by a site, from us.

A rule is narrower than another by its destination first, then by its site, then by its egress; a
whole name beats a star, a longer star a shorter one, and among equals the later one wins. Rates and
connections are limits of what the rule is about, and all of them hold together: a rule with a
destination limits each destination that it matches, one with a site but no destination each site.
Of everything else a way has one value, the narrowest rule's.

A rule with an account limits each account that it matches over all that it sends, with a campaign
each campaign of each account. With a destination or a site, too, it limits what they send to each
of those. Of rules about the same the narrowest wins; campaign and account come first in that.
Pure: reads no file, knows no time.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar

from engine.config import DestinationLimits, Reaction, Route, Rule, TlsPolicy
from engine.config_values import DomainPattern, NamePattern, Rate
from engine.shaping.places import Place

# Peers balance load between their hosts by connection, so one is not kept for ever.
MESSAGES_PER_CONNECTION_MAX: Final = 100

Scope = Literal["destination", "site", "egress", "account", "campaign"]
SELECTORS: Final[tuple[Scope, ...]] = ("campaign", "account", "destination", "site", "egress")
FIELDS: Final = ("rate", "connections_max", "messages_per_connection_max", "tls")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PlacedRule:
    rule: Rule
    place: Place


@dataclass(frozen=True, slots=True)
class PlacedRoute:
    route: Route
    place: Place


@dataclass(frozen=True, slots=True)
class PlacedReaction:
    reaction: Reaction
    place: Place


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """A value and the place of the rule that gave it; without one it is the default."""

    value: T
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """Whom rules are matched with: names in lower-case A-labels. `hosts` are the site's MX hosts,
    none while they are not known; then no rule with a site matches."""

    destination: str
    hosts: Sequence[str] = ()
    egress: str = ""


@dataclass(frozen=True, slots=True)
class FlowRate:
    """How fast the mail of one account or campaign may go.

    `scope` is "account" or "campaign"; `place` is "destination" or "site" if it counts for each of
    those by itself, and None if it counts for all that they send.
    """

    scope: Scope
    place: Scope | None
    rate: Rate
    source: Place


@dataclass(frozen=True, slots=True)
class Effective:
    """What holds on a way.

    A site's `connections_max` is None without a rule for it; so is each rate. `reactions` are those
    that may fire, in their order.
    """

    rate: Found[Rate | None]
    site_rate: Found[Rate | None]
    egress_rate: Found[Rate | None]
    connections_max: Found[int]
    site_connections_max: Found[int | None]
    messages_per_connection_max: Found[int]
    tls: Found[TlsPolicy]
    reactions: Sequence[PlacedReaction]

    def of_destination(self) -> DestinationLimits:
        """Return what one destination is held to, whatever its site has left for it."""
        ceilings = (self.connections_max.value, self.site_connections_max.value)
        return DestinationLimits(
            rate=self.rate.value,
            connections_max=min(ceiling for ceiling in ceilings if ceiling is not None),
            messages_per_connection_max=self.messages_per_connection_max.value,
            tls=self.tls.value,
        )


@dataclass(frozen=True, slots=True)
class RuleBook:
    """All rules and reactions in the order in which they count.

    Rules: shipped ones first, so that one's own win among equals. Reactions: shipped ones last, as
    the first one that matches counts.
    """

    rules: Sequence[PlacedRule] = ()
    reactions: Sequence[PlacedReaction] = ()
    connections_max: int = 20
    tls: TlsPolicy = "opportunistic"
    # The rules about all mail, those about some accounts', and the reactions, widest rules first;
    # and of each those that may match a way whose hosts are not known. Most rules name a site, and
    # whoever asks for thousands of destinations asks without hosts.
    _plain: "_Sorted[PlacedRule]" = field(init=False, repr=False, compare=False)
    _of_flow: "_Sorted[PlacedRule]" = field(init=False, repr=False, compare=False)
    _reactions: "_Sorted[PlacedReaction]" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        in_order = sorted(self.rules, key=lambda placed: rank(placed.rule))
        plain = [each for each in in_order if not each.rule.is_of_flow]
        of_flow = [each for each in in_order if each.rule.is_of_flow]
        object.__setattr__(self, "_plain", _Sorted(plain, lambda each: each.rule))
        object.__setattr__(self, "_of_flow", _Sorted(of_flow, lambda each: each.rule))
        reactions = _Sorted(self.reactions, lambda each: each.reaction)
        object.__setattr__(self, "_reactions", reactions)

    def effective(self, way: Way) -> Effective:
        """Return what holds on `way`, each value with the place that it came from."""
        matching = self._plain.matching(way)

        def narrowest(name: str, default: Any, scope: Scope | None = None) -> Found[Any]:
            found: Found[Any] = Found(default)
            for placed in matching:
                value = getattr(placed.rule, name)
                if value is not None and scope in (None, scope_of(placed.rule)):
                    found = Found(value, placed.place)
            return found

        return Effective(
            rate=narrowest("rate", None, "destination"),
            site_rate=narrowest("rate", None, "site"),
            egress_rate=narrowest("rate", None, "egress"),
            connections_max=narrowest("connections_max", self.connections_max, "destination"),
            site_connections_max=narrowest("connections_max", None, "site"),
            messages_per_connection_max=narrowest(
                "messages_per_connection_max", MESSAGES_PER_CONNECTION_MAX
            ),
            tls=narrowest("tls", self.tls),
            reactions=self._reactions.matching(way),
        )

    def flow_rules(self, way: Way) -> Sequence[PlacedRule]:
        """Return the rules about some accounts' or campaigns' mail on `way`, widest first."""
        return self._of_flow.matching(way)


class _Sorted(Generic[T]):
    """Rules or reactions in their order, those apart that can match without knowing any host."""

    def __init__(self, given: Iterable[T], about: Callable[[T], Rule | Reaction]) -> None:
        self._all = [(each, about(each)) for each in given]
        self._without_site = [each for each in self._all if each[1].site is None]

    def matching(self, way: Way) -> list[T]:
        given = self._all if way.hosts else self._without_site
        return [each for each, rule in given if _matches(rule, way)]


def flow_rates(rules: Sequence[PlacedRule], account: str, campaign: str | None) -> list[FlowRate]:
    """Return the limits of an account's mail; `rules` are what `flow_rules` says of its way."""
    found: dict[tuple[Scope, Scope | None], FlowRate] = {}
    for placed in rules:
        rule = placed.rule
        if (
            rule.rate is not None
            and (rule.account is None or rule.account.matches(account))
            and (rule.campaign is None or rule.campaign.matches(campaign))
        ):
            scope, place = scope_of(rule), _place_of(rule)
            found[scope, place] = FlowRate(scope, place, rule.rate, placed.place)
    return list(found.values())


def scope_of(rule: Rule) -> Scope:
    """Return what a rule's rate and connections are shared over."""
    if rule.is_of_flow:
        return "account" if rule.campaign is None else "campaign"
    if rule.destination is not None:
        return "destination"
    return "site" if rule.site is not None else "egress"


def rank(rule: Rule) -> tuple[tuple[int, int], ...]:
    """Return a rule's place in the order from the widest to the narrowest."""
    return tuple(_narrowness(getattr(rule, selector)) for selector in SELECTORS)


def covers(wide: Rule | Reaction, narrow: Rule | Reaction) -> bool:
    """Say whether `wide` matches every way that `narrow` matches."""
    for selector in SELECTORS:
        pattern = getattr(wide, selector, None)
        other = getattr(narrow, selector, None)
        if (
            pattern is not None
            and pattern.text != "*"
            and (other is None or not pattern.covers(other))
        ):
            return False
    return True


def first_reaction(reactions: Sequence[PlacedReaction], reply: str) -> PlacedReaction | None:
    """Return the reaction that fires on `reply`, if one does."""
    for placed in reactions:
        if placed.reaction.reply.matches(reply):
            return placed
    return None


def _place_of(rule: Rule) -> Scope | None:
    if rule.destination is not None:
        return "destination"
    return "site" if rule.site is not None else None


def _matches(given: Rule | Reaction, way: Way) -> bool:
    egress = getattr(given, "egress", None)
    return (
        (given.destination is None or given.destination.matches(way.destination))
        # One host is enough: what else stands in a site's MX records are its spare ones.
        # A new actor asks for all rules before it knows any host: nothing is to be gone through.
        and (
            given.site is None
            or (bool(way.hosts) and any(given.site.matches(host) for host in way.hosts))
        )
        and (egress is None or egress.matches(way.egress))
    )


def _narrowness(pattern: DomainPattern | NamePattern | None) -> tuple[int, int]:
    if pattern is None or pattern.text == "*":
        return (0, 0)
    is_whole, length = pattern.narrowness
    return (2 if is_whole else 1, length)
