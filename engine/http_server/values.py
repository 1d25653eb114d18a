"""What handlers are given and give back: requests, responses, routes, and how errors look.

Plain values; nothing here reads a socket. A handler is an async function of a
`Request` that returns a `Response` or raises `HttpError`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from engine.http_server.streams import ReplayStream
from protocols.records import Account

JSON_TYPE: Final = "application/json"
FORM_TYPE: Final = "application/x-www-form-urlencoded"

# A form with more fields than any of our routes has filters is not a question to us.
QUERY_FIELDS_MAX: Final = 200


class Access(Enum):
    """Who may use a route."""

    OPEN = "anybody; credentials are not looked at"
    OPTIONAL = "anybody, but credentials that are given must be right"
    ACCOUNT = "an account with its key, or an operator"
    OPERATOR = "an operator"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. An operator sees all accounts; `account` is None for operators and anonymous.

    `api_key` is what the account came with, for whoever has to ask later if it is still good.
    """

    account: Account | None = None
    operator: bool = False
    api_key: str = ""

    @property
    def known(self) -> bool:
        return self.operator or self.account is not None


ANONYMOUS: Final = Identity()


@dataclass(slots=True)
class Request:
    """One request, read whole, but for the body where the route is `streamed`.

    `path` is percent-decoded, `params` are the pattern's named segments (decoded),
    `query` the decoded pairs in order, `headers` octets with lower-case names.
    `peer` is the client's address, "" on the control socket.
    """

    method: str
    path: str
    raw_query: str
    headers: Sequence[tuple[bytes, bytes]]
    params: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    identity: Identity = ANONYMOUS
    peer: str = ""
    parts: AsyncIterator[bytes] | None = None

    def body_parts(self) -> AsyncIterator[bytes]:
        """The body of a streamed route, once: some octets at a time, read only when asked for.

        Raises BodyFault where it breaks off.
        """
        assert self.parts is not None, "only the body of a streamed route comes in parts"
        return self.parts

    @property
    def query(self) -> list[tuple[str, str]]:
        """The decoded query. Raises HttpError 400 if it is not one."""
        if not self.raw_query:
            return []
        try:
            return parse_qsl(
                self.raw_query,
                keep_blank_values=True,
                errors="strict",
                max_num_fields=QUERY_FIELDS_MAX,
            )
        except UnicodeDecodeError as error:
            text = "The query string is not UTF-8 when decoded."
            raise HttpError(400, "bad_query", text) from error
        except ValueError as error:
            text = f"The query string has more than {QUERY_FIELDS_MAX} fields."
            raise HttpError(400, "bad_query", text) from error

    @property
    def form(self) -> list[tuple[str, str]]:
        """The decoded body of an HTML form. Raises HttpError 400 or 415 if it is none."""
        content_type = (self.header(b"content-type") or "").partition(";")[0].strip().lower()
        if content_type != FORM_TYPE:
            raise HttpError(415, "unsupported_type", f"A form is sent as {FORM_TYPE}.")
        try:
            return parse_qsl(
                self.body.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=QUERY_FIELDS_MAX,
            )
        except ValueError as error:  # Not ASCII, not UTF-8 when decoded, or too many fields.
            raise HttpError(400, "bad_form", "The form cannot be read.") from error

    def header(self, name: bytes) -> str | None:
        """The first value of a header as Latin-1 text; `name` in lower case."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return None


@dataclass(slots=True)
class Response:
    """What is answered. `headers` come on top of Content-Type, Content-Length and Date.

    `is_crowded` says of a 5xx that nothing of ours failed: others have all places.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: Sequence[tuple[str, str]] = ()
    is_crowded: bool = False

    @classmethod
    def json(
        cls, value: Any, status: int = 200, headers: Sequence[tuple[str, str]] = ()
    ) -> "Response":
        return cls(status, msgspec.json.encode(value), JSON_TYPE, headers)


