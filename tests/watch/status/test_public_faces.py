"""The page, our own JSON, Statuspage's form and the feeds, asked over HTTP by somebody unknown."""

import xml.etree.ElementTree as ET
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from typing import Any

import pytest
import requests

from engine.watch.status.components import Component, Impact, Level
from engine.watch.status.records import Entry, Kind, Stage, Words
from tests.spool.harness import DAY_MS, HOUR_MS, accept, message
from tests.watch.looking import Look

NOBODY = ("", "")
API = (
    "summary",
    "status",
    "components",
    "incidents",
    "incidents/unresolved",
    "scheduled-maintenances",
    "scheduled-maintenances/upcoming",
    "scheduled-maintenances/active",
)
HOSTILE = "<script>alert(1)</script> & \"quotes\" 'too'"


class Reader(HTMLParser):
    """Collects what a screen reader would go by."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


async def incident(look: Look, **more: Any) -> Entry:
    book = look.watch.status.book
    await book.load()
    given: dict[str, Any] = {
        "title": Words("Störung", "Trouble"),
        "text": Words("Wir schauen.", "We look."),
        "stage": Stage.INVESTIGATING,
        "impact": Impact.MAJOR,
        "components": {Component.DELIVERY: Level.PARTIAL},
    }
    given.update(more)
    title, text = given.pop("title"), given.pop("text")
    return await book.write(given.pop("kind", Kind.INCIDENT), title, text, **given)


async def status_page(look: Look, language: str = "en") -> tuple[requests.Response, Reader]:
    headers = {"Accept-Language": language}
    response = await look.ask("GET", "/status", NOBODY, headers=headers)
    assert response.status_code == 200
    read = Reader(response.text)
    identifiers = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    return response, read


async def test_the_page_in_both_languages(look: Look) -> None:
    look.watch.is_ready = True
    await incident(look)
    response, english = await status_page(look)
    german_response, german = await status_page(look, "de-AT,de;q=0.9,en;q=0.5")
    assert "Partial System Outage" in english.text
    assert "Teilweiser Ausfall" in german.text
    assert "We look." in english.text
    assert "Wir schauen." in german.text
    for read, language in ((english, "en"), (german, "de")):
        assert read.open == []
        [html] = read.all("html")
        assert html["lang"] == language
        assert len(read.all("h1")) == len(read.all("main")) == 1
        assert not read.all("script")
        strips = [each for each in read.all("div") if each.get("class") == "strip"]
        assert len(strips) == len(Component)
        assert all(each["role"] == "img" and each["aria-label"] for each in strips)
        assert all(each["datetime"] for each in read.all("time"))
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "accept-language" in response.headers["vary"].lower()
    assert response.headers["content-language"] == "en"
    assert german_response.headers["etag"] != response.headers["etag"]
    # A link can ask for the other language, whatever the browser says.
    assert "Teilweiser Ausfall" in (await look.get("/status?lang=de", NOBODY)).text
    assert (await look.get("/status?lang=fr", NOBODY)).status_code == 400


async def test_caches_hear_that_nothing_has_changed(look: Look) -> None:
    look.watch.is_ready = True
    for path in ("/status", "/v1/status", "/history.rss", "/api/v2/summary.json"):
        first = await look.get(path, NOBODY)
        assert "public" in first.headers["cache-control"]
        look.clock.now += 5_000
        for tag in (first.headers["etag"], f'W/{first.headers["etag"]}, "x"'):
            again = await look.ask("GET", path, NOBODY, headers={"If-None-Match": tag})
            assert again.status_code == 304, path
            assert again.content == b""
            assert again.headers["etag"] == first.headers["etag"]
    tag = (await look.get("/api/v2/summary.json", NOBODY)).headers["etag"]
    await incident(look)
    changed = await look.ask("GET", "/api/v2/summary.json", NOBODY, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    head = await look.ask("HEAD", "/status", NOBODY)
    assert head.status_code == 200
    assert head.content == b""


async def test_what_people_write_is_text_and_no_markup(look: Look) -> None:
    await incident(look, title=Words(HOSTILE, HOSTILE), text=Words(HOSTILE, HOSTILE))
    response, read = await status_page(look)
    assert "<script" not in response.text
    assert read.text.count(HOSTILE) == 2
    for path in ("/history.rss", "/history.atom"):
        feed = (await look.get(path, NOBODY)).content
        titles = [each.text for each in ET.fromstring(feed).iter() if each.tag.endswith("title")]
        assert HOSTILE in titles
        # The story is HTML inside XML: once decoded, the text in it is still text.
        [story] = [
            each.text or ""
            for each in ET.fromstring(feed).iter()
            if each.tag.rpartition("}")[2] in ("description", "content")
            and "<p>" in (each.text or "")
        ]
        assert "<script" not in story
        assert HOSTILE in Reader(story).text


async def test_statuspages_form(look: Look) -> None:
    look.watch.is_ready = True
    opened = await incident(look)
    await look.watch.status.book.add(
        opened.incident.incident_id, Stage.RESOLVED, Words("Vorbei.", "Over.")
    )
    going_on = await incident(look, title=Words("Zweite", "Second"), impact=Impact.MINOR)
    now = look.clock.now
    planned = await incident(
        look,
        kind=Kind.MAINTENANCE,
        stage=Stage.SCHEDULED,
        components={Component.DISK: Level.OPERATIONAL},
        impact=Impact.NONE,
        from_unix_ms=now + HOUR_MS,
        until_unix_ms=now + 2 * HOUR_MS,
    )
    answers = {name: (await look.get(f"/api/v2/{name}.json", NOBODY)).json() for name in API}
    pages = [each["page"] for each in answers.values()]
    assert all(page == pages[0] for page in pages)
    assert set(pages[0]) == {"id", "name", "url", "time_zone", "updated_at"}
    summary = answers["summary"]
    assert set(summary) == {"page", "components", "incidents", "scheduled_maintenances", "status"}
    assert summary["status"] == {"indicator": "major", "description": "Partial System Outage"}
    assert [each["id"] for each in summary["components"]] == [each.value for each in Component]
    assert [each["position"] for each in summary["components"]] == [1, 2, 3, 4, 5]
    [delivery] = [each for each in summary["components"] if each["id"] == "delivery"]
    assert delivery["status"] == "partial_outage"
    assert answers["components"]["components"] == summary["components"]
    assert answers["status"]["status"] == summary["status"]
    assert [e["id"] for e in summary["incidents"]] == [going_on.incident.incident_id]
    assert answers["incidents/unresolved"]["incidents"] == summary["incidents"]
    ids = [each["id"] for each in answers["incidents"]["incidents"]]
    assert ids == [going_on.incident.incident_id, opened.incident.incident_id]
    closed = answers["incidents"]["incidents"][1]
    assert closed["status"] == "resolved"
    assert closed["resolved_at"].endswith("Z")
    assert [each["status"] for each in closed["incident_updates"]] == ["resolved", "investigating"]
    assert closed["incident_updates"][0]["body"] == "Over."
    assert closed["incident_updates"][0]["affected_components"] == [
        {
            "code": "delivery",
            "name": "Delivery",
            "old_status": "partial_outage",
            "new_status": "operational",
        }
    ]
    [work] = summary["scheduled_maintenances"]
    assert work["id"] == planned.incident.incident_id
    assert work["impact"] == "maintenance"
    assert work["status"] == "scheduled"
    assert work["scheduled_for"] < work["scheduled_until"]
    assert answers["scheduled-maintenances/upcoming"]["scheduled_maintenances"] == [work]
    assert answers["scheduled-maintenances/active"]["scheduled_maintenances"] == []
    assert answers["scheduled-maintenances"]["scheduled_maintenances"] == [work]


async def test_planned_work_explains_what_does_not_work(look: Look) -> None:
    look.watch.is_ready = True
    now = look.clock.now
    planned = await incident(
        look,
        kind=Kind.MAINTENANCE,
        stage=Stage.SCHEDULED,
        components={Component.DISK: Level.OPERATIONAL},
        impact=Impact.NONE,
        from_unix_ms=now - 1,
        until_unix_ms=now + HOUR_MS,
    )
    await look.watch.status.book.add(
        planned.incident.incident_id, Stage.IN_PROGRESS, Words("Los.", "Go.")
    )
    status = (await look.get("/api/v2/summary.json", NOBODY)).json()
    assert status["status"]["indicator"] == "maintenance"
    assert [c["status"] for c in status["components"] if c["id"] == "disk"] == ["under_maintenance"]
    active = (await look.get("/api/v2/scheduled-maintenances/active.json", NOBODY)).json()
    assert [each["status"] for each in active["scheduled_maintenances"]] == ["in_progress"]


async def test_announcements_stand_on_top_for_their_time(look: Look) -> None:
    look.watch.is_ready = True
    await incident(
        look,
        kind=Kind.ANNOUNCEMENT,
        stage=Stage.RESOLVED,
        components={},
        impact=Impact.NONE,
        until_unix_ms=look.clock.now + DAY_MS,
    )
    status = (await look.get("/v1/status", NOBODY)).json()
    [announced] = status["announcements"]
    assert (announced["title"], announced["stage"]) == ("Trouble", "announced")
    assert announced["resolved_at"] is None, "an announcement is no incident that is over"
    assert [each["stage"] for each in announced["updates"]] == ["announced"]
    assert (await status_page(look))[1].text.count("We look.") == 1
    assert status["indicator"] == "none"
    assert (await look.get("/api/v2/incidents/unresolved.json", NOBODY)).json()["incidents"] == []
    look.clock.now += DAY_MS
    later = (await look.get("/v1/status?lang=de", NOBODY)).json()
    assert later["announcements"] == []
    assert [each["title"] for each in later["history"]] == ["Störung"]
    assert (await status_page(look))[1].text.count("We look.") == 1


async def test_the_feeds_are_valid(look: Look) -> None:
    entries = [await incident(look, title=Words(f"S{n}", f"T{n}")) for n in range(3)]
    await look.watch.status.book.add(
        entries[0].incident.incident_id, Stage.RESOLVED, Words("Vorbei.", "Over\x07\ufffe.")
    )
    response = await look.get("/history.rss", NOBODY)
    assert response.headers["content-type"] == "application/rss+xml; charset=utf-8"
    root = ET.fromstring(response.content)
    assert (root.tag, root.attrib) == ("rss", {"version": "2.0"})
    [channel] = root
    assert [channel.findtext(name) for name in ("title", "link", "description")] == [
        "Eilpost: status",
        f"{look.watch.public_url}/status",
        "Eilpost: status",
    ]
    items = channel.findall("item")
    assert [item.findtext("title") for item in items] == ["T2", "T1", "T0"]
    guids = [item.find("guid") for item in items]
    assert len({guid.text for guid in guids if guid is not None}) == 3
    for item in items:
        assert parsedate_to_datetime(item.findtext("pubDate") or "").tzinfo is not None
    assert "Over." in (items[2].findtext("description") or "")
    # The identity stays when something is added.
    await look.watch.status.book.add(
        entries[1].incident.incident_id, Stage.RESOLVED, Words("Vorbei.", "Over.")
    )
    again = ET.fromstring((await look.get("/history.rss", NOBODY)).content)
    assert [each.text for each in again.iter("guid")] == [
        guid.text for guid in guids if guid is not None
    ]
    atom = ET.fromstring((await look.get("/history.atom?lang=de", NOBODY)).content)
    space = "{http://www.w3.org/2005/Atom}"
    assert atom.tag == f"{space}feed"
    for name in ("id", "title", "updated", "author"):
        assert atom.find(space + name) is not None
    assert [each.findtext(f"{space}title") for each in atom.iter(f"{space}entry")] == [
        "S2",
        "S1",
        "S0",
    ]


@pytest.mark.parametrize("age_days", [0, 1, 45, 89])
async def test_the_strip_shows_the_days_of_an_incident(look: Look, age_days: int) -> None:
    look.watch.is_ready = True
    created = look.clock.now - age_days * DAY_MS
    look.watch.status.book.begun_unix_ms = look.clock.now - 100 * DAY_MS
    entry = await incident(look, created_unix_ms=created, components={Component.DNS: Level.MAJOR})
    await look.watch.status.book.add(
        entry.incident.incident_id, Stage.RESOLVED, Words("Vorbei.", "Over.")
    )
    _, read = await status_page(look)
    [label] = [
        each["aria-label"] or ""
        for each in read.all("div")
        if (each.get("aria-label") or "").startswith("Name resolution")
    ]
    assert f"{90 - age_days - 1} of 90 days" in label


@pytest.mark.parametrize(("age_days", "known"), [(0, 1), (7, 8), (89, 90), (300, 90)])
async def test_days_before_the_first_measurement_are_not_called_good(
    look: Look, age_days: int, known: int
) -> None:
    look.watch.is_ready = True
    look.watch.status.book.begun_unix_ms = look.clock.now - age_days * DAY_MS
    response, read = await status_page(look)
    labels = [
        each["aria-label"] or ""
        for each in read.all("div")
        if " days without an incident" in (each.get("aria-label") or "")
    ]
    assert len(labels) == len(Component)
    assert all(f"{known} of {known} days" in label for label in labels)
    assert response.text.count('class="is-unknown"') == len(Component) * (90 - known)
    assert ("grey: not measured" in response.text) == (known < 90)


async def test_nothing_of_customers_is_told(look: Look) -> None:
    await accept(look.spool, look.account, message("ann@secret.test", campaign="spring"))
    pages = [await look.get(path, NOBODY) for path in ("/status", "/v1/status", "/history.rss")]
    pages += [await look.get(f"/api/v2/{name}.json", NOBODY) for name in API]
    for page in pages:
        assert page.status_code == 200
        for word in ("secret.test", "ann@", "acme", "spring"):
            assert word not in page.text
