"""The pages: files that lie beside this module, served from memory.

They ask no third-party host for anything and carry no data themselves: what they
show comes from the API with the visitor's own credentials. The files are read
once, at start, so that what is served never changes under a running page.
"""

from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from typing import Final

from engine.http_server import Access, Request, Response, Route

# Nothing but our own files, no frame around us, no form to elsewhere: an injected
# script would have nowhere to come from and nowhere to send to.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Final = (
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
)
CONTENT_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}


def routes() -> Iterator[Route]:
    """`/` is the dashboard; its parts are below `/assets/`."""
    for file in files(__package__).iterdir():
        stem, _, ending = file.name.rpartition(".")
        if ending in CONTENT_TYPES:
            pattern = "/" if stem == "index" else f"/assets/{file.name}"
            yield _file_route(pattern, file.read_bytes(), CONTENT_TYPES[ending])


def _file_route(pattern: str, octets: bytes, content_type: str) -> Route:
    # The tag lets a browser ask "still the same?" and hear 304; without a lifetime a
    # page of the last version never lives on beside an engine of this one.
    tag = f'"{sha256(octets).hexdigest()[:20]}"'
    headers = (*SECURITY_HEADERS, ("etag", tag), ("cache-control", "no-cache"))

    async def serve_file(request: Request) -> Response:
        if request.header(b"if-none-match") == tag:
            return Response(304, b"", content_type, headers)
        return Response(200, octets, content_type, headers)

    return Route("GET", pattern, serve_file, access=Access.OPEN)
