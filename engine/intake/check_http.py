"""`POST /v1/check`: a list of addresses looked through while mail goes on.

Takes JSON, a CSV or one address a line, and answers what would become of each address in mail.
Nothing is stored, and no mail is sent.

The work is done in the loop in small steps, not in a thread: a thread of pure Python would take
the interpreter for five milliseconds at a time, whenever a delivery waits for an octet.
"""

from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Annotated, Final

import msgspec
import trio

from engine.http_server import HttpError, Request, Response, Route
from engine.intake.address_check import AddressFaultRow, SuggestionRow, check_list
from engine.spool import RunBlocking
from protocols.address_lists import (
    BrokenLine,
    Listed,
    ListRefused,
    bounded_lines,
    read_list,
)
from protocols.address_suggestions import DomainTypos
from protocols.languages import preferred_language

PATH: Final = "/v1/check"
ADDRESSES_MAX: Final = 100_000
# 160 octets for each of so many rows: an export with the other columns in it.
REQUEST_OCTETS_MAX: Final = 16 * 1024 * 1024
# Between two steps other work gets its turn. A good address costs five microseconds, a fault ten
# times as much, and the worst ones that we could think of a millisecond: five of these in a step.
STEP_COST: Final = 50
FAULT_COST: Final = 10
# Decoding so much JSON takes the interpreter as long as a step does.
THREAD_OCTETS_MIN: Final = 64 * 1024
# A large list can make an answer several times its size. Small ones do not wait for it.
LARGE_AT_ONCE_MAX: Final = 2


class CheckBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What `POST /v1/check` takes as JSON; a CSV or one address a line will do as well."""

    addresses: Annotated[list[str], msgspec.Meta(max_length=ADDRESSES_MAX)]


class CheckAnswer(msgspec.Struct, frozen=True):
    """How many addresses there are and would be accepted, and what is to be said of the others.

    `checked` is `good` and the number of faults together; suggestions are for good ones.
    """

    checked: int
    good: int
    faults: list[AddressFaultRow]
    suggestions: list[SuggestionRow]


class CheckDoor:
    """The handler of the route."""

    def __init__(self, typos: DomainTypos, *, run_blocking: RunBlocking) -> None:
        self._typos = typos
        self._run_blocking = run_blocking
        self._large = trio.Semaphore(LARGE_AT_ONCE_MAX)

    def routes(self) -> list[Route]:
        """Return the routes of this door, for the HTTP port."""
        return [Route("POST", PATH, self.check, body_bytes_max=REQUEST_OCTETS_MAX)]

    async def check(self, request: Request) -> Response:
        """Look through the list in the body. Raises HttpError for one that cannot be read."""
        if len(request.body) < THREAD_OCTETS_MIN:
            return await self._check(request)
        async with self._large:
            return await self._check(request)

    async def _check(self, request: Request) -> Response:
        language = preferred_language(request.header(b"accept-language"))
        findings = check_list(await self._entries(request), self._typos, language)
        answer = _Answer()
        try:
            while not answer.take(findings):
                await trio.lowlevel.checkpoint()
        except ListRefused as error:
            raise HttpError(400, "bad_list", f"The list cannot be read: {error}.") from error
        return Response(200, answer.encoded(), headers=[("Content-Language", language)])

    async def _entries(self, request: Request) -> Iterable[Listed | BrokenLine]:
        content_type = content_type_of(request)
        if content_type == "application/json":
            if len(request.body) < THREAD_OCTETS_MIN:
                return _from_json(request.body)
            entries: list[Listed | BrokenLine] = await self._run_blocking(_from_json, request.body)
            return entries
        if content_type in ("text/csv", "text/plain"):
            lines = bounded_lines(BytesIO(request.body).readline)
            return read_list(lines, is_csv=content_type == "text/csv")
        raise HttpError(
            415,
            "unsupported_media_type",
            "A list is application/json, text/csv or text/plain, in UTF-8.",
            "Content-Type",
        )


class _Answer:
    """The answer as it grows; rows are kept encoded, which takes a fifth of the memory."""

    def __init__(self) -> None:
        self._checked = 0
        self._faults: list[bytes] = []
        self._suggestions: list[bytes] = []

    def take(self, findings: Iterator[AddressFaultRow | SuggestionRow | None]) -> bool:
        """Take the findings of one step; True if these were the last. Raises HttpError."""
        cost = 0
        while cost < STEP_COST:
            try:
                found = next(findings)
            except StopIteration:
                return True
            cost += FAULT_COST if isinstance(found, AddressFaultRow) else 1
            self._checked += 1
            if self._checked > ADDRESSES_MAX:
                raise _too_many()
            if isinstance(found, AddressFaultRow):
                self._faults.append(msgspec.json.encode(found))
            elif found is not None:
                self._suggestions.append(msgspec.json.encode(found))
        return False

    def encoded(self) -> bytes:
        """Return a CheckAnswer in JSON."""
        return msgspec.json.encode(
            {
                "checked": self._checked,
                "good": self._checked - len(self._faults),
                "faults": _array(self._faults),
                "suggestions": _array(self._suggestions),
            }
        )


def _array(rows: list[bytes]) -> msgspec.Raw:
    return msgspec.Raw(b"[" + b",".join(rows) + b"]")


def _from_json(body: bytes) -> list[Listed | BrokenLine]:
    # Each text has two marks and becomes an object of at least fifty octets. Marks within a text
    # are escaped; counting those as half an address leaves more room than lists of people need.
    if body.count(b'"') > 4 * ADDRESSES_MAX:
        raise _too_many()
    try:
        addresses = msgspec.json.decode(body, type=CheckBody).addresses
    except msgspec.ValidationError as error:
        if "length <=" in str(error):
            raise _too_many() from error
        raise HttpError(400, "bad_request", f"The body is not as expected: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, "bad_request", f"The body is no JSON: {error}.") from error
    return [Listed(place, address) for place, address in enumerate(addresses, 1)]


def _too_many() -> HttpError:
    return HttpError(
        413, "too_many_addresses", f"One request checks at most {ADDRESSES_MAX} addresses."
    )


def content_type_of(request: Request) -> str:
    """Return the type of the body in lower case; "" for one in another encoding than ours."""
    media_type, *parameters = (request.header(b"content-type") or "").lower().split(";")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip(' "') not in ("utf-8", "utf8", "us-ascii"):
            return ""
    return media_type.strip()
