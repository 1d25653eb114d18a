"""Subscribing and leaving, for people in a browser and for mail programs.

Works without a script. A subscription begins with the button behind the link in the mail, never by
opening it; leaving takes one request (RFC 8058), needs no cookie and may be repeated. What is said
to somebody who asks for an address is the same whether it is subscribed or not.
"""

from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import msgspec

from engine.http_server import Access, HttpError, Request, Response, Route
from engine.spool.interface import SpoolError
from engine.watch.pages import SECURITY_HEADERS
from engine.watch.queries import Query
from engine.watch.status.bombing import Answer, AskingLimits
from engine.watch.status.links import CONFIRM_MS, BadLink, Links, Wish
from engine.watch.status.mail_words import FORM_WORDS, frequency_text
from engine.watch.status.public_door import HTML_TYPE, language_of
from engine.watch.status.sender import StatusSender
from engine.watch.status.subscribers import (
    Frequency,
    Subscriber,
    Subscribers,
    SubscribersFull,
    compared,
)
from engine.watch.status.subscription_pages import button, form, notice
from protocols.address_texts import fault_text
from protocols.addresses import AddressFault, parse_address
from protocols.languages import Language
from protocols.timestamps import time_text

# An address, two words and what browsers add.
FORM_OCTETS_MAX: Final = 4_096


class SubscriberView(msgspec.Struct, frozen=True):
    """`frequency` is each, daily or weekly."""

    address: str
    language: str
    frequency: str
    since: str


class SubscriberPage(msgspec.Struct, frozen=True):
    subscribers: list[SubscriberView]
    after: str | None


class ListDoor:
    """What an operator sees of subscribers; the engine may be stopped."""

    def __init__(self, subscribers: Subscribers) -> None:
        self._subscribers = subscribers

    def routes(self) -> list[Route]:
        base = "/v1/status/subscribers"
        return [
            Route("GET", base, self.list, Access.OPERATOR),
            Route("DELETE", f"{base}/{{address}}", self.remove, Access.OPERATOR),
        ]

    async def list(self, request: Request) -> Response:
        """List subscribers by address."""
        query = Query(request, ("after", "limit"))
        limit, after = query.limit(), query.one("after") or ""
        await self._subscribers.load()
        behind = [each for each in self._subscribers.all() if each.address > after]
        page = sorted(behind, key=lambda each: each.address)[: limit + 1]
        views = [
            SubscriberView(
                each.address, each.language, each.frequency.value, time_text(each.since_unix_ms)
            )
            for each in page[:limit]
        ]
        return Response.json(
            SubscriberPage(views, views[-1].address if len(page) > limit else None)
        )

    async def remove(self, request: Request) -> Response:
        """End a subscription; 404 if there is none."""
        await self._subscribers.load()
        given = request.params["address"]
        fault = isinstance(parse_address(given), AddressFault)
        try:
            if fault or not await self._subscribers.remove(given):
                text = f"{given[:254]!a} is no subscriber."
                raise HttpError(404, "not_found", text, "address")
        except SpoolError as error:
            raise HttpError(503, "spool_unavailable", "Nothing can be stored now.") from error
        return Response(204)


