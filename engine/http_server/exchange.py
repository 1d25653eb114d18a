"""The straight-line parts of an exchange: a head checked, a request built, an answer's octets.

Everything here is an ordinary function of what h11 gave us, but for asking who
it is. The checks go beyond h11's because an intermediary may read the same
octets differently: two framings, bare line feeds and folded lines are refused,
not interpreted (RFC 9112 sections 2.2, 5.2, 6.1).
"""

import ipaddress
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import h11

from engine.http_server.operators import OperatorSessions
from engine.http_server.routing import Router
from engine.http_server.values import (
    ANONYMOUS,
    Access,
    Authenticate,
    Crowded,
    HttpError,
    HttpSettings,
    Identity,
    Request,
    Response,
    Route,
)

if TYPE_CHECKING:
    from engine.http_server.connection import HttpConnection

# What is in memory of one account's bodies is at most half of all: a few that come slowly, or that
# wait for their turn, must not keep everybody else out.
BODIES_SHARE: Final = 2
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})  # RFC 9110 9.2.1; the port has no other safe one.
REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


@dataclass(slots=True)
class Services:
    """What all connections of one server share."""

    settings: HttpSettings
    router: Router
    authenticate: Authenticate
    operators: OperatorSessions
    now_unix_ms: Callable[[], int]
    # Connections that wait for a head, or for the body of nobody known; the longest waiting first.
    evictable: dict["HttpConnection", None] = field(default_factory=dict)
    stopping: bool = False
    requests: int = 0
    timeouts: int = 0
    evicted: int = 0
    bodies_bytes: int = 0
    # The same by who sends them, an account's id or 0; only those that have some are there.
    bodies_bytes_of: Counter[int] = field(default_factory=Counter)
    responses_by_class: dict[int, int] = field(default_factory=dict)
    failures: int = 0
    date: tuple[int, bytes] = (0, b"")

    def count_body(self, sender: int, octets: int) -> None:
        """Count octets of a body that came into memory, or with a minus left it."""
        self.bodies_bytes += octets
        self.bodies_bytes_of[sender] += octets
        if not self.bodies_bytes_of[sender]:
            del self.bodies_bytes_of[sender]

    def has_room_for_bodies(self, sender: int) -> bool:
        """Say whether what is in memory is within bounds, of all and of the sender."""
        most = self.settings.bodies_bytes_max
        share = self.bodies_bytes_of[sender] if sender else 0
        return self.bodies_bytes <= most and share <= most // BODIES_SHARE


def checked_head(head: h11.Request, seen: bytes, bytes_max: int) -> None:
    """Refuse what two readers could read in two ways. Raises HttpError 400, 417 or 431."""
    end = seen.find(b"\r\n\r\n")
    if end > bytes_max:  # h11 counts only heads that come in more than one piece.
        raise HttpError(431, "head_too_large", f"The head is longer than {bytes_max} octets.")
    lines = seen[:end] if end >= 0 else seen
    if end < 0 or lines.count(b"\n") != lines.count(b"\r\n"):
        raise HttpError(400, "bad_request", "Lines of the head must end with CR LF.")
    if b"\r\n " in lines or b"\r\n\t" in lines:
        raise HttpError(400, "bad_request", "A folded header line is obsolete.")
    names = [name for name, _ in head.headers]
    if b"transfer-encoding" in names and (
        b"content-length" in names or head.http_version == b"1.0"
    ):
        raise HttpError(400, "bad_request", "Content-Length or Transfer-Encoding, not both.")
    for name, value in head.headers:
        if name == b"expect" and value.lower() != b"100-continue":
            raise HttpError(417, "expectation_failed", "Only 100-continue may be expected.")


