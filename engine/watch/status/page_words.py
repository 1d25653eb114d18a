"""The words of the page and the feeds, in both languages, and how times read there."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from protocols.languages import Language

PAGE_WORDS: Final[Mapping[Language, Mapping[str, str]]] = {
    "en": {
        "title": "{name}: status",
        "language": "Deutsch",
        "skip": "To the content",
        "components": "Components",
        "now": "Right now",
        "planned": "Planned work",
        "announcements": "Announcements",
        "history": "The last 90 days",
        "history_empty": "No incidents in the last 90 days.",
        "history_no_other": "No other incidents in the last 90 days.",
        "days": "{name}: {good} of {days} days without an incident",
        "from_to": "From {from} to {until}.",
        "since": "Since {from}.",
        "lasted": "{from} to {until}",
        "feeds": "Follow",
        "feed_rss": "RSS feed",
        "feed_atom": "Atom feed",
        "api": "For programs",
        "contact": "Questions: {contact}",
        "ninety": "90 days ago",
        "unmeasured": "grey: not measured",
        "today": "today",
        "measured": "States are measured by the engine itself; times are in UTC.",
        "operational": "operational",
        "degraded_performance": "degraded",
        "partial_outage": "partial outage",
        "major_outage": "outage",
        "under_maintenance": "under maintenance",
        "investigating": "Investigating",
        "identified": "Identified",
        "monitoring": "Monitoring",
        "resolved": "Resolved",
        "scheduled": "Planned",
        "in_progress": "In progress",
        "completed": "Completed",
        "announcement": "Announcement",
    },
    "de": {
        "title": "{name}: Status",
        "language": "English",
        "skip": "Zum Inhalt",
        "components": "Komponenten",
        "now": "Aktuell",
        "planned": "Geplante Arbeiten",
        "announcements": "Ankündigungen",
        "history": "Die letzten 90 Tage",
        "history_empty": "Keine Störungen in den letzten 90 Tagen.",
        "history_no_other": "Keine anderen Störungen in den letzten 90 Tagen.",
        "days": "{name}: {good} von {days} Tagen ohne Störung",
        "from_to": "Von {from} bis {until}.",
        "since": "Seit {from}.",
        "lasted": "{from} bis {until}",
        "feeds": "Auf dem Laufenden bleiben",
        "feed_rss": "RSS-Feed",
        "feed_atom": "Atom-Feed",
        "api": "Für Programme",
        "contact": "Fragen: {contact}",
        "ninety": "vor 90 Tagen",
        "unmeasured": "grau: nicht gemessen",
        "today": "heute",
        "measured": "Die Zustände misst das System selbst; Zeiten sind in UTC.",
        "operational": "in Ordnung",
        "degraded_performance": "beeinträchtigt",
        "partial_outage": "teilweise gestört",
        "major_outage": "gestört",
        "under_maintenance": "in Wartung",
        "investigating": "Wird untersucht",
        "identified": "Ursache gefunden",
        "monitoring": "Unter Beobachtung",
        "resolved": "Behoben",
        "scheduled": "Geplant",
        "in_progress": "Läuft",
        "completed": "Beendet",
        "announcement": "Ankündigung",
    },
}
_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


def read_time(unix_ms: int, language: Language) -> str:
    """Return a time as people read it, to the minute, in UTC."""
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    if language == "de":
        return f"{moment.day}.{moment.month}.{moment.year}, {moment:%H:%M} UTC"
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}, {moment:%H:%M} UTC"
