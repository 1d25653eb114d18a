"""The book and the measured levels as JSON: our own form, and Statuspage's.

`/api/v2` is what monitors and dashboards already read: its names, words and nesting are theirs.
Texts are in one language, the reader's. An announcement is an incident without impact there that
is resolved from the start, so that nobody's monitor takes it for an outage.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from engine.watch.status.components import (
    COMPONENTS,
    DESCRIPTIONS,
    IMPACTS,
    LEVELS,
    NAMES,
    UNDER_MAINTENANCE,
    Component,
    Impact,
    Level,
    worst,
)
from engine.watch.status.records import Entry, Incident, Kind, Stage, Update
from protocols.languages import Language
from protocols.timestamps import time_text, time_text_or_none

# What Statuspage's own pages list; the rest of ninety days is on `/status` and in `/v1/status`.
INCIDENTS_MAX: Final = 50
# More than two a day are no story that anybody reads, and an answer must not grow without end.
HISTORY_MAX: Final = 200
# The overall state, by Statuspage's indicator and then language.
DESCRIPTIONS_OF_ALL: Final[Mapping[str, Mapping[Language, str]]] = {
    "none": {"en": "All Systems Operational", "de": "Alle Systeme arbeiten normal"},
    "minor": {"en": "Minor Service Outage", "de": "Leichte Beeinträchtigungen"},
    "major": {"en": "Partial System Outage", "de": "Teilweiser Ausfall"},
    "critical": {"en": "Major Service Outage", "de": "Schwerer Ausfall"},
    "maintenance": {"en": "Service Under Maintenance", "de": "Wartungsarbeiten"},
}
_INDICATORS: Final = {
    Level.OPERATIONAL: Impact.NONE,
    Level.DEGRADED: Impact.MINOR,
    Level.PARTIAL: Impact.MAJOR,
    Level.MAJOR: Impact.CRITICAL,
}


class ComponentView(msgspec.Struct, frozen=True):
    """`status` is operational, degraded_performance, partial_outage, major_outage or
    under_maintenance.
    """

    id: str
    name: str
    status: str


class UpdateView(msgspec.Struct, frozen=True):
    at: str
    stage: str
    text: str


class EntryView(msgspec.Struct, frozen=True):
    """An incident, announcement or planned work; `from` and `until` are those of the plan.

    The stage of an announcement is always "announced", and it is never resolved.
    """

    id: str
    kind: str
    title: str
    stage: str
    impact: str
    is_automatic: bool
    components: dict[str, str]
    created_at: str
    updated_at: str
    resolved_at: str | None
    from_: str | None = msgspec.field(name="from")
    until: str | None
    url: str
    updates: list[UpdateView]


class StatusView(msgspec.Struct, frozen=True):
    """Everything on the page. `indicator` is none, minor, major, critical or maintenance."""

    name: str
    indicator: str
    description: str
    updated_at: str
    components: list[ComponentView]
    incidents: list[EntryView]
    maintenances: list[EntryView]
    announcements: list[EntryView]
    history: list[EntryView]


class Picture(msgspec.Struct, frozen=True):
    """What is to be shown: levels as measured, entries newest first, and when that was so.

    `started_unix_ms` is when the book was begun or opened, for a page on which nothing ever was.
    """

    levels: dict[Component, Level]
    entries: list[Entry]
    now_unix_ms: int
    started_unix_ms: int

    def open_incidents(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.incident.is_open]

    def maintenances(self, *stages: Stage) -> list[Entry]:
        """Planned work in these stages (any without), the next one first."""
        found = [
            entry
            for entry in self.entries
            if entry.incident.kind is Kind.MAINTENANCE
            and (not stages or entry.incident.stage in stages)
        ]
        return sorted(found, key=lambda entry: entry.incident.from_unix_ms)

    def announcements(self) -> list[Entry]:
        """Those that are still to be shown on top."""
        return [
            entry
            for entry in self.entries
            if entry.incident.kind is Kind.ANNOUNCEMENT
            and entry.incident.until_unix_ms > self.now_unix_ms
        ]

    def status_of(self, component: Component) -> str:
        """A component's word: planned work that goes on explains whatever does not work."""
        for entry in self.maintenances(Stage.IN_PROGRESS):
            if component in entry.incident.components:
                return UNDER_MAINTENANCE
        return self.levels[component].value

    def indicator(self) -> str:
        """The one word for everything: the worst component or the worst open incident."""
        statuses = [self.status_of(each) for each in COMPONENTS]
        measured = worst(Level(each) for each in statuses if each != UNDER_MAINTENANCE)
        impacts = [
            _INDICATORS[measured],
            *(Impact(entry.incident.impact) for entry in self.open_incidents()),
        ]
        indicator = max(impacts, key=IMPACTS.index)
        if indicator is Impact.NONE and UNDER_MAINTENANCE in statuses:
            return "maintenance"
        return indicator.value

    def updated_unix_ms(self) -> int:
        return max(
            (entry.incident.updated_unix_ms for entry in self.entries),
            default=self.started_unix_ms,
        )


