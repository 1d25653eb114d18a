"""The pages: files that lie beside this module, served from memory.

They ask no third-party host for anything and carry no data themselves: what they
show comes from the API with the visitor's own credentials. The files are read
once, at start, so that what is served never changes under a running page. The
chart is drawn by uPlot, whose two files another distribution brings; without
them the page says so and shows the same figures as a table.
"""

import logging
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

from engine.http_server import Access, Request, Response, Route

# Nothing but our own files, no frame around us, no form to elsewhere: an injected
# script would have nowhere to come from and nowhere to send to.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Final = (
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
)
CONTENT_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# uPlot 1.6.31 as its author released it. A file that is not this one is not served: it would run
# with the visitor's credentials.
CHART_PACKAGE: Final = "youplot"
CHART_FILES: Final = {
    "uplot.js": (
        "vendor/uplot.iife.min.js",
        "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
    ),
    "uplot.css": (
        "vendor/uplot.min.css",
        "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    ),
}
CONTACT_PLACE: Final = b"<!--contact-->"

logger = logging.getLogger("eilpost.pages")


def routes(contact: str) -> Iterator[Route]:
    """`/` is the dashboard; its parts are below `/assets/`. `contact` is whom visitors may ask."""
    for file in files(__package__).iterdir():
        stem, _, ending = file.name.rpartition(".")
        if ending in CONTENT_TYPES:
            pattern = "/" if stem == "index" else f"/assets/{file.name}"
            octets = file.read_bytes()
            if ending == "html":
                octets = octets.replace(CONTACT_PLACE, contact_link(contact).encode())
            yield _file_route(pattern, octets, CONTENT_TYPES[ending])
    for name, octets in chart_files().items():
        yield _file_route(f"/assets/{name}", octets, CONTENT_TYPES[name.rpartition(".")[2]])


def chart_files() -> dict[str, bytes]:
    """Return what draws the chart, or nothing unless all of it is there and is what we know."""
    # The package is found and not imported: it is a program of its own, and one file of it is ours.
    spec = find_spec(CHART_PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    found = {}
    for name, (path, digest) in CHART_FILES.items():
        for place in places:
            file = Path(place, path)
            if file.is_file() and sha256(octets := file.read_bytes()).hexdigest() == digest:
                found[name] = octets
    if len(found) < len(CHART_FILES):
        logger.warning("the dashboard has no chart: package %s is not as locked", CHART_PACKAGE)
        return {}
    return found


def contact_link(contact: str) -> str:
    """Return the configured contact as HTML: a link if it is an address or a URL, else its text."""
    shown = escape(contact)
    if contact.startswith(("https://", "http://")):
        return f'<a rel="noreferrer" href="{shown}">{shown}</a>'
    if "@" in contact and not any(each.isspace() for each in contact):
        return f'<a href="mailto:{escape(quote(contact, safe="@"))}">{shown}</a>'
    return shown


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
