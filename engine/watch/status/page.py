"""`/status` as HTML: made on the server, whole without a script, in an order to be read aloud.

Every text is escaped here and nowhere else. The page holds no time of its own making, so that its
tag stays the same while nothing has changed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Final

from engine.watch.pages import contact_link
from engine.watch.status.book import DAY_MS
from engine.watch.status.components import COMPONENTS, LEVELS, NAMES, Component, Level, worst
from engine.watch.status.page_words import PAGE_WORDS, read_time
from engine.watch.status.records import Entry, Kind, Stage
from engine.watch.status.views import DESCRIPTIONS_OF_ALL, HISTORY_MAX, Picture
from protocols.languages import Language
from protocols.timestamps import time_text

DAYS_SHOWN: Final = 90


class Page:
    """Writes the page for one picture in one language. `extra` is a section for subscribers."""

    def __init__(self, picture: Picture, language: Language, *, name: str, contact: str) -> None:
        self._picture = picture
        self._language: Final[Language] = language
        self._words = PAGE_WORDS[language]
        self._name = name
        self._contact = contact

    def html(self, extra: str = "") -> str:
        indicator = self._picture.indicator()
        description = DESCRIPTIONS_OF_ALL[indicator][self._language]
        return document(
            self._language,
            self._words["title"].replace("{name}", self._name),
            "\n".join(
                (
                    f'<p class="overall is-{indicator}" role="status">{escape(description)}</p>',
                    *self._now(),
                    *self._announcements(),
                    *self._components(),
                    *self._planned(),
                    extra,
                    *self._history(),
                    *self._foot(),
                )
            ),
            other="en" if self._language == "de" else "de",
        )

    def _now(self) -> Iterator[str]:
        entries = [
            *self._picture.open_incidents(),
            *self._picture.maintenances(Stage.IN_PROGRESS),
        ]
        if entries:
            yield self._section("now", (self._entry(each) for each in entries))

    def _announcements(self) -> Iterator[str]:
        entries = self._picture.announcements()
        if entries:
            yield self._section("announcements", (self._entry(each) for each in entries))

    def _planned(self) -> Iterator[str]:
        entries = self._picture.maintenances(Stage.SCHEDULED)
        if entries:
            yield self._section("planned", (self._entry(each) for each in entries))

    def _components(self) -> Iterator[str]:
        rows: list[str] = []
        for component in COMPONENTS:
            status = self._picture.status_of(component)
            name = NAMES[self._language][component]
            rows.append(
                f'<li><div class="component"><span>{escape(name)}</span>'
                f'<span class="state is-{status}">{escape(self._words[status])}</span></div>'
                f"{self._strip(component, name)}</li>"
            )
        ends = (
            f'<p class="ends" aria-hidden="true"><span>{self._words["ninety"]}</span>'
            f"<span>{self._words['unmeasured'] if self._is_young() else ''}</span>"
            f"<span>{self._words['today']}</span></p>"
        )
        yield self._section("components", [f'<ul class="components">{"".join(rows)}</ul>{ends}'])

    def _is_young(self) -> bool:
        days = self._picture.now_unix_ms // DAY_MS - self._picture.started_unix_ms // DAY_MS
        return days < DAYS_SHOWN - 1

    def _strip(self, component: Component, name: str) -> str:
        """Ninety days as small bars; what they say is in words for those who do not see them."""
        picture = self._picture
        levels = days_of(component, picture.entries, picture.now_unix_ms, picture.started_unix_ms)
        good = sum(level is Level.OPERATIONAL for level in levels)
        known = sum(level is not None for level in levels)
        text = self._words["days"].replace("{name}", name)
        text = text.replace("{good}", str(good)).replace("{days}", str(known))
        bars = "".join(_BARS[level] for level in levels)
        return f'<div class="strip" role="img" aria-label="{escape(text)}">{bars}</div>'

    def _history(self) -> Iterator[str]:
        # What stands on top already is not said twice.
        above = {entry.incident.incident_id for entry in self._picture.announcements()}
        over = [
            entry
            for entry in self._picture.entries
            if entry.incident.resolved_unix_ms
            and entry.incident.incident_id not in above
            and entry.incident.updated_unix_ms > self._picture.now_unix_ms - DAYS_SHOWN * DAY_MS
        ]
        content = [self._entry(each) for each in over[:HISTORY_MAX]]
        # Beside an incident that goes on, "no incidents" would be said against it.
        none = "history_no_other" if self._picture.open_incidents() else "history_empty"
        yield self._section("history", content or [f"<p>{self._words[none]}</p>"])

    def _foot(self) -> Iterator[str]:
        words = self._words
        contact = escape(words["contact"]).replace("{contact}", contact_link(self._contact))
        yield (
            f"<footer><p>{words['measured']}</p>"
            f'<p>{words["feeds"]}: <a href="/history.rss">{words["feed_rss"]}</a>, '
            f'<a href="/history.atom">{words["feed_atom"]}</a>. {words["api"]}: '
            f'<a href="/api/v2/summary.json">/api/v2/summary.json</a>, '
            f'<a href="/v1/status">/v1/status</a>.</p>'
            f"<p>{contact}</p></footer>"
        )

    def _section(self, word: str, content: Iterable[str]) -> str:
        return (
            f'<section aria-labelledby="{word}"><h2 id="{word}">{escape(self._words[word])}</h2>'
            f"{''.join(content)}</section>"
        )

    def _entry(self, entry: Entry) -> str:
        incident = entry.incident
        affected = [
            NAMES[self._language][each] for each in COMPONENTS if each in incident.components
        ]
        about = f'<p class="about">{escape(", ".join(affected))}</p>' if affected else ""
        kind = "maintenance" if incident.kind is Kind.MAINTENANCE else incident.impact
        return (
            f'<article id="incident-{incident.incident_id}" class="entry impact-{kind}">'
            f"<h3>{escape(incident.title.in_(self._language))}</h3>"
            f"{self._times(entry)}{about}<ol>{''.join(self._updates(entry))}</ol></article>"
        )

    def _times(self, entry: Entry) -> str:
        """When it was or will be; an announcement has its one time beside its text."""
        incident, words = entry.incident, self._words
        begins, ends = incident.created_unix_ms, incident.resolved_unix_ms
        if incident.kind is Kind.ANNOUNCEMENT:
            return ""
        if incident.kind is Kind.MAINTENANCE:
            text, begins, ends = words["from_to"], incident.from_unix_ms, incident.until_unix_ms
        else:
            text = words["lasted"] if ends else words["since"]
        text = text.replace("{from}", self._time(begins)).replace("{until}", self._time(ends))
        return f"<p>{text}</p>"

    def _updates(self, entry: Entry) -> Iterator[str]:
        is_announcement = entry.incident.kind is Kind.ANNOUNCEMENT
        for update in reversed(entry.updates):
            stage = self._words["announcement" if is_announcement else update.stage.value]
            text = escape(update.text.in_(self._language)).replace("\n", "<br>")
            yield (
                f"<li><strong>{escape(stage)}</strong> {text} "
                f"<small>{self._time(update.at_unix_ms)}</small></li>"
            )

    def _time(self, unix_ms: int) -> str:
        read = escape(read_time(unix_ms, self._language))
        return f'<time datetime="{time_text(unix_ms)}">{read}</time>'


def document(language: Language, title: str, main: str, *, other: Language) -> str:
    """Return a whole page of this room; `other` is the language that its link offers."""
    words = PAGE_WORDS[language]
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n"
        '<link rel="icon" href="/assets/icon.svg" type="image/svg+xml">\n'
        '<link rel="stylesheet" href="/assets/status.css">\n'
        f'<link rel="alternate" type="application/rss+xml" href="/history.rss" title="RSS">\n'
        f'<link rel="alternate" type="application/atom+xml" href="/history.atom" title="Atom">\n'
        "</head>\n<body>\n"
        f'<a class="skip" href="#main">{words["skip"]}</a>\n'
        f"<header><h1>{escape(title)}</h1>"
        f'<a href="/status?lang={other}" lang="{other}" hreflang="{other}">'
        f"{words['language']}</a></header>\n"
        f'<main id="main" tabindex="-1">\n{main}\n</main>\n</body>\n</html>\n'
    )


_BARS: Final[Mapping[Level | None, str]] = {
    None: '<i class="is-unknown"></i>',
    **{level: f'<i class="is-{level.value}"></i>' for level in LEVELS},
    Level.OPERATIONAL: "<i></i>",
}


def days_of(
    component: Component, entries: Sequence[Entry], now_unix_ms: int, begun_unix_ms: int
) -> list[Level | None]:
    """Return a component's worst level on each of the last ninety days in UTC, today's last.

    None is a day before `begun_unix_ms`, when nobody measured.
    """
    today = now_unix_ms // DAY_MS
    unknown = min(max(0, begun_unix_ms // DAY_MS - today + DAYS_SHOWN - 1), DAYS_SHOWN - 1)
    levels: list[Level | None] = [
        *[None] * unknown,
        *[Level.OPERATIONAL] * (DAYS_SHOWN - unknown),
    ]
    for entry in entries:
        incident = entry.incident
        if incident.kind is not Kind.INCIDENT or component not in incident.components:
            continue
        level = Level(incident.components[component])
        first = incident.created_unix_ms // DAY_MS
        last = (incident.resolved_unix_ms or now_unix_ms) // DAY_MS
        for day in range(max(first, today - DAYS_SHOWN + 1), min(last, today) + 1):
            place = day - today + DAYS_SHOWN - 1
            levels[place] = worst((levels[place] or level, level))
    return levels
