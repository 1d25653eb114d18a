"""What an operator writes on the status page: incidents, announcements, planned work.

Everything written here is public at once, and told to subscribers.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec

from engine.http_server import Access, HttpError, Request, Response, Route
from engine.spool.interface import SpoolFailed, SpoolFull
from engine.watch.status.book import BookRefused, StatusBook
from engine.watch.status.components import Impact, Level
from engine.watch.status.records import ENDED, Entry, Kind, Stage, Words
from engine.watch.status.texts import (
    TEXT_CHARACTERS_MAX,
    TITLE_CHARACTERS_MAX,
    checked_components,
    checked_words,
)
from engine.watch.status.views import EntryView, Views
from engine.watch.status.words import INCIDENT_ENDS, MAINTENANCE_ENDS
from protocols.timestamps import parse_time

DAY_MS: Final = 86_400_000
# How long an announcement stands on top when nobody says how long.
ANNOUNCED_MS: Final = 14 * DAY_MS
# Whoever plans further ahead has mistyped a year.
AHEAD_MS_MAX: Final = 366 * DAY_MS
STAGES_OF: Final = {
    Kind.INCIDENT: (Stage.INVESTIGATING, Stage.IDENTIFIED, Stage.MONITORING, Stage.RESOLVED),
    Kind.MAINTENANCE: (Stage.SCHEDULED, Stage.IN_PROGRESS, Stage.COMPLETED),
    Kind.ANNOUNCEMENT: (Stage.RESOLVED,),
}
Short = Annotated[str, msgspec.Meta(max_length=10_000)]


class WordsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text in German and English; where one is missing, the other stands in for it."""

    de: Short = ""
    en: Short = ""

    def words(self) -> Words:
        return Words(self.de or self.en, self.en or self.de)


class IncidentBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`components` has, for each one affected, its level; "" is what the impact says."""

    title: WordsBody
    text: WordsBody
    impact: Impact = Impact.MINOR
    stage: Stage = Stage.INVESTIGATING
    components: dict[str, str] = {}


class StatusUpdateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Without a stage it stays as it is."""

    text: WordsBody = WordsBody()
    stage: Stage | None = None


class AnnouncementBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shown on top until `until`, 14 days if it is not given."""

    title: WordsBody
    text: WordsBody
    until: str | None = None


class MaintenanceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Work from one time to another; it begins and ends by itself."""

    title: WordsBody
    text: WordsBody
    from_: str = msgspec.field(name="from")
    until: str
    components: dict[str, str] = {}


_LEVEL_OF: Final = {
    Impact.NONE: Level.OPERATIONAL,
    Impact.MINOR: Level.DEGRADED,
    Impact.MAJOR: Level.PARTIAL,
    Impact.CRITICAL: Level.MAJOR,
}
B = TypeVar("B")


