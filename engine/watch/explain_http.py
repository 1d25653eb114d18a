"""The doors at which explanations are asked for."""

from engine.http_server import Access, Request, Response, Route
from engine.spool.interface import Spool
from engine.watch.campaign_answers import campaign_answers, in_language
from engine.watch.explain import Explainer
from engine.watch.messages import visible_envelope
from engine.watch.queries import Query, domain_name, language_of, not_found, refuse


def routes(explainer: Explainer, spool: Spool) -> list[Route]:
    """Explanations of a mail, an address, a destination and a campaign."""

    async def explain_message(request: Request) -> Response:
        envelope = await visible_envelope(spool, request.params["id"], request.identity)
        if envelope is None:
            raise not_found(f"message {request.params['id'][:40]}")
        return in_language(await explainer.message(envelope, language_of(request)))

    async def explain_address(request: Request) -> Response:
        address = Query(request, ("address",)).one("address")
        if not address:
            refuse("address", "Whose mail is to be explained?")
        return in_language(await explainer.address(address, request.identity, language_of(request)))

    async def explain_destination(request: Request) -> Response:
        name = domain_name(request.params["domain"])
        found = await explainer.destination(name, request.identity, language_of(request))
        if found is None:
            raise not_found(f"mail to {name[:80]}")
        return in_language(found)

    explain_campaign = campaign_answers(spool, explainer.campaign)
    return [
        Route("GET", "/v1/messages/{id}/explain", explain_message, Access.ACCOUNT),
        Route("GET", "/v1/destinations/{domain}/explain", explain_destination, Access.ACCOUNT),
        Route("GET", "/v1/campaigns/{id}/explain", explain_campaign, Access.ACCOUNT),
        Route("GET", "/v1/explain", explain_address, Access.ACCOUNT),
    ]
