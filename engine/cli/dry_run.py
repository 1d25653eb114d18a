"""`eilpost send --dry-run`: the whole list through the engine's own intake, into nothing.

Each part goes to a spool in memory that is forgotten with it. So the judgement is that of sending,
no engine has to run, and a list of any length takes the memory of one part. What only the engine
knows is not said: who is in the campaign already, who is suppressed, what the quota has room for.
"""

import email
import email.policy
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec
import trio

from engine.cli.control import decoded
from engine.cli.list_findings import FirstLines
from engine.cli.sending import PART_LINES_MAX, HandedIn, Teller, count_in, refused_in
from engine.compose import Seams, intake_routes, spool_settings
from engine.config import Config
from engine.delivery.filling import Templates, Unsendable
from engine.http_server import HttpError, Identity, Request, error_response
from engine.http_server.routing import Router
from engine.spool import open_spool
from engine.spool.interface import Spool
from engine.spool.listing_calls import EnvelopeFilter
from protocols.address_lists import RECORD_LINES_MAX
from protocols.list_parts import ListPart

JSON_TYPE: Final = "application/json"
# Fields that say nothing of what was written; the rest of a mail is its example.
OURS: Final = frozenset(
    ("received", "date", "message-id", "mime-version", "content-type", "content-transfer-encoding")
)
# Any account will do: it has no quota and no suppressed addresses.
ACCOUNT: Final = "dry run"


@dataclass(slots=True)
class Tried:
    """What sending would come to.

    `example` is the first mail that would go out, filled in: its fields, and its texts as "plain"
    and "html". Empty if there is none.
    """

    sums: HandedIn
    example: dict[str, str] = field(default_factory=dict)


def try_out(
    config: Config,
    body: Mapping[str, Any],
    parts: Iterable[ListPart],
    content_type: str,
    tell: Teller,
) -> Tried:
    """Try a campaign and its list. Raises EngineRefused for a template or a list that is none."""
    tried = Tried(HandedIn())
    trio.run(_try, config, body, None, content_type)
    firsts = FirstLines()
    for part in parts:
        answer, example = trio.run(_try, config, body, part.body, content_type)
        doubles = firsts.doubles_in(part, content_type, refused_in(answer))
        # Intake sees who stands twice within a part only.
        answer["accepted"] += answer["repeated"] - len(doubles)
        answer["repeated"] = len(doubles)
        count_in(answer, part, doubles, tried.sums, tell)
        tried.example = tried.example or example
    return tried


async def _try(
    config: Config, body: Mapping[str, Any], recipients: bytes | None, content_type: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what intake says of some recipients, and the first mail that would go out."""
    async with _spool_of_nobody(config) as spool:
        router = Router(intake_routes(spool, config, spool, Seams()))
        await _post(router, "/v1/accounts", JSON_TYPE, msgspec.json.encode({"account": ACCOUNT}))
        whose = f"?account={quote(ACCOUNT)}"
        await _post(router, f"/v1/campaigns{whose}", JSON_TYPE, msgspec.json.encode(body))
        if recipients is None:
            return {}, {}
        target = f"/v1/campaigns/{quote(body['campaign'], safe='')}/recipients{whose}"
        return await _post(router, target, content_type, recipients), await _first_mail(spool)


@asynccontextmanager
async def _spool_of_nobody(config: Config) -> AsyncIterator[Spool]:
    seams = Seams()
    with tempfile.TemporaryDirectory(prefix="eilpost-dry-run-") as directory:
        async with open_spool(
            "memory:",
            Path(directory),
            settings=spool_settings(config),
            clock=seams.clock,
            run_blocking=seams.run_blocking,
            random=seams.rand,
        ) as spool:
            yield spool


async def _post(router: Router, target: str, content_type: str, body: bytes) -> Any:
    """Ask a route as the port would. Raises EngineRefused."""

    async def parts() -> AsyncIterator[bytes]:
        yield body

    path, _, raw_query = target.partition("?")
    headers = ((b"content-type", content_type.encode()),)
    try:
        route, params, path = router.find("POST", path)
        request = Request(
            *("POST", path, raw_query, headers, params),
            body=b"" if route.streamed else body,
            identity=Identity(operator=True),
            parts=parts() if route.streamed else None,
        )
        response = await route.handler(request)
    except HttpError as error:
        response = error_response(error)
    return decoded(response.status, response.body)


async def _first_mail(spool: Spool) -> dict[str, str]:
    """Return what the first recipient would read, empty if there is none."""
    page = await spool.find(EnvelopeFilter(), None, PART_LINES_MAX + RECORD_LINES_MAX)
    if not page.envelopes:
        return {}
    # The newest come first.
    fixed = page.envelopes[-1].fixed
    contents = await spool.content([fixed.content_id])
    mail = Templates().sendable(fixed, contents[fixed.content_id])
    assert not isinstance(mail, Unsendable), "intake has tried to fill it in"
    read = email.message_from_bytes(mail.octets, policy=email.policy.default)
    shown = {name: str(text) for name, text in read.items() if name.lower() not in OURS}
    for subtype in ("plain", "html"):
        body = read.get_body((subtype,))
        if body is not None:
            shown[subtype] = body.get_content().replace("\r\n", "\n")
    return shown
