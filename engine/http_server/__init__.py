"""The HTTP port: the accept loop, limits, authentication and routing over one h11 machine.

It knows no route itself: rooms hand in lists of `Route`, compose collects them
and opens one `HttpServer`. It refuses to read what would be dangerous to read
(two framings, compressed bodies, more octets than the route allows, clients
slower than a minimum rate) and to say anything about its own insides: a handler
that raises is a 500 without a word of the traceback. It serves the same routes
on a unix socket to whoever may open that file; that is who an operator is.
"""

from engine.http_server.exchange import is_own_origin
from engine.http_server.operators import OperatorSession, OperatorSessions
from engine.http_server.server import HttpServer, HttpSetupError
from engine.http_server.streams import ReplayStream
from engine.http_server.unix_socket import unix_socket_address
from engine.http_server.values import (
    Access,
    Authenticate,
    BodyFault,
    Crowded,
    HttpError,
    HttpSettings,
    HttpStatistics,
    Identity,
    Request,
    Response,
    Route,
    WebSocketUpgrade,
    error_response,
)

__all__ = [
    "Access",
    "Authenticate",
    "BodyFault",
    "Crowded",
    "HttpError",
    "HttpServer",
    "HttpSettings",
    "HttpSetupError",
    "HttpStatistics",
    "Identity",
    "OperatorSession",
    "OperatorSessions",
    "ReplayStream",
    "Request",
    "Response",
    "Route",
    "WebSocketUpgrade",
    "error_response",
    "is_own_origin",
    "unix_socket_address",
]
