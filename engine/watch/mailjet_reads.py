"""`/v3/REST/message` and `/v3/REST/messagehistory`: the read side that clients already speak.

`POST /v3/send`, which came before v3.1, is answered with the way to the one that we have.

Names of resources and parameters match in any case and unknown parameters are
ignored, because that is what those clients rely on. Here `sent` means delivered;
only this module says it that way.
"""

import zlib
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import trio

from engine.http_server import Access, HttpError, Request, Response, Route
from engine.intake.send import REQUEST_OCTETS_MAX
from engine.spool.interface import Spool
from engine.spool.listing_calls import EnvelopeFilter
from engine.watch.messages import account_id_of, visible_envelope
from protocols.records import ATTACHMENTS, HAS_HTML, HAS_TEXT, Envelope, Event, Reason, Status
from protocols.stream_frames import uuid_text
from protocols.timestamps import parse_time, time_text

REALM: Final = "Provide an apiKey and secretKey"
NOT_FOUND: Final = "Object not found"
LIMIT_DEFAULT: Final = 10
LIMIT_MAX: Final = 1_000
BODY_BYTES_MAX: Final = 65_536  # These have none.
PAGE: Final = 1_000
# Sorting upwards, counting and paging deep walk the listing; this bounds the walk to a second.
ROWS_WALKED_MAX: Final = 100_000

STATUS_WORDS: Final = {
    Status.QUEUED: "queued",
    Status.PAUSED: "queued",
    Status.DEFERRED: "deferred",
    Status.DELIVERED: "sent",
    Status.SOFT_BOUNCED: "softbounced",
    Status.HARD_BOUNCED: "hardbounced",
    Status.BLOCKED: "blocked",
    Status.CANCELLED: "blocked",
}
STATUS_NUMBERS: Final = {
    "1": "queued",
    "2": "sent",
    "3": "opened",
    "4": "clicked",
    "5": "bounce",
    "6": "spam",
    "7": "unsub",
    "8": "blocked",
    "9": "softbounced",
    "10": "hardbounced",
    "11": "deferred",
}
EVENT_TYPES: Final = {
    Status.DELIVERED: "sent",
    Status.DEFERRED: "deferred",
    Status.SOFT_BOUNCED: "bounced",
    Status.HARD_BOUNCED: "bounced",
    Status.BLOCKED: "blocked",
    Status.CANCELLED: "blocked",
}
# The numbers and words of the states are the ones that those clients' enumerations list.
STATES: Final = {
    Reason.UNKNOWN_USER: (1, "user unknown"),
    Reason.MAILBOX_FULL: (3, "quota exceeded"),
    Reason.NO_SUCH_DOMAIN: (4, "invalid domain"),
    Reason.DNS: (5, "no mail host"),
    Reason.NULL_MX: (5, "no mail host"),
    Reason.RELAY_DENIED: (6, "relay/access denied"),
    Reason.SPAM: (8, "content blocked"),
    Reason.SIZE: (8, "content blocked"),
    Reason.POLICY: (9, "policy issue"),
    Reason.THROTTLED: (9, "policy issue"),
    Reason.PROTOCOL: (11, "protocol issue"),
    Reason.CONNECTION: (12, "connection issue"),
    Reason.TLS: (12, "connection issue"),
    Reason.OUTCOME_UNKNOWN: (12, "connection issue"),
    Reason.GREYLISTED: (13, "greylisted"),
    Reason.SUPPRESSED: (14, "preblocked"),
}
SYSTEM_ISSUE: Final = (10, "system issue")


