"""What is asked of one campaign and takes long to find: its explanation, its forecast."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from engine.http_server import Identity, Request, Response
from engine.spool.interface import Spool
from engine.watch.long_looks import LongLooks
from engine.watch.messages import asked_account_id
from engine.watch.queries import Query, language_of, not_found
from protocols.languages import Language

T = TypeVar("T", bound=msgspec.Struct)


def campaign_answers(
    spool: Spool, find: Callable[[str, Identity, Language, int | None], Awaitable[T | None]]
) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler of a route with the campaign's name as `id`.

    `find` gets that name, who asks, in which language, and whose campaign it is if that was said.
    """
    looks: LongLooks[T] = LongLooks()

    async def answer(request: Request) -> Response:
        name, query = request.params["id"], Query(request, ("account",))
        identity, language = request.identity, language_of(request)
        account_id = await asked_account_id(spool, query, identity)
        found, age_s = await looks.answer(
            (name, language, account_id, identity.operator),
            lambda: find(name, identity, language, account_id),
        )
        if found is None:
            raise not_found(f"campaign {name[:80]!r}")
        return in_language(found, age_s)

    return answer


def in_language(value: msgspec.Struct, age_s: int = 0) -> Response:
    """Answer with texts in the language that was asked for; `age_s` is how old they are."""
    headers = (("vary", "accept-language"), *((("age", str(age_s)),) if age_s else ()))
    return Response.json(value, headers=headers)
