"""`/v1/shaping`: an operator's way to take over rules, and to see and overrule what was learned."""

import math
from collections.abc import Collection
from typing import Any, Final

import msgspec

from engine.clock import Clock
from engine.config import ConfigError
from engine.config_values import Rate
from engine.delivery.learned import Learned, text_of
from engine.delivery.service import Delivery
from engine.delivery.shaping_memory import NothingToDo, StepRecord
from engine.http_server import Access, HttpError, Request, Response, Route
from protocols.timestamps import time_text

STEPS_SHOWN: Final = 100
LIMIT_MAX: Final = 1_000
# Beyond the number of any step.
STEP_MAX: Final = 2**53


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


class LimitsView(msgspec.Struct, frozen=True):
    """What was learned of a site, as it held at one moment; null is no limit.

    Nothing goes at all until `suspended_until`.
    """

    rate_per_s: float | None
    connections: int | None
    suspended_until: str | None
    pinned: bool


class StepView(msgspec.Struct, frozen=True):
    """One step: what held before and after it, in words and in numbers, and the reply behind it.

    `who` is "engine" or "operator". `cause` is "throttled", "named wait", the place of a reaction's
    rule (file:line), or what an operator did. `can_undo`: it is the site's next to be undone.
    `pinned` is whether the site is pinned now.
    """

    step: int
    at: str
    site: str
    who: str
    cause: str
    before: str
    after: str
    limits_before: LimitsView
    limits_after: LimitsView
    reply: str
    undone: bool
    can_undo: bool
    pinned: bool


class AuditPage(msgspec.Struct, frozen=True):
    """The last steps first; ask again with `after` until it is null."""

    audit: list[StepView]
    after: str | None


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
        if unknown := query.keys() - {"site", "limit", "after"}:
            name = min(unknown)
            raise HttpError(400, "bad_query", f"{name}: there is no such parameter.", name)
        limit = _number(query, "limit", STEPS_SHOWN, LIMIT_MAX)
        after = _number(query, "after", STEP_MAX, STEP_MAX)
        site = await self._site(query["site"]) if "site" in query else None
        steps = [step for step in self._memory.steps(site) if step.seq < after]
        can_undo = self._memory.undoable()
        shown = [self._view(step, can_undo) for step in steps[:limit]]
        is_more = len(steps) > limit
        return Response.json(AuditPage(shown, str(shown[-1].step) if is_more else None))

    async def undo(self, request: Request) -> Response:
        site = await self._site(_decoded(request, SiteBody).site)
        try:
            return self._answer(self._memory.undo(site))
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
        return self._answer(step)

    async def unpin(self, request: Request) -> Response:
        site = await self._site(_decoded(request, SiteBody).site)
        try:
            return self._answer(self._memory.unpin(site))
        except NothingToDo as error:
            raise HttpError(409, "not_pinned", f"{error}.", "site") from error

    async def _site(self, name: str) -> str:
        try:
            return await self._memory.site_named(name)
        except NothingToDo as error:
            raise HttpError(404, "not_found", f"{error}.", "site") from error

    def _answer(self, step: StepRecord) -> Response:
        return Response.json(self._view(step, self._memory.undoable()))

    def _view(self, step: StepRecord, can_undo: Collection[int]) -> StepView:
        return StepView(
            step=step.seq,
            at=time_text(step.at_unix_ms),
            site=step.site,
            who=step.who,
            cause=step.cause,
            before=text_of(step.before, step.at_unix_ms),
            after=text_of(step.after, step.at_unix_ms),
            limits_before=_limits(step.before, step.at_unix_ms),
            limits_after=_limits(step.after, step.at_unix_ms),
            reply=step.reply,
            undone=step.is_undone,
            can_undo=step.seq in can_undo,
            pinned=self._memory.is_pinned(step.site),
        )


def _limits(learned: Learned, at_unix_ms: int) -> LimitsView:
    rate, until_unix_ms = learned.rate_at(at_unix_ms), learned.suspended_until(at_unix_ms)
    return LimitsView(
        rate_per_s=None if math.isinf(rate) else round(rate, 6),
        connections=learned.connections_at(at_unix_ms),
        suspended_until=time_text(until_unix_ms) if until_unix_ms > at_unix_ms else None,
        pinned=learned.pinned_unix_ms > 0,
    )


def _number(query: dict[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
    if not 1 <= number <= most:
        raise HttpError(400, "bad_query", f"{name}: expected 1 to {most:,}.", name)
    return number


def _decoded(request: Request, kind: Any) -> Any:
    try:
        return msgspec.json.decode(request.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, "bad_request", f"The body is not as expected: {error}.") from error
