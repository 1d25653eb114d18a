"""From facts to states and conditions: pure, so that every case is a row in a test's table.

A level is how well a component works at this moment. A condition is something worth an incident if
it lasts; whether it has lasted is `Steady`'s question.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from engine.spool.disk_calls import DiskRoom
from engine.watch.status.components import Component, Impact, Level, worst
from engine.watch.status.sites import NOTHING_SEEN, SitesSeen, SiteTrouble

# An incident opens when something was so for a minute, and is over when it was not for two: what
# comes and goes faster is nothing that a reader could act on.
OPENS_AFTER_MS: Final = 60_000
RESOLVES_AFTER_MS: Final = 120_000
# What comes back again and again has to stay away for longer each time: its readers get mail.
RESOLVES_AFTER_MS_MAX: Final = 1_800_000
# A full sync takes milliseconds, on a poor disk some hundred. Senders' programs wait a minute.
COMMIT_S_SLOW: Final = 1.0
COMMIT_S_STUCK: Final = 15.0
# Subscribers hear within 25 ms; whoever looks at a page notices a second.
STREAM_S_SLOW: Final = 2.0
STREAM_S_STUCK: Final = 30.0
# So many errors of ours among the last minute's answers are no accident.
ERRORS_MIN: Final = 5
ERRORS_SHARE_SOME: Final = 0.05
ERRORS_SHARE_MOST: Final = 0.5
# Where half of the sites that we have mail for cannot be reached, it is not they who are down.
UNREACHABLE_SITES_MIN: Final = 4
UNREACHABLE_SHARE: Final = 0.5
# Below so many times the mark at which intake closes, somebody should look at the disk.
DISK_LOW_FACTOR: Final = 2.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured. `commit_s` is how long the last durable write took, `behind_s` for how
    long subscribers have not been told the newest, `has_dns` None where nobody was asked.
    """

    is_running: bool = True
    is_intake_open: bool = True
    answers: int = 0
    errors: int = 0
    commit_s: float = 0.0
    behind_s: float = 0.0
    has_dns: bool | None = None
    disk: DiskRoom | None = None
    refuses_results: bool = False
    sites: SitesSeen = NOTHING_SEEN


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is so. `code` finds its words, which `name` is filled into."""

    key: str
    code: str
    impact: Impact
    components: dict[Component, Level]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    levels: dict[Component, Level] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()


def judge(facts: Facts) -> Verdict:
    """Return what the facts mean."""
    levels = {
        Component.HTTP_INTAKE: _intake(facts),
        Component.DELIVERY: _delivery(facts),
        Component.STREAM: _stream(facts),
        Component.DNS: Level.MAJOR if facts.has_dns is False else Level.OPERATIONAL,
        Component.DISK: _disk(facts),
    }
    return Verdict(levels, tuple(_conditions(facts, levels)))


def _intake(facts: Facts) -> Level:
    if not facts.is_running or not facts.is_intake_open:
        return Level.MAJOR
    share = facts.errors / facts.answers if facts.errors >= ERRORS_MIN else 0.0
    if facts.commit_s >= COMMIT_S_STUCK or share >= ERRORS_SHARE_MOST:
        return Level.PARTIAL
    if facts.commit_s >= COMMIT_S_SLOW or share >= ERRORS_SHARE_SOME:
        return Level.DEGRADED
    return Level.OPERATIONAL


def _delivery(facts: Facts) -> Level:
    if not facts.is_running or facts.refuses_results:
        return Level.MAJOR
    if facts.has_dns is False or _is_cut_off(facts.sites) or facts.commit_s >= COMMIT_S_STUCK:
        return Level.PARTIAL
    return Level.DEGRADED if facts.commit_s >= COMMIT_S_SLOW else Level.OPERATIONAL


def _stream(facts: Facts) -> Level:
    if not facts.is_running or facts.behind_s >= STREAM_S_STUCK:
        return Level.MAJOR
    return Level.DEGRADED if facts.behind_s >= STREAM_S_SLOW else Level.OPERATIONAL


def _disk(facts: Facts) -> Level:
    if not facts.is_intake_open or facts.refuses_results:
        return Level.MAJOR
    disk = facts.disk
    if disk is not None and disk.free_bytes < disk.low_water_bytes * DISK_LOW_FACTOR:
        return Level.DEGRADED
    return Level.OPERATIONAL


def _is_cut_off(sites: SitesSeen) -> bool:
    return (
        sites.unreachable >= UNREACHABLE_SITES_MIN
        and sites.unreachable >= sites.reached_for * UNREACHABLE_SHARE
    )


def _conditions(facts: Facts, levels: dict[Component, Level]) -> Iterable[Condition]:
    if not facts.is_running:
        return  # Nothing can be said of what is just starting or ending.
    if not facts.is_intake_open:
        parts = {Component.HTTP_INTAKE: Level.MAJOR, Component.DISK: Level.MAJOR}
        yield Condition("intake_closed", "intake_closed", Impact.CRITICAL, parts)
    elif levels[Component.HTTP_INTAKE] is not Level.OPERATIONAL:
        level = levels[Component.HTTP_INTAKE]
        impact = Impact.MINOR if level is Level.DEGRADED else Impact.MAJOR
        parts = {Component.HTTP_INTAKE: level}
        yield Condition("intake_impaired", "intake_impaired", impact, parts)
    if facts.refuses_results:
        parts = {Component.DELIVERY: Level.MAJOR, Component.DISK: Level.MAJOR}
        yield Condition("results_refused", "results_refused", Impact.CRITICAL, parts)
    elif levels[Component.DISK] is Level.DEGRADED:
        parts = {Component.DISK: Level.DEGRADED}
        yield Condition("disk_low", "disk_low", Impact.NONE, parts)
    if levels[Component.STREAM] is not Level.OPERATIONAL:
        parts = {Component.STREAM: levels[Component.STREAM]}
        yield Condition("stream_behind", "stream_behind", Impact.MINOR, parts)
    if facts.has_dns is False:
        parts = {Component.DNS: Level.MAJOR, Component.DELIVERY: Level.PARTIAL}
        yield Condition("dns_down", "dns_down", Impact.MAJOR, parts)
    yield from _site_conditions(facts)


def _site_conditions(facts: Facts) -> Iterable[Condition]:
    if _is_cut_off(facts.sites) and facts.has_dns is not False:
        parts = {Component.DELIVERY: Level.PARTIAL}
        yield Condition("sites_unreachable", "sites_unreachable", Impact.MAJOR, parts)
        return  # Naming each of them would blame the wrong ones.
    for site in facts.sites.troubled:
        if site.is_dns and facts.has_dns is False:
            continue
        yield _site_condition(site)


def _site_condition(site: SiteTrouble) -> Condition:
    # Unreachable and throttling are one incident of one site: it goes from one to the other.
    code = "site_unreachable" if site.is_unreachable else "site_throttling"
    parts = {Component.DELIVERY: Level.DEGRADED}
    return Condition(f"site:{site.key}", code, Impact.MINOR, parts, site.name)


class Steady:
    """Says what has been so for long enough to open an incident, or not so to resolve one."""

    def __init__(self) -> None:
        self._since: dict[str, int] = {}
        self._over_since: dict[str, int] = {}
        # Until when each was seen to be so after a person had resolved it.
        self._dismissed: dict[str, int] = {}

    def look(
        self, now_unix_ms: int, keys: Iterable[str], open_keys: Mapping[str, int]
    ) -> tuple[list[str], list[str]]:
        """Return which keys are to be opened and which to be resolved now, of those that are so
        and those that are open, each with how often it has come back.
        """
        are_so, are_open = set(keys), set(open_keys)
        self._dismissed = {
            key: now_unix_ms if key in are_so else min(until_unix_ms, now_unix_ms)
            for key, until_unix_ms in self._dismissed.items()
            if key in are_so or now_unix_ms - until_unix_ms < RESOLVES_AFTER_MS
        }
        self._since = {
            key: min(self._since.get(key, now_unix_ms), now_unix_ms) for key in sorted(are_so)
        }
        self._over_since = {
            key: min(self._over_since.get(key, now_unix_ms), now_unix_ms)
            for key in sorted(are_open - are_so)
        }
        to_open = [
            key
            for key, since_unix_ms in self._since.items()
            if key not in are_open
            and key not in self._dismissed
            and now_unix_ms - since_unix_ms >= OPENS_AFTER_MS
        ]
        to_resolve = [
            key
            for key, since_unix_ms in self._over_since.items()
            if now_unix_ms - since_unix_ms >= resolves_after_ms(open_keys[key])
        ]
        return to_open, to_resolve

    def dismiss(self, key: str, now_unix_ms: int) -> None:
        """A person has resolved it: it opens again only after it was not so for two minutes."""
        self._dismissed[key] = now_unix_ms

    @property
    def dismissed(self) -> frozenset[str]:
        """What people have resolved and is so still."""
        return frozenset(self._dismissed)

    def since_unix_ms(self, key: str) -> int:
        """Since when it has been so without a break; 0 if it is not."""
        return self._since.get(key, 0)


def resolves_after_ms(times_back: int) -> int:
    """Return for how long something must not be so, if it has come back so often."""
    return min(RESOLVES_AFTER_MS << min(times_back, 10), RESOLVES_AFTER_MS_MAX)


def levels_now(
    measured: dict[Component, Level], lowered: Iterable[dict[str, str]]
) -> dict[Component, Level]:
    """Return the measured levels, lowered to what open incidents say of their components."""
    given = [*lowered]
    return {
        component: worst(
            (
                measured.get(component, Level.OPERATIONAL),
                *(Level(each[component]) for each in given if component in each),
            )
        )
        for component in Component
    }
