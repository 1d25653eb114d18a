"""`/v1/messages`: where each mail is, and its whole story.

A waiting mail whose destination is in back-off has had no attempt of its own, so
it shows what its destination was told and when that is tried again.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec
import trio

from engine.http_server import Access, HttpError, Identity, Request, Response, Route
from engine.spool.agenda import UNREACHABLE_CAUSES
from engine.spool.interface import Spool
from engine.spool.listing_calls import EnvelopeFilter
from engine.watch.destinations import LiveDestinations, cause_now, told_to_accounts
from engine.watch.queries import Query, domain_name, not_found, whole_number
from protocols.records import (
    FINAL_STATUSES,
    Account,
    DestinationRecord,
    Envelope,
    Event,
    Status,
)
from protocols.stream_frames import uuid_text
from protocols.timestamps import time_text, time_text_or_none

FILTERS: Final = (
    *("status", "destination", "address", "campaign", "custom_id", "subject", "account"),
)
WAITING: Final = frozenset({Status.QUEUED, Status.DEFERRED})
LIST_PARAMETERS: Final = frozenset({*FILTERS, "from", "to", "after", "limit"})


class HistoryEntry(msgspec.Struct, frozen=True):
    """One thing that happened to a mail. `attempt` is 0 for what needed none; `mx_host`,
    `mx_address` and `tls` say whom we spoke to, "" where nobody was reached.
    """

    at: str
    kind: str
    status: Status
    attempt: int
    reply: str
    reason: str | None
    next_attempt_at: str | None
    mx_host: str
    mx_address: str
    tls: str


class MessageView(msgspec.Struct, frozen=True):
    """One recipient's mail. `reply` is the last one heard, `next_attempt_at` null when final.

    `size` is that of the content as it is stored: of a template before it is filled in.
    """

    message_id: int
    uuid: str
    account: str
    campaign: str | None
    custom_id: str
    event_payload: str
    sender: str
    address: str
    destination: str
    subject: str
    size: int
    status: Status
    attempts: int
    accepted_at: str
    next_attempt_at: str | None
    expires_at: str
    finished_at: str | None
    reply: str
    reason: str | None
    mx_host: str


class MessageStory(MessageView, frozen=True):
    """A mail with everything that happened to it, oldest first."""

    history: list[HistoryEntry]


class MessagePage(msgspec.Struct, frozen=True):
    """Newest first. A page under a narrow filter may be empty and go on: ask for `after`."""

    messages: list[MessageView]
    after: str | None


def routes(
    spool: Spool,
    live: LiveDestinations,
    listings: trio.CapacityLimiter,
    *,
    now_unix_ms: Callable[[], int],
) -> list[Route]:
    """Listing and single messages; `listings` bounds how many walk through the spool at once."""

    async def unreachable(
        envelopes: Collection[Envelope], reader: Identity
    ) -> Mapping[str, DestinationRecord]:
        now = now_unix_ms()
        return await back_offs(spool, live, envelopes, now, is_operator=reader.operator)

    async def list_messages(request: Request) -> Response:
        query = Query(request, LIST_PARAMETERS)
        wanted = await _wanted(spool, query, request.identity)
        after = query.set_of("after", whole_number)
        limit = query.limit()
        async with listings:
            page = await spool.find(wanted, min(after) if after else None, limit)
        records = await unreachable(page.envelopes, request.identity)
        views = [message_view(each, records) for each in page.envelopes]
        return Response.json(MessagePage(views, str(page.after) if page.after else None))

    async def one_message(request: Request) -> Response:
        envelope = await visible_envelope(spool, request.params["id"], request.identity)
        if envelope is None:
            raise not_found(f"message {request.params['id'][:40]}")
        records = await unreachable([envelope], request.identity)
        view = message_view(envelope, records)
        events = await spool.events_at(envelope.state.event_seqs)
        story = MessageStory(**msgspec.structs.asdict(view), history=[*map(history_entry, events)])
        return Response.json(story)

    return [
        Route("GET", "/v1/messages", list_messages, Access.ACCOUNT),
        Route("GET", "/v1/messages/{id}", one_message, Access.ACCOUNT),
    ]


async def visible_envelope(spool: Spool, message_id: str, identity: Identity) -> Envelope | None:
    """Return an envelope if it exists and this reader may see it."""
    try:
        envelope = await spool.envelope(whole_number(message_id))
    except ValueError:
        return None
    account_id = account_id_of(identity)
    if envelope is None or account_id not in (None, envelope.fixed.account_id):
        return None
    return envelope


def reader_of(identity: Identity) -> Account | None:
    """Return whose mail a reader sees; None is everybody's, an operator's."""
    return None if identity.operator else identity.account


def account_id_of(identity: Identity) -> int | None:
    """Whose mail a reader sees; None is everybody's."""
    if identity.operator:
        return None
    assert identity.account is not None, "routes of an account have one"
    return identity.account.account_id