class OperatorDoor:
    """The handlers. `dismiss` is told of what a person has resolved that opened by itself."""

    def __init__(
        self,
        book: StatusBook,
        views: Views,
        *,
        now_unix_ms: Callable[[], int],
        dismiss: Callable[[str], None],
    ) -> None:
        self._book = book
        self._views = views
        self._now_unix_ms = now_unix_ms
        self._dismiss = dismiss

    def routes(self) -> list[Route]:
        base = "/v1/status"
        return [
            Route("POST", f"{base}/incidents", self.open, Access.OPERATOR),
            Route("POST", f"{base}/incidents/{{id}}/updates", self.update, Access.OPERATOR),
            Route("DELETE", f"{base}/incidents/{{id}}", self.withdraw, Access.OPERATOR),
            Route("POST", f"{base}/announcements", self.announce, Access.OPERATOR),
            Route("POST", f"{base}/maintenances", self.plan, Access.OPERATOR),
        ]

    async def open(self, request: Request) -> Response:
        """Open an incident; 201."""
        body = _body(request, IncidentBody)
        components = checked_components(body.components, _LEVEL_OF[body.impact])
        return await self._write(
            Kind.INCIDENT,
            body.title,
            body.text,
            stage=_stage(body.stage, Kind.INCIDENT),
            impact=body.impact,
            components=components,
        )

    async def announce(self, request: Request) -> Response:
        """Announce something; 201."""
        body = _body(request, AnnouncementBody)
        now_unix_ms = self._now_unix_ms()
        until_unix_ms = now_unix_ms + ANNOUNCED_MS
        if body.until is not None:
            until_unix_ms = self._time(body.until, "until", after_unix_ms=now_unix_ms)
        return await self._write(
            Kind.ANNOUNCEMENT,
            body.title,
            body.text,
            stage=Stage.RESOLVED,
            until_unix_ms=until_unix_ms,
        )

    async def plan(self, request: Request) -> Response:
        """Plan work; 201."""
        body = _body(request, MaintenanceBody)
        now_unix_ms = self._now_unix_ms()
        from_unix_ms = self._time(body.from_, "from", after_unix_ms=now_unix_ms - DAY_MS)
        until_unix_ms = self._time(
            body.until, "until", after_unix_ms=max(from_unix_ms, now_unix_ms)
        )
        return await self._write(
            Kind.MAINTENANCE,
            body.title,
            body.text,
            stage=Stage.SCHEDULED,
            components=checked_components(body.components, Level.OPERATIONAL),
            from_unix_ms=from_unix_ms,
            until_unix_ms=until_unix_ms,
        )

    async def update(self, request: Request) -> Response:
        """Say something more of an entry, or that it is over."""
        await self._book.load()
        body = _body(request, StatusUpdateBody)
        entry = self._entry(request)
        incident = entry.incident
        stage = _stage(body.stage or incident.stage, incident.kind)
        if incident.kind is not Kind.ANNOUNCEMENT and incident.stage is stage and stage in ENDED:
            # Subscribers would be told once more that it is over. What has to be added is told
            # with a stage of its own, or as an announcement.
            raise HttpError(409, "is_over", f"This entry is {stage.value} already.", "stage")
        text = body.text.words()
        if not text.de.strip():
            # "It is over" needs no more words than that. Those of an incident that ends by itself
            # ("is delivered again") say what was measured, and here nobody has.
            if stage is Stage.RESOLVED and incident.kind is Kind.INCIDENT:
                text = INCIDENT_ENDS
            elif stage is Stage.COMPLETED:
                text = MAINTENANCE_ENDS
        words = checked_words(text, "text", characters_max=TEXT_CHARACTERS_MAX)
        entry = await self._kept(self._book.add(incident.incident_id, stage, words))
        if incident.cause and stage is Stage.RESOLVED:
            self._dismiss(incident.cause)
        return self._answer(entry, 200)

    async def withdraw(self, request: Request) -> Response:
        """Remove what was written by mistake, with everything that was said of it."""
        await self._book.load()
        entry = self._entry(request)
        await self._kept(self._book.withdraw(entry.incident.incident_id))
        return Response(204)

    async def _write(
        self, kind: Kind, title: WordsBody, text: WordsBody, *, stage: Stage, **more: Any
    ) -> Response:
        await self._book.load()
        title_words = checked_words(
            title.words(), "title", characters_max=TITLE_CHARACTERS_MAX, is_line=True
        )
        words = checked_words(text.words(), "text", characters_max=TEXT_CHARACTERS_MAX)
        entry = await self._kept(self._book.write(kind, title_words, words, stage=stage, **more))
        return self._answer(entry, 201)

    async def _kept(self, writing: Any) -> Any:
        try:
            return await writing
        except BookRefused as error:
            raise HttpError(409, "book_refused", f"{error}.") from error
        except (SpoolFull, SpoolFailed) as error:
            raise HttpError(503, "spool_unavailable", "Nothing can be stored now.") from error

    def _entry(self, request: Request) -> Entry:
        incident_id = request.params["id"]
        entry = self._book.entry(incident_id)
        if entry is None:
            text = f"There is no entry {incident_id[:40]!a}."
            raise HttpError(404, "not_found", text, "id")
        return entry

    def _answer(self, entry: Entry, status: int) -> Response:
        view: EntryView = self._views.entry(entry, "en")
        return Response.json(view, status)

    def _time(self, text: str, where: str, *, after_unix_ms: int) -> int:
        try:
            unix_ms = parse_time(text)
        except ValueError as error:
            raise HttpError(400, "bad_request", f"{where}: {error}.", where) from error
        if not after_unix_ms < unix_ms <= self._now_unix_ms() + AHEAD_MS_MAX:
            fault = f"{where}: this time is too early, or more than a year ahead."
            raise HttpError(400, "bad_request", fault, where)
        return unix_ms


def _stage(stage: Stage, kind: Kind) -> Stage:
    known = STAGES_OF[kind]
    if stage not in known:
        text = f"stage: expected one of {', '.join(known)}."
        raise HttpError(400, "bad_request", text, "stage")
    return stage


def _body(request: Request, kind: type[B]) -> B:
    try:
        return msgspec.json.decode(request.body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, "bad_request", f"The body is not as expected: {error}.") from error