class Views:
    """Makes the answers for one page. `url` has no slash at its end."""

    def __init__(self, name: str, url: str, page_id: str) -> None:
        self.name: Final = name
        self.url: Final = url
        self._page_id = page_id

    def own(self, picture: Picture, language: Language) -> StatusView:
        """The answer of `/v1/status`."""
        indicator = picture.indicator()
        waiting = picture.maintenances(Stage.SCHEDULED, Stage.IN_PROGRESS)

        def views(entries: Sequence[Entry]) -> list[EntryView]:
            return [self.entry(entry, language) for entry in entries]

        return StatusView(
            self.name,
            indicator,
            DESCRIPTIONS_OF_ALL[indicator][language],
            time_text(picture.updated_unix_ms()),
            [
                ComponentView(each.value, NAMES[language][each], picture.status_of(each))
                for each in COMPONENTS
            ],
            views(picture.open_incidents()),
            views(waiting),
            views(picture.announcements()),
            views(picture.entries[:HISTORY_MAX]),
        )

    def entry(self, entry: Entry, language: Language) -> EntryView:
        incident = entry.incident
        return EntryView(
            id=incident.incident_id,
            kind=incident.kind.value,
            title=incident.title.in_(language),
            stage=_stage_word(incident, incident.stage),
            impact=incident.impact,
            is_automatic=bool(incident.cause),
            components=incident.components,
            created_at=time_text(incident.created_unix_ms),
            updated_at=time_text(incident.updated_unix_ms),
            resolved_at=None
            if incident.kind is Kind.ANNOUNCEMENT
            else time_text_or_none(incident.resolved_unix_ms),
            from_=time_text_or_none(incident.from_unix_ms),
            until=time_text_or_none(incident.until_unix_ms),
            url=self.link(entry),
            updates=[
                UpdateView(
                    time_text(each.at_unix_ms),
                    _stage_word(incident, each.stage),
                    each.text.in_(language),
                )
                for each in entry.updates
            ],
        )

    def link(self, entry: Entry) -> str:
        return f"{self.url}/status#incident-{entry.incident.incident_id}"

    # Statuspage's form, part by part.

    def summary(self, picture: Picture, language: Language) -> dict[str, Any]:
        return {
            **self.page(picture),
            **self._components(picture, language),
            "incidents": self._incidents(picture.open_incidents(), picture, language),
            "scheduled_maintenances": self._incidents(
                picture.maintenances(Stage.SCHEDULED, Stage.IN_PROGRESS), picture, language
            ),
            **self._status(picture, language),
        }

    def status(self, picture: Picture, language: Language) -> dict[str, Any]:
        return {**self.page(picture), **self._status(picture, language)}

    def components(self, picture: Picture, language: Language) -> dict[str, Any]:
        return {**self.page(picture), **self._components(picture, language)}

    def incidents(self, picture: Picture, language: Language) -> dict[str, Any]:
        entries = [e for e in picture.entries if e.incident.kind is not Kind.MAINTENANCE]
        views = self._incidents(entries[:INCIDENTS_MAX], picture, language)
        return {**self.page(picture), "incidents": views}

    def unresolved(self, picture: Picture, language: Language) -> dict[str, Any]:
        views = self._incidents(picture.open_incidents(), picture, language)
        return {**self.page(picture), "incidents": views}

    def all_maintenances(self, picture: Picture, language: Language) -> dict[str, Any]:
        newest = picture.maintenances()[::-1][:INCIDENTS_MAX]
        return self._maintenances(picture, newest, language)

    def upcoming_maintenances(self, picture: Picture, language: Language) -> dict[str, Any]:
        return self._maintenances(picture, picture.maintenances(Stage.SCHEDULED), language)

    def active_maintenances(self, picture: Picture, language: Language) -> dict[str, Any]:
        return self._maintenances(picture, picture.maintenances(Stage.IN_PROGRESS), language)

    def page(self, picture: Picture) -> dict[str, Any]:
        page = {
            "id": self._page_id,
            "name": self.name,
            "url": f"{self.url}/status",
            "time_zone": "Etc/UTC",
            "updated_at": time_text(picture.updated_unix_ms()),
        }
        return {"page": page}

    def _status(self, picture: Picture, language: Language) -> dict[str, Any]:
        indicator = picture.indicator()
        description = DESCRIPTIONS_OF_ALL[indicator][language]
        return {"status": {"indicator": indicator, "description": description}}

    def _components(self, picture: Picture, language: Language) -> dict[str, Any]:
        return {"components": [self._component(picture, each, language) for each in COMPONENTS]}

    def _component(
        self, picture: Picture, component: Component, language: Language
    ) -> dict[str, Any]:
        updated = [
            entry.incident.updated_unix_ms
            for entry in picture.entries
            if component in entry.incident.components
        ]
        return {
            "id": component.value,
            "name": NAMES[language][component],
            "status": picture.status_of(component),
            "created_at": time_text(picture.started_unix_ms),
            "updated_at": time_text(max(updated, default=picture.started_unix_ms)),
            "position": COMPONENTS.index(component) + 1,
            "description": DESCRIPTIONS[language][component],
            "showcase": False,
            "start_date": None,
            "group_id": None,
            "page_id": self._page_id,
            "group": False,
            "only_show_if_degraded": False,
        }

    def _maintenances(
        self, picture: Picture, entries: Sequence[Entry], language: Language
    ) -> dict[str, Any]:
        views = self._incidents(entries, picture, language)
        return {**self.page(picture), "scheduled_maintenances": views}

    def _incidents(
        self, entries: Sequence[Entry], picture: Picture, language: Language
    ) -> list[dict[str, Any]]:
        return [self._incident(entry, picture, language) for entry in entries]

    def _incident(self, entry: Entry, picture: Picture, language: Language) -> dict[str, Any]:
        incident = entry.incident
        is_planned = incident.kind is Kind.MAINTENANCE
        view: dict[str, Any] = {
            "id": incident.incident_id,
            "name": incident.title.in_(language),
            "status": incident.stage.value,
            "created_at": time_text(incident.created_unix_ms),
            "updated_at": time_text(incident.updated_unix_ms),
            "monitoring_at": time_text_or_none(incident.monitoring_unix_ms),
            "resolved_at": time_text_or_none(incident.resolved_unix_ms),
            "impact": "maintenance" if is_planned else incident.impact,
            "shortlink": self.link(entry),
            "started_at": time_text(incident.from_unix_ms or incident.created_unix_ms),
            "page_id": self._page_id,
            "incident_updates": [
                self._update(entry, update, language) for update in reversed(entry.updates)
            ],
            "components": [
                self._component(picture, each, language)
                for each in COMPONENTS
                if each in incident.components
            ],
        }
        if is_planned:
            view["scheduled_for"] = time_text(incident.from_unix_ms)
            view["scheduled_until"] = time_text(incident.until_unix_ms)
        return view

    def _update(self, entry: Entry, update: Update, language: Language) -> dict[str, Any]:
        incident = entry.incident
        at = time_text(update.at_unix_ms)
        is_over = update.stage in (Stage.RESOLVED, Stage.COMPLETED)
        affected = [
            {
                "code": each.value,
                "name": NAMES[language][each],
                "old_status": incident.components[each] if is_over else LEVELS[0].value,
                "new_status": LEVELS[0].value if is_over else incident.components[each],
            }
            for each in COMPONENTS
            if each in incident.components
        ]
        return {
            "id": f"{incident.incident_id}-{update.number}",
            "status": update.stage.value,
            "body": update.text.in_(language),
            "incident_id": incident.incident_id,
            "created_at": at,
            "updated_at": at,
            "display_at": at,
            "affected_components": affected or None,
            "deliver_notifications": True,
            "custom_tweet": None,
            "tweet_id": None,
        }


def _stage_word(incident: Incident, stage: Stage) -> str:
    # The book keeps an announcement as over from the start; readers would take "resolved" for the
    # end of an incident.
    return "announced" if incident.kind is Kind.ANNOUNCEMENT else stage.value


# By the name of the file below /api/v2.
STATUSPAGE: Final[Mapping[str, Callable[[Views, Picture, Language], dict[str, Any]]]] = {
    "summary.json": Views.summary,
    "status.json": Views.status,
    "components.json": Views.components,
    "incidents.json": Views.incidents,
    "incidents/unresolved.json": Views.unresolved,
    "scheduled-maintenances.json": Views.all_maintenances,
    "scheduled-maintenances/upcoming.json": Views.upcoming_maintenances,
    "scheduled-maintenances/active.json": Views.active_maintenances,
}