def request_of(
    services: Services, head: h11.Request, peer: str, *, control: bool
) -> tuple[Route, Request]:
    """Find the route and build the request without its body. Raises HttpError 400, 404, 405."""
    method = head.method.decode("ascii")
    target = head.target.decode("latin-1")
    if method == "CONNECT":
        raise HttpError(405, "method_not_allowed", "This is no proxy.", headers=(("allow", "GET"),))
    if not target.startswith("/"):
        target = _origin_form(target)
    path, _, raw_query = target.partition("?")
    route, params, decoded = services.router.find(method, path)
    headers = list(head.headers)
    if services.settings.behind_proxy and not control:
        peer = _forwarded_for(headers) or peer
    request = Request(
        method=method,
        path=decoded,
        raw_query=raw_query,
        headers=headers,
        params=params,
        peer=peer,
    )
    return route, request


async def authenticated(
    services: Services, route: Route, request: Request, control: bool
) -> Identity:
    """Say who asks. Raises HttpError 401 or 403 where the route demands more."""
    if control:
        return Identity(operator=True)
    if route.access is Access.OPEN:
        return ANONYMOUS
    _refuse_foreign_deed(services, request)
    identity = ANONYMOUS
    credentials = request.header(b"authorization")
    if credentials is not None:
        pair = _basic_credentials(credentials)
        if pair is None:
            raise _unauthorized(route)
        if services.operators.is_operator(*pair):
            identity = Identity(operator=True)
        else:
            account = await services.authenticate(*pair)
            if account is not None and account.disabled:
                # Only said to who has the secret: others learn nothing of the account.
                text = "The account of this API key is suspended."
                raise HttpError(401, "account_suspended", text, headers=_challenge(route))
            identity = Identity(account=account, api_key=pair[0])
        if not identity.known:
            raise _unauthorized(route)
    if route.access is not Access.OPTIONAL and not identity.known:
        raise _unauthorized(route)
    if route.access is Access.OPERATOR and not identity.operator:
        raise HttpError(403, "forbidden", "Only an operator may do this.")
    return identity


def is_websocket_upgrade(head: h11.Request, seen: bytes) -> bool:
    """Whether this asks for a websocket. Raises HttpError 400 for octets that end its library.

    The library decodes Host and comma-separated headers without a guard, so a
    head with any octet beyond ASCII is not shown to it, nor one with a body.
    """
    headers = dict(head.headers)
    if b"websocket" not in headers.get(b"upgrade", b"").lower():
        return False
    if not seen[: seen.find(b"\r\n\r\n")].isascii():
        raise HttpError(400, "bad_request", "A websocket's request must be ASCII.")
    if b"content-length" in headers or b"transfer-encoding" in headers:
        raise HttpError(400, "bad_request", "A websocket's request has no body.")
    if head.method != b"GET" or headers.get(b"sec-websocket-version") != b"13":
        raise HttpError(
            426,
            "upgrade_required",
            "The websocket protocol is version 13, asked for with GET.",
            headers=(("sec-websocket-version", "13"), ("upgrade", "websocket")),
        )
    return True


def refused_body(head: h11.Request, route: Route) -> None:
    """Refuse a body before it is read. Raises HttpError 413 or 415."""
    for name, value in head.headers:
        if name == b"content-encoding" and value.lower() != b"identity":
            # Taking none costs clients little and spares us every decompression bomb.
            raise HttpError(
                415,
                "unsupported_encoding",
                "Bodies are taken as they are, not compressed.",
                "Content-Encoding",
                headers=(("accept-encoding", "identity"),),
            )
        if route.streamed:
            continue
        if name == b"content-length" and int(value) > route.body_bytes_max:
            text = f"The body is longer than {route.body_bytes_max} octets."
            raise HttpError(413, "too_large", text)


def rendered(render: Callable[[HttpError], Response], error: HttpError) -> Response:
    """Return the answer to an error in a route's form, marked with whose doing it is."""
    response = render(error)
    response.is_crowded = isinstance(error, Crowded)
    return response


