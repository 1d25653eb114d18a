"""The faces that anybody may look at: `/status`, `/v1/status`, `/api/v2/...` and the feeds.

All come from one picture, in the reader's language, with a tag and a lifetime so that caches can
serve a crowd; when something is down, everybody looks. What was made is kept for a second, so that
a crowd without a cache costs little more than one reader.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import msgspec
import trio

from engine.http_server import Access, HttpError, Request, Response, Route
from engine.watch.pages import SECURITY_HEADERS
from engine.watch.status import feeds
from engine.watch.status.book import StatusBook
from engine.watch.status.components import Component, Level
from engine.watch.status.page import Page
from engine.watch.status.views import STATUSPAGE, Picture, Views
from protocols.languages import Language, preferred_language

HTML_TYPE: Final = "text/html; charset=utf-8"
JSON_TYPE: Final = "application/json; charset=utf-8"
# Short, because people reload a status page to see whether it is over; long enough for a crowd.
LIFETIME: Final = "public, max-age=15"
KEPT_S: Final = 1.0
# There is nothing secret here, and a dashboard in a browser is on another host.
OPEN_TO_SCRIPTS: Final = (("access-control-allow-origin", "*"),)

Made = tuple[bytes, str]  # Octets and their content type.


@dataclass(frozen=True, slots=True)
class _Kept:
    until_s: float
    version: int
    octets: bytes
    content_type: str
    tag: str


class PublicDoor:
    """The handlers. `section` makes the part of the page about subscriptions."""

    def __init__(
        self,
        book: StatusBook,
        views: Views,
        *,
        levels: Callable[[], dict[Component, Level]],
        now_unix_ms: Callable[[], int],
        contact: str,
        section: Callable[[Language], str],
    ) -> None:
        self._book = book
        self._views = views
        self._levels = levels
        self._now_unix_ms = now_unix_ms
        self._contact = contact
        self._section = section
        self._kept: dict[tuple[str, Language], _Kept] = {}

    def routes(self) -> list[Route]:
        routes = [
            self._route("/status", self._page, SECURITY_HEADERS),
            self._route("/v1/status", self._own, OPEN_TO_SCRIPTS),
            self._route("/history.rss", self._rss),
            self._route("/history.atom", self._atom),
        ]
        for name, view in STATUSPAGE.items():
            make = _statuspage_maker(self._views, view)
            routes.append(self._route(f"/api/v2/{name}", make, OPEN_TO_SCRIPTS))
        return routes

    async def picture(self) -> Picture:
        """What is to be seen now."""
        await self._book.load()
        return Picture(
            self._levels(), self._book.entries, self._now_unix_ms(), self._book.begun_unix_ms
        )

    def _page(self, picture: Picture, language: Language) -> Made:
        page = Page(picture, language, name=self._views.name, contact=self._contact)
        return page.html(self._section(language)).encode(), HTML_TYPE

    def _own(self, picture: Picture, language: Language) -> Made:
        return msgspec.json.encode(self._views.own(picture, language)), JSON_TYPE

    def _rss(self, picture: Picture, language: Language) -> Made:
        return feeds.rss(picture, self._views, language), feeds.RSS_TYPE

    def _atom(self, picture: Picture, language: Language) -> Made:
        return feeds.atom(picture, self._views, language), feeds.ATOM_TYPE

    def _route(
        self,
        pattern: str,
        make: Callable[[Picture, Language], Made],
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Route:
        async def serve(request: Request) -> Response:
            language = language_of(request)
            kept = await self._fresh(pattern, language, make)
            answer_headers = (
                *headers,
                ("etag", kept.tag),
                ("cache-control", LIFETIME),
                ("vary", "accept-language"),
                ("content-language", language),
            )
            if _has(request.header(b"if-none-match"), kept.tag):
                return Response(304, b"", kept.content_type, answer_headers)
            return Response(200, kept.octets, kept.content_type, answer_headers)

        return Route("GET", pattern, serve, Access.OPEN)

    async def _fresh(
        self, pattern: str, language: Language, make: Callable[[Picture, Language], Made]
    ) -> _Kept:
        now_s = trio.current_time()
        kept = self._kept.get((pattern, language))
        if kept is not None and kept.until_s > now_s and kept.version == self._book.version:
            return kept
        picture = await self.picture()
        octets, content_type = make(picture, language)
        tag = f'"{sha256(octets).hexdigest()[:20]}"'
        kept = _Kept(now_s + KEPT_S, self._book.version, octets, content_type, tag)
        self._kept[pattern, language] = kept
        return kept


def language_of(request: Request) -> Language:
    """The language that a link asks for, else the browser's. Raises HttpError 400."""
    for name, value in request.query:
        if name == "lang":
            if value == "de":
                return "de"
            if value == "en":
                return "en"
            raise HttpError(400, "bad_parameter", "lang: expected de or en.", "lang")
    return preferred_language(request.header(b"accept-language"))


def _statuspage_maker(
    views: Views, view: Callable[[Views, Picture, Language], dict[str, object]]
) -> Callable[[Picture, Language], Made]:
    def make(picture: Picture, language: Language) -> Made:
        return msgspec.json.encode(view(views, picture, language)), JSON_TYPE

    return make


def _has(if_none_match: str | None, tag: str) -> bool:
    """RFC 9110 13.1.2: a list of tags, weak or not, or a star."""
    given = [each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")]
    return tag in given or "*" in given