def routes(spool: Spool, listings: trio.CapacityLimiter) -> list[Route]:
    """Messages, one message, and one message's history; `listings` as for `/v1/messages`."""

    async def list_messages(request: Request) -> Response:
        query = _lower_query(request)
        wanted = _wanted(query, account_id_of(request.identity))
        limit = _number(query, "limit", LIMIT_DEFAULT, LIMIT_MAX)
        offset = _number(query, "offset", 0, ROWS_WALKED_MAX)
        if wanted is None:
            return _listing([])
        total: int | None = None
        if _flag(query, "countonly") or _flag(query, "countrecords"):
            async with listings:
                total = await _count(spool, wanted)
            if _flag(query, "countonly"):
                return Response.json({"Count": total, "Data": [], "Total": total})
        ascending = _is_ascending(query)
        async with listings:
            rows = await _page(spool, wanted, offset, limit or LIMIT_MAX, ascending)
        data = [_row(each, query) for each in rows]
        return _listing(data, total)

    async def one_message(request: Request) -> Response:
        envelope = await visible_envelope(spool, request.params["id"], request.identity)
        if envelope is None:
            raise HttpError(404, "not_found", NOT_FOUND)
        return _listing([_row(envelope, _lower_query(request))])

    async def history(request: Request) -> Response:
        envelope = await visible_envelope(spool, request.params["id"], request.identity)
        if envelope is None:
            return _listing([])
        events = await spool.events_at(envelope.state.event_seqs)
        return _listing([_history_row(each) for each in events if each.status in EVENT_TYPES])

    async def send_of_old(request: Request) -> Response:
        text = f"{NOT_FOUND}: Send API v3 is not served here, use POST /v3.1/send"
        raise HttpError(404, "not_found", text)

    def route(
        pattern: str, handler: Any, method: str = "GET", body_bytes_max: int = BODY_BYTES_MAX
    ) -> Route:
        return Route(
            method,
            pattern,
            handler,
            Access.ACCOUNT,
            body_bytes_max=body_bytes_max,
            render_error=error_response,
            realm=REALM,
            folds_case=True,
        )

    return [
        route("/v3/REST/message", list_messages),
        route("/v3/REST/message/{id}", one_message),
        route("/v3/REST/messagehistory/{id}", history),
        # Read whole, or a mail with attachments would learn only that it is too long.
        route("/v3/send", send_of_old, "POST", REQUEST_OCTETS_MAX),
    ]


def error_response(error: HttpError) -> Response:
    """Errors of /v3: a 401 has no body, all others name what is wrong."""
    if error.status == 401:
        return Response(401, b"", "text/html", error.headers)
    message = error.message
    if error.status == 404 and not message.startswith(NOT_FOUND):
        # Clients look for these words, also where the port knows no such path.
        message = f"{NOT_FOUND}: {message}"
    body = {"ErrorInfo": "", "ErrorMessage": message, "StatusCode": error.status}
    return Response.json(body, error.status, error.headers)


def _listing(data: list[dict[str, Any]], total: int | None = None) -> Response:
    count = len(data)
    return Response.json({"Count": count, "Data": data, "Total": count if total is None else total})


def _row(envelope: Envelope, query: Mapping[str, str]) -> dict[str, Any]:
    """One message as recorded rows have it. What we do not do (tracking, scoring) is false or 0.

    `MessageSize` is that of the content as it is stored, of a template before it is filled in. Of
    mail that came as octets nobody has said what it is made of: it has no part and no attachment.
    """
    fixed, state = envelope.fixed, envelope.state
    row: dict[str, Any] = {
        "ArrivedAt": f"{time_text(fixed.accepted_unix_ms)[:-5]}Z",
        "AttachmentCount": fixed.parts // ATTACHMENTS,
        "AttemptCount": state.attempts,
        "CampaignID": fixed.flow if fixed.campaign is not None else 0,
        "ContactAlt": fixed.address if _flag(query, "showcontactalt") else "",
        "ContactID": _number_of(fixed.address.lower()),
        "Delay": 0,
        "DestinationID": _number_of(fixed.destination),
        "FilterTime": 0,
        "ID": fixed.envelope_id,
        "IsClickTracked": False,
        "IsHTMLPartIncluded": bool(fixed.parts & HAS_HTML),
        "IsOpenTracked": False,
        "IsTextPartIncluded": bool(fixed.parts & HAS_TEXT),
        "IsUnsubTracked": False,
        "MessageSize": fixed.content_size,
        "SenderID": _number_of(fixed.reverse_path.lower()),
        "SpamassassinScore": 0,
        "SpamassRules": "",
        "StatePermanent": state.status is Status.HARD_BOUNCED,
        "Status": STATUS_WORDS[state.status],
        "Subject": fixed.subject if _flag(query, "showsubject") else "",
        "UUID": uuid_text(fixed.uuid),
    }
    if _flag(query, "showcustomid"):
        row["CustomID"] = fixed.custom_id
    if state.reason is not None and state.status is not Status.DELIVERED:
        row["StateID"] = STATES.get(state.reason, SYSTEM_ISSUE)[0]
    return row


