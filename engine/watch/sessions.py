"""Operators' one-time links: how one is made, and how it becomes credentials for a tab."""

import msgspec

from engine.http_server import Access, HttpError, OperatorSessions, Request, Response, Route
from protocols.timestamps import time_text


class TokenBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: str


class SessionView(msgspec.Struct, frozen=True):
    """Used like an account's key and secret, until it expires; a restart does not end it."""

    api_key: str
    secret_key: str
    expires_at: str


class LinkView(msgspec.Struct, frozen=True):
    """A link to the dashboard that signs in one operator, once, while the engine runs."""

    url: str


def routes(operators: OperatorSessions, public_url: str) -> list[Route]:
    async def new_link(request: Request) -> Response:
        if request.header(b"authorization") is not None:
            # Whoever was given a working day would have as many as they like.
            raise HttpError(
                403, "control_socket_only", "Links are made at the machine itself: `eilpost link`."
            )
        return Response.json(LinkView(operator_url(public_url, operators)), 201)

    async def new_session(request: Request) -> Response:
        try:
            token = msgspec.json.decode(request.body, type=TokenBody).token
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HttpError(400, "bad_json", f"{error}", "body") from error
        session = operators.exchange(token)
        if session is None:
            raise HttpError(
                403, "bad_token", "This link was used before, is too old, or was never given out."
            )
        view = SessionView(session.api_key, session.secret_key, time_text(session.expires_unix_ms))
        return Response.json(view)

    return [
        Route("POST", "/v1/operator/links", new_link, Access.OPERATOR),
        Route("POST", "/v1/operator/sessions", new_session, Access.OPEN, body_bytes_max=4_096),
    ]


def operator_url(public_url: str, operators: OperatorSessions) -> str:
    """Return a link to the dashboard that signs in one operator, once."""
    # In the fragment: it is in no server's log and in no Referer.
    return f"{public_url}/#token={operators.new_token()}"