class HttpError(Exception):
    """A request that is answered with an error.

    `code` is a word for programs, `message` a sentence for people, `where` the
    parameter or JSON path at fault, "" if none. The route decides on the form.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        where: str = "",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.where = where
        self.headers = headers


class Crowded(HttpError):
    """503 for whom there is no place because others have them all.

    That is the work of those who ask: it is no failure of ours, and none of the status page's.
    """

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(503, "busy", message, headers=(("retry-after", str(retry_after_s)),))


class BodyFault(HttpError):
    """The body of a streamed request came to no end: it stood still, broke off or was no body.

    What was read of it stands, and whoever reads it may still answer.
    """


def error_response(error: HttpError) -> Response:
    """The form of every error below /v1: `{"error": {"code", "message", "where"}}`."""
    detail = {"code": error.code, "message": error.message, "where": error.where}
    return Response.json({"error": detail}, error.status, error.headers)


Handler = Callable[[Request], Awaitable[Response]]
# Key and secret to their account, which may be disabled: the port says so and lets nobody in.
Authenticate = Callable[[str, str], Awaitable[Account | None]]


@dataclass(frozen=True, slots=True)
class WebSocketUpgrade:
    """What a websocket route does with `Upgrade: websocket`.

    `admit` decides before the upgrade: the identity to go on with, or HttpError.
    `run` then owns the stream, which begins with the octets of the request
    itself; when it returns or raises, the connection is closed.
    """

    admit: Callable[[Request], Awaitable[Identity]]
    run: Callable[[Request, ReplayStream], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. `pattern` is "/v1/messages/{id}": a name takes one whole segment.

    GET answers HEAD too. `body_bytes_max` bounds the body (413 beyond).
    `render_error` gives errors another form than /v1's; `realm` is what a 401
    names; `folds_case` makes the pattern's words match in any case. A `streamed` route reads the
    body itself (`Request.body_parts`), however long it is.
    """

    method: str
    pattern: str
    handler: Handler
    access: Access = Access.ACCOUNT
    body_bytes_max: int = 65_536  # No command of /v1 is longer; intake says its own.
    websocket: WebSocketUpgrade | None = None
    render_error: Callable[[HttpError], Response] = error_response
    realm: str = "Eilpost: API key and secret key"
    folds_case: bool = False
    streamed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Limits of the port. Sizes in octets, times in seconds."""

    listen: Sequence[str] = ("127.0.0.1:8620",)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False  # TLS is somebody else's work, and X-Forwarded-For is true.
    control_socket: Path | None = None
    public_url: str = ""  # Where browsers reach us when it is not what Host says.
    contact: str = ""  # Whom to ask, in a header of every error; printable, "" for nobody.
    connections_max: int = 4_000  # Half of the usual 8,192 descriptors is left for deliveries.
    # What all bodies in memory may come to: four of the largest at once, or 2,000 usual batches.
    bodies_bytes_max: int = 256 * 1024 * 1024
    head_bytes_max: int = 16_384  # h11's own default, twice of what browsers with cookies send.
    handshake_s: float = 10.0
    head_s: float = 10.0  # One packet usually; whoever needs longer is counting our sockets.
    idle_s: float = 75.0  # Longer than the 60 s after which most clients drop a kept connection.
    body_s: float = 15.0  # On top of the time that the minimum rate allows.
    write_s: float = 30.0
    rate_bytes_per_s_min: int = 2_000  # A tenth of a bad mobile line; a drip stays far below.
    # A streamed body may be made as it is sent: some recipients a second are enough. Whoever falls
    # behind that by this long only keeps one of few places.
    stream_bytes_per_s_min: int = 200
    stream_behind_s_max: float = 60.0
    stop_s: float = 10.0  # Requests in progress have this long to finish when the engine ends.


@dataclass(frozen=True, slots=True)
class HttpStatistics:
    connections: int
    requests: int
    responses_by_class: dict[int, int]  # 2 for 2xx, and so on
    # 5xx but for 501, which anybody gets who asks for what we do not speak, and for `Crowded`.
    failures: int
    timeouts: int
    evicted: int
    bodies_bytes: int