async def back_offs(
    spool: Spool,
    live: LiveDestinations,
    envelopes: Collection[Envelope],
    now_unix_ms: int,
    *,
    is_operator: bool,
) -> Mapping[str, DestinationRecord]:
    """The records of those destinations of waiting `envelopes` that cannot be reached now."""
    waiting = {each.fixed.destination for each in envelopes if each.state.status in WAITING}
    actors = live()
    records = {}
    for name in waiting:
        record = await spool.destination(name)
        if (
            record is not None
            and cause_now(record, actors.get(name), now_unix_ms) in UNREACHABLE_CAUSES
        ):
            records[name] = record if is_operator else told_to_accounts(record)
    return records


def message_view(envelope: Envelope, unreachable: Mapping[str, DestinationRecord]) -> MessageView:
    """`unreachable` has what `back_offs` found."""
    fixed, state = envelope.fixed, envelope.state
    reply, reason, due_unix_ms = state.reply, state.reason, state.due_unix_ms
    destination = unreachable.get(fixed.destination)
    if destination is not None and state.status in WAITING:
        reply, reason = destination.reply, destination.reason
        due_unix_ms = max(due_unix_ms, destination.not_before_unix_ms)
    is_final = state.status in FINAL_STATUSES
    return MessageView(
        message_id=fixed.envelope_id,
        uuid=uuid_text(fixed.uuid),
        account=fixed.account,
        campaign=fixed.campaign,
        custom_id=fixed.custom_id,
        event_payload=fixed.event_payload,
        sender=fixed.reverse_path,
        address=fixed.address,
        destination=fixed.destination,
        subject=fixed.subject,
        size=fixed.content_size,
        status=state.status,
        attempts=state.attempts,
        accepted_at=time_text(fixed.accepted_unix_ms),
        next_attempt_at=None if is_final else time_text_or_none(due_unix_ms),
        expires_at=time_text(state.expires_unix_ms),
        finished_at=time_text_or_none(state.finished_unix_ms),
        reply=reply,
        reason=reason.value if reason else None,
        mx_host=state.mx_host,
    )


def history_entry(event: Event) -> HistoryEntry:
    return HistoryEntry(
        at=time_text(event.at_unix_ms),
        kind=event.kind,
        status=event.status,
        attempt=event.attempt,
        reply=event.reply,
        reason=event.reason.value if event.reason else None,
        next_attempt_at=time_text_or_none(event.next_attempt_unix_ms),
        mx_host=event.mx_host,
        mx_address=event.mx_address,
        tls=event.tls,
    )


async def _wanted(spool: Spool, query: Query, identity: Identity) -> EnvelopeFilter:
    account_id = await asked_account_id(spool, query, identity)
    destination = query.one("destination")
    return EnvelopeFilter(
        account_id=account_id,
        statuses=query.statuses(),
        destination=None if destination is None else domain_name(destination),
        address=query.one("address"),
        campaign=query.one("campaign"),
        custom_id=query.one("custom_id"),
        subject=query.one("subject"),
        from_unix_ms=query.time_unix_ms("from"),
        to_unix_ms=query.time_unix_ms("to"),
    )


async def asked_account_id(spool: Spool, query: Query, identity: Identity) -> int | None:
    """Whose mail is asked for, by `account` or else all that a reader sees. Raises HttpError."""
    name = query.one("account")
    if name is None:
        return account_id_of(identity)
    return await account_named(spool, name, identity)


async def account_named(spool: Spool, name: str, identity: Identity) -> int:
    """The id of an account that this reader may see. Raises HttpError 404."""
    if identity.account is not None and identity.account.name == name:
        return identity.account.account_id
    if identity.operator:
        for account in await spool.accounts():
            if account.name == name:
                return account.account_id
    raise HttpError(404, "not_found", f"There is no account {name[:40]!r}.", "account")
