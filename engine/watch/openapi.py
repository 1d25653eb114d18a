"""`/v1/openapi.json`: every route that the port has, in OpenAPI 3.1.

Paths and who may use them come from the routes themselves, schemas from the
types that handlers encode; only the sentences and parameters stand here.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec

from engine.delivery.shaping_http import AuditPage, PinBody, ReloadView, SiteBody, StepView
from engine.http_server import Access, Request, Response, Route
from engine.intake.accounts_http import (
    AccountBody,
    AccountKeys,
    AccountPage,
    AccountView,
    PlanBody,
    PlanView,
    RotateBody,
    RotatedKeys,
)
from engine.intake.campaign_views import CampaignView
from engine.intake.campaigns import CampaignBody, ListAnswer
from engine.intake.check_http import CheckAnswer, CheckBody
from engine.intake.quota_http import QuotaView
from engine.intake.send_request import MessageIn
from engine.intake.suppressions_http import SuppressBody, SuppressionPage, SuppressionView
from engine.watch.campaigns import CampaignPage, PauseBody
from engine.watch.delivery_times import DeliveryTimesPage
from engine.watch.doctor import SpoolCondition
from engine.watch.events import EventBatch
from engine.watch.explain_views import (
    AddressExplanation,
    CampaignExplanation,
    DestinationExplanation,
    Explanation,
)
from engine.watch.forecast import Forecast
from engine.watch.hold_views import HoldView
from engine.watch.holds import BulkBody, BulkView, HoldBody, HoldPage, RetryView
from engine.watch.messages import MessagePage, MessageStory
from engine.watch.openapi_operation import Operation, V3Error
from engine.watch.series import SeriesPage
from engine.watch.sessions import LinkView, SessionView, TokenBody
from engine.watch.statistics import DestinationPage, StatisticsPage
from engine.watch.status.described import STATUS_OPERATIONS
from protocols.records import Status

REFERENCES: Final = "#/components/schemas/{name}"
VERSION: Final = "1"


class SendBody(msgspec.Struct, rename="pascal"):
    """What `POST /v3.1/send` takes. Names match in any case."""

    messages: Annotated[list[MessageIn], msgspec.Meta(min_length=1, max_length=50)]
    globals_: MessageIn | None = msgspec.field(default=None, name="Globals")
    sandbox_mode: bool | None = None
    advance_error_handling: bool | None = None


class Health(msgspec.Struct):
    status: str


class Ready(msgspec.Struct):
    """`missing` says in words what stands in the way."""

    ready: bool
    missing: list[str]


class Ticket(msgspec.Struct):
    """Opens the stream once within a minute: `/v1/stream?ticket=...`."""

    ticket: str
    expires_at: str


TEXT: Final = {"type": "string"}
TIME: Final = {"type": "string", "format": "date-time"}
NUMBER: Final = {"type": "integer", "minimum": 0, "maximum": 2**53}
AFTER: Final = {"type": "string", "minLength": 1}
PARAMETERS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "status": (
        "Any of these; may be repeated.",
        {"type": "array", "items": {"enum": [str(each) for each in Status]}},
    ),
    "destination": ("The recipient's domain, as A-labels or with umlauts.", TEXT),
    "site": ("A site by its name, or a domain at one.", TEXT),
    "address": ("The recipient's address as it was given.", TEXT),
    "campaign": ("The campaign's name.", TEXT),
    "custom_id": ("The sender's own id.", TEXT),
    "subject": ("A text in the subject, in any case.", TEXT),
    "look": (
        "How much is looked at: some (default), or all.",
        {"type": "string", "enum": ["some", "all"]},
    ),
    "account": ("An account's name; others' than one's own for operators only.", TEXT),
    "message_id": ("Message ids; may be repeated.", {"type": "array", "items": NUMBER}),
    "from": ("Accepted at or after this time.", TIME),
    "to": ("Accepted before this time.", TIME),
    "after": ("The `after` of the page before; a cursor, `start` or `now` for events.", AFTER),
    "limit": ("How many at most.", {"type": "integer", "minimum": 1, "maximum": 1000}),
    "last": ("So many of the newest.", {"type": "integer", "minimum": 1, "maximum": 1000}),
    "wait_s": ("Wait so long for news.", {"type": "integer", "minimum": 0, "maximum": 60}),
    "group": (
        "What a row is.",
        {"enum": ["total", "destination", "account", "campaign", "hour", "day"]},
    ),
    "busiest": (
        "So many destinations, those with the most deliveries; the busiest first.",
        {"type": "integer", "minimum": 1, "maximum": 1000},
    ),
    "step": (
        "Seconds in a step, whole minutes; whole hours for what is older than 48 hours.",
        {"type": "integer", "minimum": 60, "maximum": 604_800, "default": 60},
    ),
    "format": ("Instead of `Accept`.", {"enum": ["json", "csv"]}),
    "reason": ("Why, for the engine's log.", TEXT),
    "lang": ("The language of texts, instead of `Accept-Language`.", {"enum": ["de", "en"]}),
    "token": ("From a link in a mail.", TEXT),
    "ticket": ("From /v1/stream/tickets, in place of credentials.", TEXT),
}
EVENT_FILTERS: Final = ("account", "campaign", "destination", "message_id", "status", "reason")
OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/v3.1/send"): Operation(
        "Hand in up to 50 messages. 200 means that all are kept, 400 that some are not.",
        body=SendBody,
        error=None,
    ),
    ("POST", "/v3/send"): Operation(
        "Not served: always 404, with a message that names POST /v3.1/send.", error=V3Error
    ),
    ("GET", "/v3/REST/message"): Operation(
        "List messages as Mailjet's clients expect them; MessageSize is that of the content as it "
        "is stored, for mail of a campaign its template's.",
        error=V3Error,
    ),
    ("GET", "/v3/REST/message/{id}"): Operation(
        "One message as Mailjet's clients expect it.", error=V3Error
    ),
    ("GET", "/v3/REST/messagehistory/{id}"): Operation(
        "What happened to a message, oldest first; of one that is not there an empty list, as "
        "those clients expect it.",
        error=V3Error,
    ),
    ("GET", "/v1/messages"): Operation(
        "List mails, newest first. A page may be empty and go on: until `after` is null.",
        (
            *("status", "destination", "address", "campaign", "custom_id", "subject", "account"),
            *("from", "to", "after", "limit"),
        ),
        answer=MessagePage,
    ),
    ("GET", "/v1/messages/{id}"): Operation(
        "One mail with everything that happened to it.", answer=MessageStory
    ),
    ("GET", "/v1/messages/{id}/explain"): Operation(
        "The one thing that holds a mail back, since when, and what its sender can do.",
        answer=Explanation,
    ),
    ("GET", "/v1/destinations/{domain}/explain"): Operation(
        "What holds back the mail to a domain.", answer=DestinationExplanation
    ),
    ("GET", "/v1/campaigns/{id}/explain"): Operation(
        "Where a campaign's mail waits, and what holds it back.",
        ("account",),
        answer=CampaignExplanation,
    ),
    ("GET", "/v1/campaigns/{id}/forecast"): Operation(
        "When a campaign will be through: at the earliest, as expected, at the latest.",
        ("account",),
        answer=Forecast,
    ),
    ("GET", "/v1/explain"): Operation(
        "What holds back the latest waiting mails to an address.",
        ("address",),
        answer=AddressExplanation,
    ),
    ("GET", "/v1/destinations"): Operation(
        "Where mail waits, how much, and why.",
        ("destination", "after", "limit"),
        answer=DestinationPage,
    ),
    ("GET", "/v1/statistics"): Operation(
        "Counts of mails by status; also as text/csv.",
        ("group", "from", "to", "account", "after", "limit", "format"),
        answer=StatisticsPage,
    ),
    ("GET", "/v1/statistics/delivery-times"): Operation(
        "Percentiles of the time from acceptance to delivery, by `group` destination, account, day "
        "or total; also as text/csv.",
        ("group", "from", "to", "account", "after", "limit", "busiest", "format"),
        answer=DeliveryTimesPage,
    ),
    ("GET", "/v1/statistics/series"): Operation(
        "Events by the time at which they happened, in steps, for a chart; also as text/csv.",
        ("from", "to", "step", "account", "format"),
        answer=SeriesPage,
    ),
    ("GET", "/v1/events"): Operation(
        "The event log from a cursor on.",
        ("after", "limit", "last", "wait_s", *EVENT_FILTERS),
        answer=EventBatch,
    ),
    ("GET", "/v1/stream"): Operation(
        "The event stream, a websocket with subprotocol eilpost.v1+json or eilpost.v1+msgpack.",
        ("ticket", "lang"),
    ),
    ("POST", "/v1/stream/tickets"): Operation("A ticket for the stream.", answer=Ticket),
    ("POST", "/v1/operator/links"): Operation(
        "A link that signs in one operator, once; over the control socket only.", answer=LinkView
    ),
    ("POST", "/v1/operator/sessions"): Operation(
        "Credentials for the token of an operator's link.", body=TokenBody, answer=SessionView
    ),
    ("GET", "/v1/doctor/spool"): Operation(
        "Whether all holds between the spool's tables: by sums and samples, or look=all of it.",
        ("look",),
        answer=SpoolCondition,
    ),
    ("POST", "/v1/check"): Operation(
        "Which of up to 100,000 addresses would be refused, and why; also as text/csv, text/plain.",
        body=CheckBody,
        answer=CheckAnswer,
    ),
    ("GET", "/v1/quota"): Operation(
        "How much of its plan an account has used, and when what is paused goes.",
        ("account",),
        answer=QuotaView,
    ),
    ("POST", "/v1/accounts"): Operation(
        "Make an account; its secret is shown this once.",
        body=AccountBody,
        answer=AccountKeys,
        status="201",
    ),
    ("GET", "/v1/accounts"): Operation("List accounts.", answer=AccountPage),
    ("GET", "/v1/accounts/{name}"): Operation("One account.", answer=AccountView),
    ("POST", "/v1/accounts/{name}/plan"): Operation(
        "Give an account another plan; paused mail goes as early as it allows.",
        body=PlanBody,
        answer=PlanView,
    ),
    ("POST", "/v1/accounts/{name}/disable"): Operation(
        "Refuse an account's credentials; its mail goes on.", answer=AccountView
    ),
    ("POST", "/v1/accounts/{name}/enable"): Operation(
        "Let an account in again.", answer=AccountView
    ),
    ("POST", "/v1/accounts/{name}/keys"): Operation(
        "Make new keys for an account; the old ones end at once or after a while.",
        body=RotateBody,
        answer=RotatedKeys,
        status="201",
    ),
    ("GET", "/v1/suppressions"): Operation(
        "Addresses that an account's mail does not go to.",
        ("address", "after", "limit", "account"),
        answer=SuppressionPage,
    ),
    ("POST", "/v1/suppressions"): Operation(
        "Suppress an address until a time, or until it is lifted.",
        body=SuppressBody,
        answer=SuppressionView,
        status="201",
    ),
    ("DELETE", "/v1/suppressions/{address}"): Operation(
        "Let mail go to an address again.", ("account",), status="204"
    ),
    ("POST", "/v1/shaping/reload"): Operation(
        "Take over the shaping rules as they stand in the files; broken ones change nothing.",
        answer=ReloadView,
    ),
    ("GET", "/v1/shaping/audit"): Operation(
        "What was learned from receivers' replies, step by step, the last one first.",
        ("site", "after", "limit"),
        answer=AuditPage,
    ),
    ("POST", "/v1/shaping/undo"): Operation(
        "Take back the engine's last step at a site.", body=SiteBody, answer=StepView
    ),
    ("POST", "/v1/shaping/pin"): Operation(
        "Hold a site as it is, or at other limits, until it is unpinned.",
        body=PinBody,
        answer=StepView,
    ),
    ("POST", "/v1/shaping/unpin"): Operation(
        "End a pin: what was learned before it holds again, and rises from there.",
        body=SiteBody,
        answer=StepView,
    ),
    ("POST", "/v1/campaigns"): Operation(
        "Make a campaign; as application/x-ndjson its recipients follow, one a line, and the "
        "answer is as for those. 200 if it is there already with the same content.",
        ("account",),
        lists=("application/x-ndjson",),
        body=CampaignBody,
        answer=CampaignView,
        status="201",
    ),
    ("POST", "/v1/campaigns/{campaign}/recipients"): Operation(
        "Take a list of any length into a campaign: text/csv, or application/x-ndjson with "
        "{email, name, variables} a line. Who is in it already is passed over.",
        ("account",),
        lists=("text/csv", "application/x-ndjson"),
        answer=ListAnswer,
    ),
    ("GET", "/v1/campaigns"): Operation(
        "Campaigns, newest first; then names of single mails, newest first. With `campaign` those "
        "of just that name.",
        ("account", "campaign", "after", "limit"),
        answer=CampaignPage,
    ),
    ("GET", "/v1/campaigns/{campaign}"): Operation(
        "How far a campaign is.", ("account",), answer=CampaignView
    ),
    ("POST", "/v1/campaigns/{campaign}/pause"): Operation(
        "Hold all mail of a campaign.", ("account",), body=PauseBody, answer=CampaignView
    ),
    ("POST", "/v1/campaigns/{campaign}/resume"): Operation(
        "Let its mail go on.", ("account",), answer=CampaignView
    ),
    ("POST", "/v1/campaigns/{campaign}/close"): Operation(
        "Let no more recipients in; its mail goes on.", ("account",), answer=CampaignView
    ),
    ("POST", "/v1/campaigns/{campaign}/cancel"): Operation(
        "End all of its mail that waits.", ("account",), answer=CampaignView
    ),
    ("POST", "/v1/holds"): Operation(
        "Hold waiting mail; an account its own only.",
        body=HoldBody,
        answer=HoldView,
        status="201",
    ),
    ("GET", "/v1/holds"): Operation("The holds that one may lift.", answer=HoldPage),
    ("DELETE", "/v1/holds/{id}"): Operation(
        "Lift a hold: what it held moves at once.", ("reason",), answer=HoldView
    ),
    ("POST", "/v1/retry"): Operation(
        "Make waiting mail due now, and have destinations tried that could not be reached; "
        "ask again from `after` until it is null.",
        body=BulkBody,
        answer=RetryView,
    ),
    ("POST", "/v1/cancel"): Operation(
        "Cancel waiting mail; ask again from `after` until it is null.",
        body=BulkBody,
        answer=BulkView,
    ),
    **STATUS_OPERATIONS,
    ("GET", "/v1/openapi.json"): Operation("This description."),
    ("GET", "/healthz"): Operation("200 while the process lives.", answer=Health),
    ("GET", "/readyz"): Operation(
        "200 once the engine accepts and delivers, else 503.", answer=Ready
    ),
    ("GET", "/metrics"): Operation("Figures in Prometheus' text format.", answer_type="text/plain"),
}


def routes(all_routes: Callable[[], Iterable[Route]]) -> list[Route]:
    """The description, made when it is first asked for: until then not all routes are known."""
    document: bytes = b""

    async def openapi(request: Request) -> Response:
        nonlocal document
        document = document or msgspec.json.encode(description(all_routes()))
        return Response(200, document)

    return [Route("GET", "/v1/openapi.json", openapi, Access.OPEN)]


def description(all_routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document of these routes; pages and their parts are none of an API."""
    types = [each for operation in OPERATIONS.values() for each in _types(operation)]
    references, schemas = msgspec.json.schema_components(types, ref_template=REFERENCES)
    reference_of = dict(zip(types, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in all_routes:
        operation = OPERATIONS.get((route.method, route.pattern))
        if operation is None and not route.pattern.startswith(("/v1/", "/v3")):
            continue
        described = _operation(route, operation or Operation(""), reference_of)
        paths.setdefault(route.pattern, {})[route.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "Eilpost", "version": VERSION},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"keys": {"type": "http", "scheme": "basic"}},
        },
        "security": [{"keys": []}],
    }