def _history_row(event: Event) -> dict[str, Any]:
    state = ""
    if event.reason is not None and event.status is not Status.DELIVERED:
        state = STATES.get(event.reason, SYSTEM_ISSUE)[1]
    return {
        "Comment": event.reply,
        "EventAt": event.at_unix_ms // 1000,
        "EventType": EVENT_TYPES[event.status],
        "State": state,
        "Useragent": "",
        "UseragentID": 0,
    }


def _number_of(text: str) -> int:
    # Those ids name rows of tables that we do not have; equal texts need equal numbers, no more.
    return zlib.crc32(text.encode())


def _lower_query(request: Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.query}


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("1", "true")


def _number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    value = query.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdecimal() and len(value) < 10 and int(value) <= most):
        raise HttpError(400, "bad_parameter", f"Invalid {name.title()}: {value[:40]!r}")
    return int(value)


def _is_ascending(query: Mapping[str, str]) -> bool:
    sort = query.get("sort")
    if sort is None:
        return False
    field, _, direction = sort.partition(" ")
    if field.lower() not in ("id", "arrivedat") or direction.upper() not in ("", "ASC", "DESC"):
        text = f"Invalid sort specification: Cannot sort on field {sort[:60]!r}"
        raise HttpError(400, "bad_parameter", text)
    return direction.upper() != "DESC"


def _wanted(query: Mapping[str, str], account_id: int | None) -> EnvelopeFilter | None:
    """The filter of a listing; None if nothing can match. Raises HttpError 400."""
    statuses: frozenset[Status] | None = None
    if "messagestatus" in query:
        statuses = _statuses(query["messagestatus"])
        if not statuses:
            return None
    return EnvelopeFilter(
        account_id=account_id,
        statuses=statuses,
        custom_id=query.get("customid"),
        from_unix_ms=_time(query, "fromts"),
        to_unix_ms=_time(query, "tots"),
    )


def _statuses(value: str) -> frozenset[Status]:
    # By its digits: `int` raises for a text of some thousands of them.
    word = STATUS_NUMBERS.get(value, "processed") if value.isdecimal() else value.lower()
    if word == "processed":
        return frozenset(Status)
    if word == "bounce":
        return frozenset({Status.SOFT_BOUNCED, Status.HARD_BOUNCED})
    return frozenset(status for status, text in STATUS_WORDS.items() if text == word)


def _time(query: Mapping[str, str], name: str) -> int | None:
    value = query.get(name)
    if not value:
        return None
    try:
        return parse_time(value)
    except ValueError as error:
        raise HttpError(400, "bad_parameter", f"Invalid {name}: {error}") from error


async def _page(
    spool: Spool, wanted: EnvelopeFilter, offset: int, limit: int, ascending: bool
) -> list[Envelope]:
    """The spool lists the newest first, so an ascending page is the end of the whole walk."""
    enough = offset + limit
    rows: deque[Envelope] = deque(maxlen=enough if ascending else None)
    after: int | None = None
    walked = 0
    while ascending or walked < enough:
        size = PAGE if ascending else min(PAGE, enough - walked)
        page = await spool.find(wanted, after, size)
        rows += page.envelopes
        walked = _checked_walk(walked + len(page.envelopes))
        after = page.after
        if after is None:
            break
    listed = list(reversed(rows)) if ascending else list(rows)
    return listed[offset:enough]


async def _count(spool: Spool, wanted: EnvelopeFilter) -> int:
    after: int | None = None
    count = 0
    while True:
        page = await spool.find(wanted, after, PAGE)
        count = _checked_walk(count + len(page.envelopes))
        after = page.after
        if after is None:
            return count


def _checked_walk(walked: int) -> int:
    if walked > ROWS_WALKED_MAX + LIMIT_MAX:
        text = f"More than {ROWS_WALKED_MAX} messages: narrow the search by FromTS and ToTS"
        raise HttpError(400, "bad_parameter", text)
    return walked
