"""The status page's routes, for the OpenAPI document."""

from collections.abc import Mapping
from typing import Final

from engine.watch.openapi_operation import Operation
from engine.watch.status.operator_door import (
    AnnouncementBody,
    IncidentBody,
    MaintenanceBody,
    StatusUpdateBody,
)
from engine.watch.status.subscription_door import SubscriberPage
from engine.watch.status.views import EntryView, StatusView

STATUS_OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", "/status"): Operation(
        "The status page, for people; public, in German or English.",
        ("lang",),
        answer_type="text/html",
    ),
    ("GET", "/v1/status"): Operation(
        "Components, incidents, planned work and announcements; public.",
        ("lang",),
        answer=StatusView,
    ),
    ("GET", "/api/v2/summary.json"): Operation("Everything in Statuspage's form.", ("lang",)),
    ("GET", "/api/v2/status.json"): Operation("The overall state.", ("lang",)),
    ("GET", "/api/v2/components.json"): Operation("The components.", ("lang",)),
    ("GET", "/api/v2/incidents.json"): Operation("The last 50 incidents.", ("lang",)),
    ("GET", "/api/v2/incidents/unresolved.json"): Operation("Open incidents.", ("lang",)),
    ("GET", "/api/v2/scheduled-maintenances.json"): Operation(
        "The last 50 plans of work.", ("lang",)
    ),
    ("GET", "/api/v2/scheduled-maintenances/upcoming.json"): Operation(
        "Work that is to come.", ("lang",)
    ),
    ("GET", "/api/v2/scheduled-maintenances/active.json"): Operation(
        "Work that goes on.", ("lang",)
    ),
    ("GET", "/history.rss"): Operation(
        "What happened, as RSS 2.0.", ("lang",), answer_type="application/rss+xml"
    ),
    ("GET", "/history.atom"): Operation(
        "What happened, as Atom.", ("lang",), answer_type="application/atom+xml"
    ),
    ("POST", "/v1/status/incidents"): Operation(
        "Open an incident, which is public at once.",
        body=IncidentBody,
        answer=EntryView,
        status="201",
    ),
    ("POST", "/v1/status/incidents/{id}/updates"): Operation(
        "Say something more of an entry, or that it is over.",
        body=StatusUpdateBody,
        answer=EntryView,
    ),
    ("DELETE", "/v1/status/incidents/{id}"): Operation(
        "Remove an entry that was written by mistake.", status="204"
    ),
    ("POST", "/v1/status/announcements"): Operation(
        "Announce something.", body=AnnouncementBody, answer=EntryView, status="201"
    ),
    ("POST", "/status/subscriptions"): Operation(
        "Ask for mail about the status page: an HTML form with address, language and frequency.",
        ("lang",),
        answer_type="text/html",
        status="202",
    ),
    ("GET", "/status/subscriptions"): Operation(
        "Leads to the form.", ("lang",), answer_type="text/html", status="303"
    ),
    ("GET", "/status/subscriptions/confirm"): Operation(
        "The page with the button that confirms.", ("token",), answer_type="text/html"
    ),
    ("POST", "/status/subscriptions/confirm"): Operation(
        "Confirm a subscription.", ("token",), answer_type="text/html"
    ),
    ("GET", "/status/unsubscribe"): Operation(
        "The page with the button that ends a subscription.", ("token",), answer_type="text/html"
    ),
    ("POST", "/status/unsubscribe"): Operation(
        "End a subscription in one request (RFC 8058).", ("token",), answer_type="text/html"
    ),
    ("GET", "/v1/status/subscribers"): Operation(
        "Who gets the status page by mail.", ("after", "limit"), answer=SubscriberPage
    ),
    ("DELETE", "/v1/status/subscribers/{address}"): Operation("End a subscription.", status="204"),
    ("POST", "/v1/status/maintenances"): Operation(
        "Plan work; it begins and ends by itself.",
        body=MaintenanceBody,
        answer=EntryView,
        status="201",
    ),
}