def _types(operation: Operation) -> list[type]:
    named = (operation.body, operation.answer, operation.error)
    return [each for each in named if each is not None]


def _operation(
    route: Route, operation: Operation, reference_of: Mapping[type, Any]
) -> dict[str, Any]:
    in_path = [part[1:-1] for part in route.pattern.split("/") if part.startswith("{")]
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": TEXT} for name in in_path
    ]
    for name in operation.parameters:
        text, schema = PARAMETERS[name]
        parameters.append({"name": name, "in": "query", "description": text, "schema": schema})
    answer = _answer("Done.", operation.answer, reference_of, operation.answer_type)
    refused = _answer("Refused.", operation.error, reference_of)
    responses: dict[str, Any] = {operation.status: answer, "4XX": refused}
    if operation.error is V3Error:
        responses["401"] = {"description": "Wrong keys.", "content": {"text/html": {}}}
    if operation.answer is Ready:
        responses["503"] = answer
    described: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
    }
    body: dict[str, Any] = {kind: {} for kind in operation.lists}
    if operation.body is not None:
        body["application/json"] = {"schema": reference_of[operation.body]}
    if body:
        described["requestBody"] = {"required": True, "content": body}
    if route.access is Access.OPEN:
        described["security"] = []
    return described


def _answer(
    text: str,
    kind: type | None,
    reference_of: Mapping[type, Any],
    content_type: str = "application/json",
) -> dict[str, Any]:
    content: dict[str, Any] = {} if kind is None else {"schema": reference_of[kind]}
    return {"description": text, "content": {content_type: content}}


def _operation_id(route: Route) -> str:
    words = "".join(each if each.isalnum() else "_" for each in route.pattern)
    return f"{route.method.lower()}{words.rstrip('_')}"
