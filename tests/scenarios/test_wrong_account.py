"""An account with bad intentions asks every route for what is another's, and gets nothing of it.

The routes are those of the engine's own OpenAPI document, so that a new one is tried as well.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest

from engine.rehearsal.engine_process import Credentials, HttpClient
from tests.scenarios.scene import Scene, scene

pytestmark = pytest.mark.slow

# Stands in what is the victim's alone, and in no parameter, which an error may repeat.
SECRET: Final = "kept-to-ourselves"
DOMAIN: Final = "victim.fast.test"
ADDRESS: Final = f"451-after-rcpt+ann@{DOMAIN}"
CAMPAIGN: Final = "spring"
# Says for how long to wait for news, of which there are none.
LEFT_OUT: Final = {"wait_s"}
MANY_PARAMETERS: Final = 2


@dataclass(frozen=True)
class Victim:
    """What a stranger may have overheard: names and ids, in the places where routes take them."""

    values: Mapping[str, str]

    def paths(self, pattern: str, parameters: list[Mapping[str, Any]]) -> Iterator[str]:
        """The path with his names, alone and with one or two of the parameters that it takes."""
        for parameter in parameters:
            if parameter["in"] == "path":
                value = self.values.get(parameter["name"], "1")
                if "campaigns" in pattern:
                    value = CAMPAIGN
                pattern = pattern.replace(f"{{{parameter['name']}}}", quote(value, safe=""))
        yield pattern
        names = [
            each["name"]
            for each in parameters
            if each["in"] == "query" and each["name"] not in LEFT_OUT
        ]
        known = [name for name in names if name in self.values]
        for count in range(1, MANY_PARAMETERS + 1):
            for chosen in itertools.combinations(known, count):
                yield f"{pattern}?{urlencode({name: self.values[name] for name in chosen})}"


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path, "[delivery]\nretry_s = [600]\n") as made:
        yield made


def call(
    played: Scene, credentials: Credentials, method: str, path: str, body: Any = None
) -> tuple[int, str]:
    client = HttpClient(played.engine.port, credentials)
    try:
        octets = None if body is None else json.dumps(body).encode()
        status, answer = client.request(method, path, octets)
    finally:
        client.close()
    return status, json.dumps(answer)


def made_by(played: Scene, path: str, body: Any) -> Any:
    status, answer = played.post(json.dumps(body).encode(), path)
    assert status in (200, 201), answer
    return answer


def victim_of(played: Scene) -> Victim:
    """Fill an account with everything that there is: mail, a hold, a suppression, a campaign."""
    ids = played.send(
        [ADDRESS, f"to+bob@{DOMAIN}"],
        Subject=f"{SECRET} subject",
        CustomID=f"{SECRET} id",
        CustomCampaign=CAMPAIGN,
    )
    played.wait_for(
        "one is put off, one is there",
        lambda: {"deferred", "delivered"} <= played.counts().keys(),
    )
    hold = made_by(played, "/v1/holds", {"campaign": "summer", "reason": f"{SECRET} reason"})
    made_by(
        played, "/v1/suppressions", {"address": f"carol@{DOMAIN}", "reason": f"{SECRET} reason"}
    )
    return Victim(
        {
            "id": str(ids[ADDRESS]),
            "message_id": str(ids[ADDRESS]),
            "hold_id": str(hold["hold_id"]),
            "name": "shop",
            "account": "shop",
            "address": ADDRESS,
            "destination": DOMAIN,
            "domain": DOMAIN,
            "site": DOMAIN,
            "campaign": CAMPAIGN,
            "group": "campaign",
            "subject": SECRET[:4],
            "after": "start",
            "status": "deferred",
        }
    )


def everything(played: Scene) -> list[str]:
    """What the victim sees of itself, as far as nobody but it may change it."""
    paths = ("/v1/messages", "/v1/holds", "/v1/suppressions", "/v1/statistics", "/v1/campaigns")
    return [call(played, played.credentials, "GET", path)[1] for path in paths]


def test_nothing_of_another_account_is_seen_or_changed(played: Scene) -> None:
    victim = victim_of(played)
    before = everything(played)
    assert SECRET in before[0], "there is something to be seen"
    stranger = played.engine.create_account("stranger")
    document = played.get("/v1/openapi.json")
    tried, seen = 0, []
    bodies: list[dict[str, Any]] = [
        {},
        {"account": "shop"},
        {"campaign": CAMPAIGN},
        {"destination": DOMAIN},
        {"account": "shop", "campaign": CAMPAIGN, "address": ADDRESS, "reason": "because"},
        {"site": DOMAIN, "address": f"carol@{DOMAIN}"},
    ]
    for pattern, operations in document["paths"].items():
        for method, operation in operations.items():
            # His own tickets and mail are his; that nobody else gets them is tried elsewhere.
            for path in victim.paths(pattern, operation.get("parameters", [])):
                for body in [None] if method in ("get", "delete") else bodies:
                    status, answer = call(played, stranger, method.upper(), path, body)
                    tried += 1
                    if SECRET in answer or status >= 500:
                        seen.append(f"{method} {path} {body}: {status} {answer[:300]}")
    assert seen == []
    assert tried > 100
    assert everything(played) == before
    status, own = call(played, stranger, "GET", "/v1/statistics")
    assert (status, json.loads(own)["rows"][0]["total"]) == (200, 0)
    for path in (f"/v1/messages/{victim.values['id']}", f"/v1/holds/{victim.values['hold_id']}"):
        method = "GET" if "messages" in path else "DELETE"
        assert call(played, stranger, method, path)[0] == 404


def test_control_the_victim_itself_sees_its_own_by_the_same_calls(played: Scene) -> None:
    """Else a wrong parameter would keep the secret."""
    victim = victim_of(played)
    document = played.get("/v1/openapi.json")
    telling = set()
    for pattern, operations in document["paths"].items():
        for path in victim.paths(pattern, operations.get("get", {}).get("parameters", [])):
            if "get" in operations and SECRET in call(played, played.credentials, "GET", path)[1]:
                telling.add(pattern)
    assert telling >= {
        "/v1/messages",
        "/v1/messages/{id}",
        "/v1/events",
        "/v1/holds",
        "/v1/suppressions",
    }, telling
