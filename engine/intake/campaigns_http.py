"""`POST /v1/campaigns` and its recipients: a template for many, over HTTP.

A campaign is made of its template and filled with lists of any length, in one request or in many.
A list is a stream: what is accepted stays accepted, whatever becomes of the connection, and the
same list once more takes in the rest. The answer says what became of it; after a break in the
middle it has the counts up to there beside the error.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgspec
import trio

from engine.config import Config
from engine.http_server import BodyFault, Crowded, HttpError, Request, Response, Route
from engine.intake.accounts import quota_of
from engine.intake.accounts_http import refusals
from engine.intake.campaign_views import (
    account_meant,
    holds_of,
    state_of,
    unknown_campaign,
    view_of,
)
from engine.intake.campaigns import RESUME_TEXT, CampaignBody, ListIntake, new_campaign
from engine.intake.check_http import content_type_of
from engine.spool.interface import NewMessage, Spool, SpoolError
from protocols.address_suggestions import DomainTypos
from protocols.languages import preferred_language
from protocols.recipient_lists import RecipientList
from protocols.records import Account, Campaign, CampaignState
from protocols.templates import DamagedTemplate, Template, read_template

JSON: Final = "application/json"
JSON_LINES: Final = ("application/x-ndjson", "application/jsonl", "application/ndjson")
CSV: Final = "text/csv"
# A megabyte of text and HTML, with what JSON makes of its marks and what is not ASCII.
DEFINITION_OCTETS_MAX: Final = 4 * 1024 * 1024
# Between two steps other work gets its turn: fifty recipients take half a millisecond.
STEP_ENTRIES: Final = 50
# Recipients who come one by one do not wait for longer until a batch is full.
HELD_BACK_S: Final = 1.0
# Each holds two batches in memory and waits for the same writer: more would be no faster.
LISTS_AT_ONCE_MAX: Final = 64
LISTS_OF_ACCOUNT_MAX: Final = 4


class CampaignsDoor:
    """The handlers. `random_octets` is a seam, for runs that must repeat."""

    def __init__(
        self,
        spool: Spool,
        config: Config,
        *,
        typos: DomainTypos,
        random_octets: Callable[[int], bytes],
    ) -> None:
        self._spool = spool
        self._config = config
        self._typos = typos
        self._random_octets = random_octets
        self._lists: Counter[int] = Counter()

    def routes(self) -> list[Route]:
        """Return the routes of this door, for the HTTP port."""
        return [
            Route("POST", "/v1/campaigns", self.create, streamed=True),
            Route("POST", "/v1/campaigns/{campaign}/recipients", self.fill, streamed=True),
        ]

    async def create(self, request: Request) -> Response:
        """Make a campaign, and fill it if recipients follow; 201, or 200 if it is there already."""
        account = await self._account(request)
        content_type = content_type_of(request)
        if content_type != JSON and content_type not in JSON_LINES:
            raise _unsupported("A campaign is application/json, or application/x-ndjson with lines")
        with self._place(account):
            if content_type == JSON:
                campaign, is_new = await self._made(account, await _whole(request.body_parts()))
                view = await view_of(self._spool, account, campaign.name)
                return Response.json(view, 201 if is_new else 200)
            parts = request.body_parts()
            first, rest = await _first_line(parts)
            campaign, is_new = await self._made(account, first)
            entries = RecipientList(is_csv=False, lines_before=1)
            entries.feed(rest)
            return await self._filled(request, account, campaign, entries, 201 if is_new else 200)

    async def fill(self, request: Request) -> Response:
        """Take recipients into a campaign; 200 with what became of them."""
        account = await self._account(request)
        name = request.params["campaign"]
        campaign = await self._spool.campaign(account.account_id, name)
        if campaign is None:
            raise unknown_campaign(name)
        content_type = content_type_of(request)
        if content_type != CSV and content_type not in JSON_LINES:
            raise _unsupported("Recipients are text/csv, or application/x-ndjson")
        with self._place(account):
            entries = RecipientList(is_csv=content_type == CSV)
            return await self._filled(request, account, campaign, entries, 200)

    async def _account(self, request: Request) -> Account:
        query = dict(request.query)
        for name in query:
            if name != "account":
                text = f"{name[:64]}: There is no such parameter; known is account."
                raise HttpError(400, "bad_parameter", text, name[:64])
        account = await account_meant(self._spool, request, query.get("account"))
        if account.disabled:
            raise HttpError(403, "account_suspended", "This account is suspended.")
        return account

    @contextmanager
    def _place(self, account: Account) -> Iterator[None]:
        """Count a body while it comes in. Raises HttpError if there are too many."""
        headers = (("retry-after", "5"),)
        if self._lists[account.account_id] >= LISTS_OF_ACCOUNT_MAX:
            text = f"An account hands in at most {LISTS_OF_ACCOUNT_MAX} lists at once."
            raise HttpError(429, "too_many_lists", text, headers=headers)
        if self._lists.total() >= LISTS_AT_ONCE_MAX:
            raise Crowded("Too many lists come in at once; try again.", retry_after_s=5)
        self._lists[account.account_id] += 1
        try:
            yield
        finally:
            self._lists[account.account_id] -= 1
            self._lists += Counter()  # without the accounts that have none

    async def _made(self, account: Account, octets: bytes) -> tuple[Campaign, bool]:
        """Return the campaign that is defined, and whether it is new. Raises HttpError."""
        try:
            body = msgspec.json.decode(octets, type=CampaignBody)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            text = f"The campaign is not as expected: {error}."
            raise HttpError(400, "bad_request", text) from error
        new = new_campaign(account, body, host=self._config.delivery.ehlo_name)
        with refusals("too_many_campaigns", 409, "campaign"):
            campaign, is_new = await self._spool.create_campaign(new)
        if campaign.digest != new.digest:
            text = "There is a campaign of this name with another content."
            raise HttpError(409, "campaign_exists", text, "campaign")
        return campaign, is_new

    async def _filled(
        self,
        request: Request,
        account: Account,
        campaign: Campaign,
        entries: RecipientList,
        status: int,
    ) -> Response:
        if campaign.state is not CampaignState.OPEN:
            raise _ended(campaign)
        intake = ListIntake(
            self._spool,
            account,
            campaign,
            await self._template(campaign),
            quota_of=lambda account: quota_of(account, self._config),
            typos=self._typos,
            language=preferred_language(request.header(b"accept-language")),
            random_octets=self._random_octets,
        )
        fault: HttpError | None = None
        try:
            await take_in(intake, entries, request.body_parts())
        except HttpError as error:
            fault = error
        return await self._answer(account, campaign, intake, fault, status)

    async def _answer(
        self,
        account: Account,
        campaign: Campaign,
        intake: ListIntake,
        fault: HttpError | None,
        status: int,
    ) -> Response:
        with suppress(SpoolError):
            # A spool that is full has said so already; what was taken is to be told all the same.
            await intake.note_refused()
        now = await self._spool.campaign(account.account_id, campaign.name)
        if fault is not None and fault.code == "campaign_ended" and now is not None:
            fault = _ended(now)
        is_held = bool(holds_of(self._spool, account, campaign.name))
        state = state_of(now or campaign, is_held=is_held)
        answer: dict[str, Any] = msgspec.structs.asdict(
            intake.answer(state or "", is_complete=fault is None)
        )
        if fault is None:
            return Response.json(answer, status)
        advice = f" {RESUME_TEXT}" if isinstance(fault, BodyFault) else ""
        message = f"{fault.message}{advice}"
        answer["error"] = {"code": fault.code, "message": message, "where": fault.where}
        return Response.json(answer, fault.status, fault.headers)

    async def _template(self, campaign: Campaign) -> Template:
        contents = await self._spool.content([campaign.content_id])
        try:
            return read_template(contents[campaign.content_id].octets)
        except (KeyError, DamagedTemplate) as error:
            text = "The stored template is damaged; make a campaign of another name."
            raise HttpError(409, "template_damaged", text, "campaign") from error


async def take_in(intake: ListIntake, entries: RecipientList, parts: AsyncIterator[bytes]) -> None:
    """Check and store a list as it comes. What was checked when it breaks off is stored, too.

    Raises HttpError where it does, or for what is not taken.
    """
    faults: list[HttpError] = []
    to_store, batches = trio.open_memory_channel[list[NewMessage]](0)

    async def store() -> None:
        async with batches:
            async for batch in batches:
                fault = await intake.store(batch)
                if fault is not None:
                    faults.append(fault)
                    return

    async with trio.open_nursery() as storing:
        storing.start_soon(store)
        async with to_store:
            try:
                await _check(intake, entries, parts, to_store)
            except HttpError as error:
                faults.append(error)
            except trio.BrokenResourceError:
                pass  # A batch was not taken: nothing after it is.
    if faults:
        raise faults[0]


async def _check(
    intake: ListIntake,
    entries: RecipientList,
    parts: AsyncIterator[bytes],
    to_store: trio.MemorySendChannel[list[NewMessage]],
) -> None:
    """Check a list as it comes and hand it on in batches, the last one also after a break."""
    handed_on_s = trio.current_time()
    try:
        while True:
            while intake.take_from(entries, STEP_ENTRIES):
                if intake.is_full:
                    handed_on_s = trio.current_time()
                    await to_store.send(intake.batch())
                else:
                    await trio.lowlevel.checkpoint()
            if entries.is_finished:
                break
            if trio.current_time() - handed_on_s > HELD_BACK_S and (batch := intake.batch()):
                handed_on_s = trio.current_time()
                await to_store.send(batch)
            try:
                entries.feed(await anext(parts))
            except StopAsyncIteration:
                entries.finish()
    except BodyFault:
        if batch := intake.batch():
            await to_store.send(batch)
        raise
    if batch := intake.batch():
        await to_store.send(batch)


async def _whole(parts: AsyncIterator[bytes]) -> bytes:
    body = bytearray()
    async for octets in parts:
        body += octets
        if len(body) > DEFINITION_OCTETS_MAX:
            raise _too_large()
    return bytes(body)


async def _first_line(parts: AsyncIterator[bytes]) -> tuple[bytes, bytes]:
    """Return the first line of a body, and what has come after it."""
    body = bytearray()
    async for octets in parts:
        end = octets.find(b"\n")
        length = len(body) + (len(octets) if end < 0 else end)
        if length > DEFINITION_OCTETS_MAX:
            raise _too_large()
        body += octets
        if end >= 0:
            return bytes(body[:length]), bytes(body[length + 1 :])
    return bytes(body), b""


def _too_large() -> HttpError:
    text = f"The definition of a campaign has at most {DEFINITION_OCTETS_MAX} octets."
    return HttpError(413, "too_large", text)


def _unsupported(text: str) -> HttpError:
    return HttpError(415, "unsupported_media_type", f"{text}, in UTF-8.", "Content-Type")


def _ended(campaign: Campaign) -> HttpError:
    text = f"The campaign is {campaign.state} and takes no more recipients."
    return HttpError(409, f"campaign_{campaign.state}", text, "campaign")
