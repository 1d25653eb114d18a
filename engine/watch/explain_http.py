"""The doors at which explanations are asked for."""

import msgspec

from engine.http_server import Access, Request, Response, Route
from engine.spool.interface import Spool
from engine.watch.explain import Explainer
from engine.watch.explain_views import CampaignExplanation
from engine.watch.long_looks import LongLooks
from engine.watch.messages import asked_account_id, visible_envelope
from engine.watch.queries import Query, domain_name, language_of, not_found, refuse


def routes(explainer: Explainer, spool: Spool) -> list[Route]:
    """Explanations of a mail, an address, a destination and a campaign."""

    async def explain_message(request: Request) -> Response:
        envelope = await visible_envelope(spool, request.params["id"], request.identity)
        if envelope is None:
            raise not_found(f"message {request.params['id'][:40]}")
        return _answer(await explainer.message(envelope, language_of(request)))

    async def explain_address(request: Request) -> Response:
        address = Query(request, ("address",)).one("address")
        if not address:
            refuse("address", "Whose mail is to be explained?")
        return _answer(await explainer.address(address, request.identity, language_of(request)))

    async def explain_destination(request: Request) -> Response:
        name = domain_name(request.params["domain"])
        found = await explainer.destination(name, request.identity, language_of(request))
        if found is None:
            raise not_found(f"mail to {name[:80]}")
        return _answer(found)

    campaigns: LongLooks[CampaignExplanation] = LongLooks()

    async def explain_campaign(request: Request) -> Response:
        name, query = request.params["id"], Query(request, ("account",))
        identity, language = request.identity, language_of(request)
        account_id = await asked_account_id(spool, query, identity)
        found, age_s = await campaigns.answer(
            (name, language, account_id, identity.operator),
            lambda: explainer.campaign(name, identity, language, account_id),
        )
        if found is None:
            raise not_found(f"campaign {name[:80]!r}")
        return _answer(found, age_s)

    return [
        Route("GET", "/v1/messages/{id}/explain", explain_message, Access.ACCOUNT),
        Route("GET", "/v1/destinations/{domain}/explain", explain_destination, Access.ACCOUNT),
        Route("GET", "/v1/campaigns/{id}/explain", explain_campaign, Access.ACCOUNT),
        Route("GET", "/v1/explain", explain_address, Access.ACCOUNT),
    ]


def _answer(value: msgspec.Struct, age_s: int = 0) -> Response:
    headers = (("vary", "accept-language"), *((("age", str(age_s)),) if age_s else ()))
    return Response.json(value, headers=headers)
