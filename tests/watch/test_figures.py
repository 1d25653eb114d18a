"""Destinations, statistics, events by HTTP, health, metrics, sessions, and what describes them."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from prometheus_client.parser import text_string_to_metric_families

from engine.compose import Seams, running_engine
from engine.config import Config, Http, SpoolTable
from engine.config_values import ListenAddress
from engine.spool.interface import EventPage, Quota, Rest, SpoolSettings
from engine.watch import events
from engine.watch.openapi import OPERATIONS, description
from protocols.records import DestinationRecord, Reason, Status
from tests.spool.harness import (
    DAY_MS,
    Harness,
    accept_many,
    claim,
    deliver,
    result_of,
    run_inline,
    sweep_all,
)
from tests.watch.looking import LiveOne, Look, looking, make_account, place

NOBODY = ("", "")


async def test_destinations_page_by_name(look: Look) -> None:
    for name in ("c.test", "a.test", "b.test"):
        await accept_many(look.spool, look.account, 2, at=name)
    seen: list[str] = []
    query = "?limit=2"
    while True:
        page = await look.json(f"/v1/destinations{query}")
        seen += [row["destination"] for row in page["destinations"]]
        if page["after"] is None:
            break
        query = f"?limit=2&after={page['after']}"
    assert seen == ["a.test", "b.test", "c.test"]


@pytest.mark.parametrize(
    "name", ["a.test", "b.test", "B.TEST", "a", "b.tes", "b.testx", "", "~", "%00"]
)
async def test_one_destination(look: Look, name: str) -> None:
    for each in ("a.test", "b.test", "b.test.test"):
        await accept_many(look.spool, look.account, 1, at=each)
    page = await look.json(f"/v1/destinations?destination={name}")
    wanted = [name.lower()] if name.lower() in ("a.test", "b.test") else []
    assert [row["destination"] for row in page["destinations"]] == wanted
    assert page["after"] is None


async def test_a_destinations_states(look: Look) -> None:
    await accept_many(look.spool, look.account, 5, quota=Quota(per_day=4))
    [envelope, *_] = await claim(look.spool)
    due = look.clock.now + 300_000
    await look.spool.settle([result_of(look.spool, envelope, Status.DEFERRED, due_unix_ms=due)])

    async def row() -> dict[str, Any]:
        [only] = (await look.json("/v1/destinations"))["destinations"]
        return dict(only)

    idle = await row()
    assert (idle["queued"], idle["deferred"], idle["paused"]) == (3, 1, 1)
    assert (idle["state"], idle["since"]) == ("idle", None)
    assert (idle["held_by"]["code"], idle["held_by"]["scope"]) == ("waiting_turn", "engine")
    look.live["one.test"] = LiveOne("throttled", "mx.one.test", 2, 0.5)
    live = await row()
    assert (live["state"], live["site"]) == ("throttled", "mx.one.test")
    assert (live["connections"], live["rate_per_s"]) == (2, 0.5)
    look.live.clear()
    record = DestinationRecord(
        not_before_unix_ms=look.clock.now + 60_000,
        cause="dns_failure",
        since_unix_ms=look.clock.now,
        failures=1,
        reply="no answer from any server",
        reason=Reason.DNS,
        site="mx.one.test",
    )
    await look.spool.settle([], [Rest("one.test", record)])
    held = await row()
    assert held["state"] == "unreachable"
    assert held["last_reply"] == "no answer from any server"
    assert held["next_attempt_at"] == "2026-11-24T09:31:00.000Z"
    assert held["since"] == "2026-11-24T09:30:00.000Z"
    assert held["held_by"] == {
        "code": "dns_failure",
        "scope": "destination",
        "key": "one.test",
        "since": "2026-11-24T09:30:00.000Z",
        "limit": None,
        "reply": "no answer from any server",
        "reason": "dns",
        "text": held["held_by"]["text"],
    }
    assert held["held_by"]["text"]
    explained = await look.json("/v1/destinations/one.test/explain")
    assert explained["held_by"] == held["held_by"]
    german = await look.ask(
        "GET", "/v1/destinations", headers={"Accept-Language": "de-AT, en;q=0.5"}
    )
    assert german.headers["vary"] == "accept-language"
    [row_in_german] = german.json()["destinations"]
    text = row_in_german["held_by"].pop("text")
    assert text.startswith("Die Mailserver von one.test")
    assert row_in_german["held_by"] == {k: v for k, v in held["held_by"].items() if k != "text"}


async def test_where_nothing_waits_nothing_is_held(look: Look) -> None:
    [envelope_id] = await accept_many(look.spool, look.account, 1)
    record = DestinationRecord(
        not_before_unix_ms=look.clock.now + 60_000,
        cause="destination_unreachable",
        since_unix_ms=look.clock.now,
        failures=1,
        reply="connection refused",
        reason=Reason.CONNECTION,
    )
    await look.spool.settle([], [Rest("one.test", record)])
    [envelope] = await claim(look.spool)
    assert envelope.fixed.envelope_id == envelope_id
    [row] = (await look.json("/v1/destinations"))["destinations"]
    assert row["state"] == "unreachable"
    await look.spool.settle([result_of(look.spool, envelope, Status.SOFT_BOUNCED)])
    look.live["one.test"] = LiveOne("unreachable")
    [row] = (await look.json("/v1/destinations"))["destinations"]
    assert (row["state"], row["held_by"], row["since"], row["reason"]) == ("idle", None, None, None)
    assert row["last_reply"] == "connection refused"


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("552 5.2.2 <bob.x@one.test>: full", "552 5.2.2 <…@one.test>: full"),
        ('550 "odd name"@one.test unknown', "550 …@one.test unknown"),
        ("421 4.7.0 too many connections", "421 4.7.0 too many connections"),
        ("450 a@one.test,b@two.test", "450 …@one.test,…@two.test"),
    ],
)
async def test_replies_do_not_name_others_recipients(look: Look, reply: str, told: str) -> None:
    """A destination's last reply may have been given for another account's mail."""
    await accept_many(look.spool, look.account, 1)
    record = DestinationRecord(
        not_before_unix_ms=look.clock.now + 60_000,
        cause="destination_unreachable",
        failures=1,
        reply=reply,
    )
    await look.spool.settle([], [Rest("one.test", record)])
    readers: list[tuple[str | tuple[str, str], str]] = [("acme", told), (look.operator(), reply)]
    for who, expected in readers:
        [row] = (await look.json("/v1/destinations", who))["destinations"]
        assert row["last_reply"] == row["held_by"]["reply"] == expected
        [message] = (await look.json("/v1/messages", who))["messages"]
        assert message["reply"] == expected
        async with look.stream(who) as listener:
            await listener.say({"watch": "destinations"})
            [row] = (await listener.hear())["destinations"]
            assert row["last_reply"] == expected


async def test_statistics(look: Look) -> None:
    other = await make_account(look.spool, "other")
    await accept_many(look.spool, look.account, 3, campaign="spring")
    await accept_many(look.spool, other, 2, at="two.test")
    await deliver(look.spool, (await claim(look.spool))[:1])
    zero = dict.fromkeys(
        [*("queued", "paused", "deferred", "delivered", "soft_bounced", "hard_bounced")], 0
    ) | {"blocked": 0, "cancelled": 0}
    [total] = (await look.json("/v1/statistics"))["rows"]
    assert total == zero | {"key": "total", "queued": 2, "delivered": 1, "total": 3}
    operator = look.operator()

    async def keys(query: str) -> dict[str, int]:
        rows = (await look.json(f"/v1/statistics?{query}", operator))["rows"]
        return {row["key"]: row["total"] for row in rows}

    assert await keys("group=destination") == {"one.test": 3, "two.test": 2}
    assert await keys("group=account") == {"acme": 3, "other": 2}
    assert await keys("group=campaign") == {"": 2, "spring": 3}
    assert await keys("group=hour") == {"2026-11-24T09": 5}
    assert await keys("group=day&from=2026-11-24&to=2026-11-25") == {"2026-11-24": 5}
    assert await keys("group=day&to=2026-11-24") == {}
    for query, where in [("group=week", "group"), ("from=x", "from"), ("group=day&by=x", "by")]:
        response = await look.get(f"/v1/statistics?{query}")
        assert response.status_code == 400
        assert response.json()["error"]["where"] == where


async def test_statistics_page_by_key(look: Look) -> None:
    for name in ("c.test", "a.test", "b.test"):
        await accept_many(look.spool, look.account, 1, at=name)
    await accept_many(look.spool, look.account, 1, at="a.test", campaign="spring")

    async def keys(group: str) -> list[str]:
        seen: list[str] = []
        query = f"group={group}&limit=1"
        for _ in range(10):
            page = await look.json(f"/v1/statistics?{query}")
            seen += [row["key"] for row in page["rows"]]
            if page["after"] is None:
                return seen
            query = f"group={group}&limit=1&after={page['after']}"
        raise AssertionError(seen)

    assert await keys("destination") == ["a.test", "b.test", "c.test"]
    assert await keys("campaign") == ["", "spring"]
    assert await keys("total") == ["total"]
    assert (await look.json("/v1/statistics?group=destination"))["after"] is None
    for query, where in [("after=x", "after"), ("limit=0", "limit"), ("limit=1001", "limit")]:
        response = await look.get(f"/v1/statistics?{query}")
        assert response.status_code == 400
        assert response.json()["error"]["where"] == where


@pytest.mark.slow
async def test_a_long_table_is_whole_in_both_forms(look: Look) -> None:
    names = sorted(f"d{number}.test" for number in range(1234))
    for name in names:
        await accept_many(look.spool, look.account, 1, at=name)
    rows = (await look.json("/v1/statistics?group=destination"))["rows"]
    assert [row["key"] for row in rows] == names
    assert {row["queued"] for row in rows} == {1}
    response = await look.get("/v1/statistics?group=destination&format=csv")
    lines = [*csv.DictReader(io.StringIO(response.text))]
    assert lines == [{name: str(value) for name, value in row.items()} for row in rows]


async def test_events_page_through_the_log(look: Look) -> None:
    await accept_many(look.spool, look.account, 250)
    after, seen = "start", []
    while True:
        batch = await look.json(f"/v1/events?after={after}&limit=100")
        assert after in ("start", batch["after"])
        if batch["cursor"] == after:
            break
        after = batch["cursor"]
        seen += [place(event["cursor"]) for event in batch["events"]]
    assert seen == [*range(1, 251)]
    narrow = await look.json("/v1/events?status=delivered&destination=one.test")
    assert narrow["events"] == []
    assert place(narrow["cursor"]) == 250
    for query, where in [
        ("after=x", "after"),
        ("wait_s=61", "wait_s"),
        ("status=sent", "status"),
        ("reason=unknown", "reason"),
        ("message_id=x", "message_id"),
        ("who=x", "who"),
    ]:
        response = await look.get(f"/v1/events?{query}")
        assert response.status_code == 400
        assert response.json()["error"]["where"] == where


async def test_events_can_be_waited_for(look: Look) -> None:
    other = await make_account(look.spool, "other")
    heard: list[Any] = []
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            heard.append(await look.json("/v1/events?after=now&wait_s=9&destination=two.test"))

        nursery.start_soon(wait)
        while look.server.statistics().connections == 0:
            await trio.lowlevel.checkpoint()
        # Neither another destination's nor another account's is what is waited for.
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        await accept_many(look.spool, look.account, 1)
        await accept_many(look.spool, other, 1, at="two.test")
        while not heard:
            await accept_many(look.spool, look.account, 1, at="two.test")
            await trio.sleep(0.01)
    assert {event["destination"] for event in heard[0]["events"]} == {"two.test"}
    assert {event["account"] for event in heard[0]["events"]} == {"acme"}
    nothing = await look.json("/v1/events?after=now&wait_s=1&status=blocked")
    assert nothing["events"] == []


async def test_who_waits_costs_no_look_into_the_log_for_what_does_not_fit(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "WAITERS_OF_ACCOUNT_MAX", 3)
    read, reads = look.spool.events, 0

    async def counted(*arguments: Any) -> EventPage:
        nonlocal reads
        reads += 1
        return await read(*arguments)

    monkeypatch.setattr(look.spool, "events", counted)
    answers: list[Any] = []
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            answers.append(await look.json("/v1/events?after=now&wait_s=60&destination=two.test"))

        for _ in range(5):
            nursery.start_soon(wait)
        # Two find all places of their account taken, and are answered at once.
        while len(answers) < 2:
            await trio.lowlevel.checkpoint()
        assert [answer["events"] for answer in answers] == [[], []]
        while look.watch.hub.head_seq < 20:
            await accept_many(look.spool, look.account, 1)
            await trio.sleep(0.001)
        assert (len(answers), reads) == (2, 0)
        await accept_many(look.spool, look.account, 1, at="two.test")
    assert [len(answer["events"]) for answer in answers] == [0, 0, 1, 1, 1]
    assert reads == 3


async def test_events_tell_of_gaps(tmp_path: Path) -> None:
    settings = SpoolSettings(events_retention_ms=DAY_MS, disk_free_bytes_min=0)
    async with looking(Harness("memory", tmp_path, settings)) as look:
        await accept_many(look.spool, look.account, 10)
        look.clock.now += 2 * DAY_MS
        await accept_many(look.spool, look.account, 5)
        await sweep_all(look.spool)
        own = look.spool.stream_id
        batch = await look.json(f"/v1/events?after={own}-3")
        assert batch["gap"] == {"from": f"{own}-3", "to": f"{own}-10"}
        assert batch["after"] == f"{own}-10"
        foreign = await look.json("/v1/events?after=abc-3")
        assert foreign["gap"] == {"from": "abc-3", "to": f"{own}-10"}
        assert "gap" not in await look.json("/v1/events?after=start")


async def test_health_and_readiness(look: Look) -> None:
    assert (await look.get("/healthz", NOBODY)).status_code == 200
    assert (await look.get("/readyz", NOBODY)).status_code == 503
    look.watch.is_ready = True
    ready = await look.get("/readyz", NOBODY)
    assert ready.status_code == 200
    assert ready.json() == {"ready": True, "missing": []}


def figures(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics(look: Look) -> None:
    other = await make_account(look.spool, "other")
    await accept_many(look.spool, look.account, 3)
    await accept_many(look.spool, other, 4)
    look.live["one.test"] = LiveOne("flowing", connections=2)
    assert (await look.get("/metrics", NOBODY)).status_code == 401
    response = await look.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    own = figures(response.text)
    assert own["eilpost_messagesqueued"] == 3
    assert own["eilpost_http_responses_total4xx"] == 1
    assert "eilpost_spool_open" not in own
    everything = figures((await look.get("/metrics", look.operator())).text)
    assert everything["eilpost_messagesqueued"] == 7
    assert everything["eilpost_spool_open"] == 7
    assert everything["eilpost_events_total"] == 7
    assert everything["eilpost_smtp_connections"] == 2


async def test_the_number_of_series_does_not_grow_with_the_mail(look: Look) -> None:
    before = figures((await look.get("/metrics", look.operator())).text)
    for number in range(50):
        await accept_many(look.spool, look.account, 1, at=f"d{number}.test", campaign=f"c{number}")
    after = figures((await look.get("/metrics", look.operator())).text)
    assert set(before) <= set(after)
    assert set(after) - set(before) <= {"eilpost_http_responses_total2xx"}


async def test_an_operators_link_signs_in_once(look: Look) -> None:
    body = {"token": look.operators.new_token()}
    path = "/v1/operator/sessions"
    session = await look.ask("POST", path, NOBODY, json=body)
    assert session.status_code == 200
    keys = session.json()
    assert set(keys) == {"api_key", "secret_key", "expires_at"}
    await accept_many(look.spool, await make_account(look.spool, "other"), 1)
    listing = await look.json("/v1/messages", (keys["api_key"], keys["secret_key"]))
    assert len(listing["messages"]) == 1
    assert (await look.ask("POST", path, NOBODY, json=body)).status_code == 403
    for faulty in (b"", b"{", b'{"token": 1}', b'{"token": "x", "more": 1}', b"[" * 4000):
        assert (await look.ask("POST", path, NOBODY, data=faulty)).status_code == 400
    look.clock.now += DAY_MS
    assert (
        await look.get("/v1/messages", (keys["api_key"], keys["secret_key"]))
    ).status_code == 401


@pytest.mark.parametrize("who", ["acme", "operator", "nobody"])
async def test_no_link_is_made_over_the_port(look: Look, who: str) -> None:
    keys = {"operator": look.operator(), "nobody": NOBODY}.get(who, who)
    answer = await look.ask("POST", "/v1/operator/links", keys, json={})
    assert answer.status_code == (401 if who == "nobody" else 403)
    assert "token" not in answer.text


async def test_every_route_of_the_engine_is_described(tmp_path: Path) -> None:
    seams = Seams(run_blocking=run_inline)
    config = Config(
        data_dir=tmp_path,
        http=Http(listen=ListenAddress("127.0.0.1", 0)),
        spool=SpoolTable(url="memory:"),
    )
    async with running_engine(config, seams) as engine:
        api = {
            (route.method, route.pattern)
            for route in engine.http.routes
            if not route.pattern.startswith("/assets/") and route.pattern != "/"
        }
        assert api <= set(OPERATIONS)
        described = description(engine.http.routes)["paths"]
    assert {(method.upper(), path) for path in described for method in described[path]} == api


async def test_the_description_is_complete_and_whole(look: Look) -> None:
    document = await look.json("/v1/openapi.json", NOBODY)
    assert document["openapi"] == "3.1.0"
    assert (await look.get("/readyz", NOBODY)).status_code == 503
    api = {
        (route.method, route.pattern)
        for route in look.server.routes
        if route.pattern.startswith("/v")
    }
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert api <= described
    assert api <= set(OPERATIONS)

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            found = {value["$ref"]} if "$ref" in value else set()
            return found.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= names
    identifiers = [
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
    ]
    assert len(identifiers) == len(set(identifiers))
    assert document["paths"]["/healthz"]["get"]["security"] == []


async def test_answers_have_the_described_fields(look: Look) -> None:
    [message_id] = await accept_many(look.spool, look.account, 1)
    document = await look.json("/v1/openapi.json")
    schemas = document["components"]["schemas"]
    for path, name in [
        (f"/v1/messages/{message_id}", "MessageStory"),
        ("/v1/messages", "MessagePage"),
        ("/v1/destinations", "DestinationPage"),
        ("/v1/statistics", "StatisticsPage"),
        ("/v1/statistics/series", "SeriesPage"),
        ("/v1/statistics/delivery-times", "DeliveryTimesPage"),
    ]:
        assert set(await look.json(path)) == set(schemas[name]["properties"])


async def test_the_newest_events_are_there_for_whoever_has_just_come(look: Look) -> None:
    """`last` looks backwards, under a filter too, and its cursor goes on without a hole."""
    other = await make_account(look.spool, "other")
    assert (await look.json("/v1/events?last=5"))["events"] == []
    await accept_many(look.spool, look.account, 30)
    await accept_many(look.spool, other, 300)
    own = await look.json("/v1/events?last=20")
    assert [place(each["cursor"]) for each in own["events"]] == [*range(11, 31)]
    assert (place(own["after"]), place(own["cursor"])) == (10, 330)
    everybodys = await look.json("/v1/events?last=3", look.operator())
    assert [place(each["cursor"]) for each in everybodys["events"]] == [328, 329, 330]
    all_own = await look.json("/v1/events?last=1000")
    assert len(all_own["events"]) == 30
    await accept_many(look.spool, look.account, 2)
    later = await look.json(f"/v1/events?after={own['cursor']}")
    assert [place(each["cursor"]) for each in later["events"]] == [331, 332]
    for query in ("last=0", "last=1001", "last=x", "last=5&after=start"):
        response = await look.get(f"/v1/events?{query}")
        assert (response.status_code, response.json()["error"]["where"]) == (400, "last"), query
