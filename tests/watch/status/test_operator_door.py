"""What an operator writes: checked, public at once, and nobody else's to write."""

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.watch.status.judging import OPENS_AFTER_MS
from tests.watch.looking import Look
from tests.watch.status.running import Running

WORDS = {"de": "Störung", "en": "Trouble"}
INCIDENT = {"title": WORDS, "text": WORDS, "impact": "major", "components": {"dns": ""}}


async def test_an_incident_from_its_opening_to_its_end(look: Look) -> None:
    who = look.operator()
    made = await look.ask("POST", "/v1/status/incidents", who, json=INCIDENT)
    assert made.status_code == 201, made.text
    entry = made.json()
    assert entry["components"] == {"dns": "partial_outage"}
    assert not entry["is_automatic"]
    path = f"/v1/status/incidents/{entry['id']}/updates"
    said = {"text": {"de": "Gefunden."}, "stage": "identified"}
    assert (await look.ask("POST", path, who, json=said)).json()["stage"] == "identified"
    same = await look.ask("POST", path, who, json={"text": {"en": "Still."}})
    assert same.json()["stage"] == "identified"
    over = (await look.ask("POST", path, who, json={"stage": "resolved"})).json()
    assert over["resolved_at"]
    told = [(each["stage"], each["text"]) for each in over["updates"]]
    assert told == [
        ("investigating", "Trouble"),
        ("identified", "Gefunden."),
        ("identified", "Still."),
        ("resolved", "The incident is resolved."),
    ]
    again = await look.ask("POST", path, who, json={"stage": "resolved"})
    assert again.status_code == 409, "subscribers would be told twice"
    assert again.json()["error"]["code"] == "is_over"
    public = (await look.get("/v1/status?lang=de", ("", ""))).json()
    assert [each["title"] for each in public["history"]] == ["Störung"]
    gone = await look.ask("DELETE", f"/v1/status/incidents/{entry['id']}", who)
    assert gone.status_code == 204
    assert (await look.get("/v1/status", ("", ""))).json()["history"] == []
    assert (await look.ask("POST", path, who, json=said)).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("incidents", {}, ""),
        ("incidents", {**INCIDENT, "more": 1}, ""),
        ("incidents", {**INCIDENT, "title": {}}, "title"),
        ("incidents", {**INCIDENT, "title": {"en": " "}}, "title"),
        ("incidents", {**INCIDENT, "title": {"en": "x" * 201}}, "title.de"),
        ("incidents", {**INCIDENT, "title": {"en": "a\nb"}}, "title.de"),
        ("incidents", {**INCIDENT, "text": {"en": "a\x00b"}}, "text.de"),
        ("incidents", {**INCIDENT, "text": {"de": "gut", "en": "x" * 2001}}, "text.en"),
        ("incidents", {**INCIDENT, "impact": "huge"}, ""),
        ("incidents", {**INCIDENT, "stage": "completed"}, "stage"),
        ("incidents", {**INCIDENT, "components": {"moon": ""}}, "components.moon"),
        ("incidents", {**INCIDENT, "components": {"dns": "bad"}}, "components.dns"),
        ("announcements", {"title": WORDS, "text": WORDS, "until": "2020-01-01"}, "until"),
        ("announcements", {"title": WORDS, "text": WORDS, "until": "soon"}, "until"),
        (
            "maintenances",
            {"title": WORDS, "text": WORDS, "from": "2026-12-02", "until": "2026-12-01"},
            "until",
        ),
        (
            "maintenances",
            {"title": WORDS, "text": WORDS, "from": "2029-12-01", "until": "2029-12-02"},
            "from",
        ),
        ("maintenances", {"title": WORDS, "text": WORDS, "from": "2026-12-02"}, ""),
    ],
)
async def test_what_is_wrong_is_named(
    look: Look, path: str, body: dict[str, Any], where: str
) -> None:
    answer = await look.ask("POST", f"/v1/status/{path}", look.operator(), json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["where"] == where
    assert error["message"]
    assert (await look.get("/v1/status")).json()["history"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "incidents"),
        ("POST", "incidents/abc/updates"),
        ("DELETE", "incidents/abc"),
        ("POST", "announcements"),
        ("POST", "maintenances"),
    ],
)
async def test_only_an_operator_may(look: Look, method: str, path: str) -> None:
    assert (await look.ask(method, f"/v1/status/{path}", json=INCIDENT)).status_code == 403
    nobody = await look.ask(method, f"/v1/status/{path}", ("", ""), json=INCIDENT)
    assert nobody.status_code == 401


async def test_what_a_person_resolves_stays_resolved_while_it_is_so(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    place = Running(tmp_path, "memory:status-dismissed")
    place.add("down.test", is_up=False)
    async with place.running():
        await place.send(await place.account("one"), "down.test", 20)
        status = await place.wait_for(lambda status: status["incidents"], 300)
        path = f"/v1/status/incidents/{status['incidents'][0]['id']}/updates"
        resolved = await place.ask("POST", path, {"stage": "resolved"})
        assert resolved.status == 200
        # Not "mail to it is delivered again": nobody has measured that.
        assert b"The incident is resolved." in resolved.body
        await place.wait_for(lambda status: not status["incidents"], 1)
        before_s = autojump_clock.current_time()
        with pytest.raises(trio.TooSlowError):
            await place.wait_for(lambda status: status["incidents"], 5 * OPENS_AFTER_MS / 1000)
        assert autojump_clock.current_time() - before_s >= 5 * OPENS_AFTER_MS / 1000
    # Over a restart, too: whoever is subscribed was told that it is over.
    async with place.running():
        with pytest.raises(trio.TooSlowError):
            await place.wait_for(lambda status: status["incidents"], 5 * OPENS_AFTER_MS / 1000)
        shown = await place.ask("GET", "/v1/status", None)
        assert b"resolved" in shown.body
