"""What is kept of incidents, announcements and planned work, and its form in the spool's notes.

Fields are only ever added at the end, with a default, as in `protocols.records`.
"""

from enum import StrEnum

import msgspec

from protocols.languages import Language


class Kind(StrEnum):
    """What an entry is. Only incidents say that something does not work."""

    INCIDENT = "incident"
    ANNOUNCEMENT = "announcement"
    MAINTENANCE = "maintenance"


class Stage(StrEnum):
    """How far an entry has come: the first four of incidents, the others of planned work.

    An announcement is resolved from the start: there is nothing to wait for.
    """

    INVESTIGATING = "investigating"
    IDENTIFIED = "identified"
    MONITORING = "monitoring"
    RESOLVED = "resolved"
    SCHEDULED = "scheduled"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"


ENDED = frozenset({Stage.RESOLVED, Stage.COMPLETED})


class Words(msgspec.Struct, frozen=True, array_like=True):
    """One text in both languages."""

    de: str
    en: str

    def in_(self, language: Language) -> str:
        return self.de if language == "de" else self.en


class Update(msgspec.Struct, frozen=True, array_like=True):
    """What was said of an entry at a time; `number` counts from 0."""

    number: int
    stage: Stage
    at_unix_ms: int
    text: Words


class Incident(msgspec.Struct, frozen=True, array_like=True):
    """An entry without its updates. Times are 0 for "not yet" and "not at all".

    `cause` is what opened it ("" if a person did), `code` with `name` finds its words; `components`
    has the level that each affected
    component is taken down to. `from_` and `until` are those of planned work; an announcement is
    shown on top until `until`.
    """

    incident_id: str
    kind: Kind
    cause: str
    title: Words
    impact: str
    components: dict[str, str]
    stage: Stage
    created_unix_ms: int
    updated_unix_ms: int
    monitoring_unix_ms: int = 0
    resolved_unix_ms: int = 0
    from_unix_ms: int = 0
    until_unix_ms: int = 0
    code: str = ""
    name: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it is an incident that goes on."""
        return self.kind is Kind.INCIDENT and self.stage not in ENDED


class Entry(msgspec.Struct, frozen=True):
    """An incident with all that was said of it, oldest first; there is at least one update."""

    incident: Incident
    updates: tuple[Update, ...]
