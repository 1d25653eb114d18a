"""`/v1/shaping`: an operator's way to take over rules, and to see and overrule what was learned."""

from typing import Any, Final

import msgspec

from engine.clock import Clock
from engine.config import ConfigError
from engine.config_values import Rate
from engine.delivery.learned import text_of
from engine.delivery.service import Delivery
from engine.delivery.shaping_memory import NothingToDo, StepRecord
from engine.http_server import Access, HttpError, Request, Response, Route
from protocols.timestamps import time_text

STEPS_SHOWN: Final = 100


class SiteBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which site is meant, by its name or by a domain at it."""

    site: str


class PinBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """As it is now, or at this rate ("10/min") and so many connections."""

    site: str
    rate: str | None = None
    connections: int | None = None


class ReloadView(msgspec.Struct, frozen=True):
    """How many rules and reactions hold now."""

    rules: int
    reactions: int


class StepView(msgspec.Struct, frozen=True):
    """One step: what held before and after it, and the reply that caused it."""

    step: int
    at: str
    site: str
    who: str
    cause: str
    before: str
    after: str
    reply: str
    undone: bool


class AuditPage(msgspec.Struct, frozen=True):
    """The last steps first."""

    audit: list[StepView]


class ShapingDoor:
    """The handlers. All are an operator's."""

    def __init__(self, delivery: Delivery, clock: Clock) -> None:
        self._delivery = delivery
        self._memory = delivery.shaping_memory
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/v1/shaping/reload", self.reload, Access.OPERATOR),
            Route("GET", "/v1/shaping/audit", self.audit, Access.OPERATOR),
            Route("POST", "/v1/shaping/undo", self.undo, Access.OPERATOR),
            Route("POST", "/v1/shaping/pin", self.pin, Access.OPERATOR),
            Route("POST", "/v1/shaping/unpin", self.unpin, Access.OPERATOR),
        ]

    async def reload(self, request: Request) -> Response:
        """Read all rules again; 400 with file and line if one is broken: then the old ones hold."""
        try:
            book = await self._delivery.reload_rules()
        except ConfigError as error:
            raise HttpError(400, "rules_refused", f"{error}. The old rules go on.") from error
        return Response.json(ReloadView(len(book.rules), len(book.reactions)))

    async def audit(self, request: Request) -> Response:
        """The last steps; `?site=` takes a site or a domain, `?limit=` 1 to 1,000."""
        query = dict(request.query)
        limit = query.get("limit", str(STEPS_SHOWN))
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:5]) <= 1000):
            raise HttpError(400, "bad_query", "limit: expected 1 to 1,000.", "limit")
        site = await self._site(query["site"]) if "site" in query else None
        steps = self._memory.steps(site)[: int(limit)]
        return Response.json(AuditPage([self._view(step) for step in steps]))

    async def undo(self, request: Request) -> Response:
        site = await self._site(_decoded(request, SiteBody).site)
        try:
            return Response.json(self._view(self._memory.undo(site)))
        except NothingToDo as error:
            raise HttpError(409, "nothing_to_undo", f"{error}.", "site") from error

    async def pin(self, request: Request) -> Response:
        body = _decoded(request, PinBody)
        if body.connections is not None and not 1 <= body.connections <= 100_000:
            raise HttpError(
                400, "bad_request", "connections: expected 1 to 100,000.", "connections"
            )
        try:
            rate = None if body.rate is None else Rate.parse(body.rate)
        except ValueError as error:
            raise HttpError(400, "bad_request", f"rate: {error}.", "rate") from error
        site = await self._site(body.site)
        step = self._memory.pin(site, rate=rate, connections=body.connections)
        return Response.json(self._view(step))

    async def unpin(self, request: Request) -> Response:
        site = await self._site(_decoded(request, SiteBody).site)
        try:
            return Response.json(self._view(self._memory.unpin(site)))
        except NothingToDo as error:
            raise HttpError(409, "not_pinned", f"{error}.", "site") from error

    async def _site(self, name: str) -> str:
        try:
            return await self._memory.site_named(name)
        except NothingToDo as error:
            raise HttpError(404, "not_found", f"{error}.", "site") from error

    def _view(self, step: StepRecord) -> StepView:
        return StepView(
            step=step.seq,
            at=time_text(step.at_unix_ms),
            site=step.site,
            who=step.who,
            cause=step.cause,
            before=text_of(step.before, step.at_unix_ms),
            after=text_of(step.after, step.at_unix_ms),
            reply=step.reply,
            undone=step.is_undone,
        )


def _decoded(request: Request, kind: Any) -> Any:
    try:
        return msgspec.json.decode(request.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, "bad_request", f"The body is not as expected: {error}.") from error