class SubscriptionDoor:
    """The public handlers. `name` is the page's."""

    def __init__(
        self,
        subscribers: Subscribers,
        sender: StatusSender,
        links: Links,
        *,
        name: str,
        now_unix_ms: Callable[[], int],
    ) -> None:
        self._subscribers = subscribers
        self._sender = sender
        self._links = links
        self._name = name
        self._now_unix_ms = now_unix_ms
        self._limits = AskingLimits(now_unix_ms)

    def routes(self) -> list[Route]:
        confirm, leave = "/status/subscriptions/confirm", "/status/unsubscribe"
        small = FORM_OCTETS_MAX
        return [
            Route("POST", "/status/subscriptions", self.ask, Access.OPEN, small),
            Route("GET", "/status/subscriptions", self.lead_back, Access.OPEN),
            Route("GET", confirm, self.show_confirm, Access.OPEN),
            Route("POST", confirm, self.confirm, Access.OPEN, small),
            Route("GET", leave, self.show_leave, Access.OPEN),
            Route("POST", leave, self.leave, Access.OPEN, small),
        ]

    async def ask(self, request: Request) -> Response:
        """Take the form; the answer does not depend on who is subscribed."""
        language = language_of(request)
        if request.header(b"sec-fetch-site") == "cross-site":
            return self._notice(language, "bad_form", 403)
        given = dict(request.form)
        address = given.get("address", "").strip()
        try:
            frequency = Frequency(given.get("frequency", Frequency.EACH.value))
        except ValueError:
            return self._notice(language, "bad_form", 400)
        if given.get("language", language) not in ("de", "en"):
            return self._notice(language, "bad_form", 400)
        reads: Language = "de" if given.get("language", language) == "de" else "en"
        read = parse_address(address)
        if isinstance(read, AddressFault):
            return self._bad_address(language, address, read)
        answer = self._limits.ask(compared(address), request.peer)
        if answer is Answer.REFUSE:
            refused = self._notice(language, "refused", 429)
            refused.headers = (*refused.headers, ("retry-after", "3600"))
            return refused
        if answer is Answer.SEND:
            wish = Wish(address, reads, frequency, self._now_unix_ms() + CONFIRM_MS)
            try:
                await self._sender.confirm(wish)
            except SpoolError:
                self._limits.forgive(compared(address))
                return self._notice(language, "closed", 503)
        return self._notice(language, "sent", 202)

    async def lead_back(self, request: Request) -> Response:
        """Whoever opens the address that the form is sent to wants the form."""
        location = f"/status?lang={language_of(request)}#subscribe"
        return Response(303, b"", HTML_TYPE, (("location", location),))

    async def show_confirm(self, request: Request) -> Response:
        """Show the button."""
        try:
            token, wish = self._wish(request)
        except BadLink:
            return self._notice(language_of(_without_lang(request)), "bad_link", 400)
        words = FORM_WORDS[wish.language]
        text = self._filled(words["confirm"], wish.address, wish.language, wish.frequency)
        more = button(
            f"/status/subscriptions/confirm?token={quote(token)}", words["confirm_button"]
        )
        return self._page(wish.language, words["confirm_title"], text, 200, more)

    async def confirm(self, request: Request) -> Response:
        """Subscribe; may be repeated."""
        try:
            _, wish = self._wish(request)
        except BadLink:
            return self._notice(language_of(_without_lang(request)), "bad_link", 400)
        words = FORM_WORDS[wish.language]
        subscriber = Subscriber(wish.address, wish.language, wish.frequency, self._now_unix_ms())
        try:
            await self._subscribers.load()
            await self._subscribers.put(subscriber)
        except SubscribersFull:
            full = self._page(wish.language, words["closed_title"], words["full"], 503)
            full.is_crowded = True
            return full
        except SpoolError:
            return self._notice(wish.language, "closed", 503)
        text = self._filled(words["confirmed"], wish.address, wish.language, wish.frequency)
        return self._page(wish.language, words["confirmed_title"], text, 200)

    async def show_leave(self, request: Request) -> Response:
        """Show the button: who follows each link in a mail must not end anything."""
        try:
            token = _token(request)
            address, language = self._links.farewell_in(token)
        except BadLink:
            return self._notice(language_of(_without_lang(request)), "bad_link", 400)
        words = FORM_WORDS[language]
        more = button(f"/status/unsubscribe?token={quote(token)}", words["leave_button"])
        text = self._filled(words["leave"], address, language)
        return self._page(language, words["leave_title"], text, 200, more)

    async def leave(self, request: Request) -> Response:
        """End a subscription: durable with the answer, and no fault if there is none any more."""
        try:
            address, language = self._links.farewell_in(_token(request))
        except BadLink:
            return self._notice(language_of(_without_lang(request)), "bad_link", 400)
        try:
            await self._subscribers.load()
            await self._subscribers.remove(address)
        except SpoolError:
            return self._notice(language, "closed", 503)
        words = FORM_WORDS[language]
        return self._page(
            language, words["left_title"], self._filled(words["left"], address, language), 200
        )

    def _wish(self, request: Request) -> tuple[str, Wish]:
        token = _token(request)
        return token, self._links.wish_in(token, self._now_unix_ms())

    def _filled(
        self, text: str, address: str, language: Language, frequency: Frequency = Frequency.EACH
    ) -> str:
        text = text.replace("{frequency}", frequency_text(frequency, language))
        return text.replace("{name}", self._name).replace("{address}", address)

    def _bad_address(self, language: Language, address: str, fault: AddressFault) -> Response:
        words = FORM_WORDS[language]
        said = words["bad_address"].replace("{position}", str(fault.position + 1))
        said = said.replace("{fault}", fault_text(fault.text, language))
        again = form(language, address=address[:254], error=said)
        return self._page(language, words["bad_address_title"], said, 400, again)

    def _notice(self, language: Language, what: str, status: int) -> Response:
        words = FORM_WORDS[language]
        return self._page(language, words[f"{what}_title"], words[what], status)

    def _page(
        self, language: Language, title: str, text: str, status: int, more: str = ""
    ) -> Response:
        html = notice(language, self._name, title, text, more=more)
        return Response(status, html.encode(), HTML_TYPE, SECURITY_HEADERS)


def _token(request: Request) -> str:
    """The token in a link. Raises BadLink if there is not exactly one."""
    tokens = [value for name, value in request.query if name == "token"]
    if len(tokens) != 1:
        raise BadLink("a token is missing")
    return tokens[0]


def _without_lang(request: Request) -> Request:
    """The request as the browser alone would have it: a broken link may say anything."""
    return Request(request.method, request.path, "", request.headers)