def encoded(
    connection: h11.Connection,
    response: Response,
    services: Services,
    *,
    head_only: bool,
    close: bool,
) -> bytes:
    """Return the octets of a response, told to h11 so that it knows where we are."""
    status = response.status
    services.responses_by_class[status // 100] = (
        services.responses_by_class.get(status // 100, 0) + 1
    )
    services.failures += status >= 500 and status != 501 and not response.is_crowded
    headers = [(b"date", _date(services))]
    if status not in (204, 304):
        headers.append((b"content-type", response.content_type.encode("latin-1")))
        headers.append((b"content-length", b"%d" % len(response.body)))
        headers.append((b"x-content-type-options", b"nosniff"))
    cache_said = False
    for name, value in response.headers:
        cache_said = cache_said or name.lower() == "cache-control"
        headers.append((name.encode("latin-1"), value.encode("latin-1")))
    if not cache_said:
        headers.append((b"cache-control", b"no-store"))
    if status >= 400 and services.settings.contact:
        headers.append((b"x-support-contact", services.settings.contact.encode()))
    if close:
        headers.append((b"connection", b"close"))
    start = h11.Response(status_code=status, headers=headers, reason=REASONS.get(status, b""))
    parts = [connection.send(start)]
    if response.body and not head_only and status not in (204, 304):
        parts.append(connection.send(h11.Data(data=response.body)))
    parts.append(connection.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_own_origin(origin: str, request: Request, public_url: str) -> bool:
    """Whether a page of this Origin is one of ours: by `public_url`, or by the request's Host."""
    # "null" has no host and is nobody's; scheme and port count in public_url, while a Host
    # names a port only if it is not the scheme's own, as an Origin does.
    try:
        ours, theirs = urlsplit(public_url), urlsplit(origin)
    except ValueError:
        return False
    if not theirs.netloc:
        return False
    host = request.header(b"host") or ""
    is_public = (theirs.scheme, theirs.netloc.lower()) == (ours.scheme, ours.netloc.lower())
    return is_public or theirs.netloc.lower() == host.lower()


def _refuse_foreign_deed(services: Services, request: Request) -> None:
    """Raise HttpError 403 for a change that a page of another origin asks for.

    Our own pages write the Authorization header themselves. But whoever once typed a key into a
    browser's own box for a 401 has it sent along with every request from then on, also with the
    forms of strangers' pages; those carry their Origin.
    """
    origin = request.header(b"origin")
    if request.method in SAFE_METHODS or origin is None:
        return
    if not is_own_origin(origin, request, services.settings.public_url):
        raise HttpError(403, "foreign_origin", "Pages of other origins may change nothing here.")


def _unauthorized(route: Route) -> HttpError:
    return HttpError(
        401,
        "unauthorized",
        "API key authentication/authorization failure: no such API key and secret key.",
        headers=_challenge(route),
    )


def _challenge(route: Route) -> tuple[tuple[str, str], ...]:
    return (("www-authenticate", f'Basic realm="{route.realm}", charset="UTF-8"'),)


def _basic_credentials(value: str) -> tuple[str, str] | None:
    scheme, _, encoded_pair = value.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, secret = b64decode(encoded_pair.strip(), validate=True).decode().partition(":")
    except ValueError:  # Not ASCII, not Base64, or not UTF-8 within.
        return None
    return (user, secret) if colon else None


def _origin_form(target: str) -> str:
    """The path and query of an absolute-form target (RFC 9112 3.2.2)."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise HttpError(400, "bad_request", "The request's target is neither a path nor a URL.")
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"


def _forwarded_for(headers: list[tuple[bytes, bytes]]) -> str:
    # The last entry is our own proxy's; what stands before it the client may have written.
    for name, value in reversed(headers):
        if name == b"x-forwarded-for":
            last = value.rpartition(b",")[2].strip().decode("latin-1")
            try:
                return str(ipaddress.ip_address(last))
            except ValueError:
                return ""
    return ""


def _date(services: Services) -> bytes:
    now_unix_s = services.now_unix_ms() // 1000
    if services.date[0] != now_unix_s:
        services.date = (now_unix_s, formatdate(now_unix_s, usegmt=True).encode())
    return services.date[1]
