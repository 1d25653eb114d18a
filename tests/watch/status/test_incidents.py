"""Incidents that open and close by themselves, in the composed engine and in virtual time."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.config import Route, Rule
from engine.config_values import DomainPattern, NextHop, Rate
from engine.delivery.resolver import AnswerCounts, DnsResolver
from engine.rehearsal.behaviour import Behaviour
from engine.rehearsal.dns_server import DnsServer
from engine.rehearsal.zones import Records, Zones
from engine.spool.disk_calls import DiskRoom
from engine.watch.status.judging import OPENS_AFTER_MS, RESOLVES_AFTER_MS
from tests.watch.status.running import Running

GIB = 2**30
_names = itertools.count()


@pytest.fixture
def place(tmp_path: Path) -> Running:
    return Running(tmp_path, f"memory:status-{next(_names)}")


def titles(entries: Sequence[dict[str, Any]]) -> list[str]:
    return [entry["title"] for entry in entries]


async def test_a_site_that_is_down_for_many_is_an_incident_until_it_is_back(
    place: Running, autojump_clock: MockClock
) -> None:
    receiver = place.add("down.test", is_up=False)
    async with place.running():
        accounts = [await place.account("one"), await place.account("two")]
        began_s = trio.current_time()
        for account in accounts:
            await place.send(account, "down.test", 15)
        status = await place.wait_for(lambda status: status["incidents"], 300)
        [incident] = status["incidents"]
        assert trio.current_time() - began_s >= OPENS_AFTER_MS / 1000
        assert incident["title"] == "Delayed delivery to down.test"
        assert incident["impact"] == "minor"
        assert incident["is_automatic"]
        assert incident["components"] == {"delivery": "degraded_performance"}
        assert status["indicator"] == "minor"
        told = str(status)
        assert not [word for word in ("one", "two", "one0@", "30") if f"'{word}" in told]

        place.receivers[place.address_of("down.test")] = receiver
        status = await place.wait_for(lambda status: not status["incidents"], 600)
        [over] = status["history"]
        assert over["id"] == incident["id"]
        assert [update["stage"] for update in over["updates"]] == ["investigating", "resolved"]
        assert over["updates"][-1]["text"] == "Mail to down.test is delivered again."
        assert status["indicator"] == "none"
        assert len(receiver.acceptances) == 30


async def test_a_route_to_an_address_is_told_by_a_domain_of_many(
    place: Running, autojump_clock: MockClock
) -> None:
    place.routes = (Route(domain=DomainPattern("*.test"), next_hop=NextHop("127.0.0.9", 25)),)
    async with place.running():
        one, two = await place.account("one"), await place.account("two")
        await place.send(one, "private.test", 30)
        await place.send(one, "shared.test", 10)
        await place.send(two, "shared.test", 10)
        status = await place.wait_for(lambda status: status["incidents"], 300)
        assert titles(status["incidents"]) == ["Delayed delivery to shared.test"]
        assert "private.test" not in str(status)
        assert "127.0.0.9" not in str(status)


async def test_one_senders_trouble_is_not_told(place: Running, autojump_clock: MockClock) -> None:
    place.add("private.test", is_up=False)
    async with place.running():
        busy, _ = await place.account("one"), await place.account("two")
        await place.send(busy, "private.test", 30)
        await trio.sleep(300)
        assert (await place.status_now())["history"] == []


async def test_with_one_account_there_is_nobody_to_hide(
    place: Running, autojump_clock: MockClock
) -> None:
    place.add("down.test", is_up=False)
    async with place.running():
        await place.send(await place.account("one"), "down.test", 19)
        await trio.sleep(300)
        assert (await place.status_now())["incidents"] == []
        await place.send((await engine_accounts(place))[0], "down.test", 1)
        await place.wait_for(lambda status: status["incidents"], 300)


async def engine_accounts(place: Running) -> Any:
    assert place.engine is not None
    return await place.engine.spool.accounts()


@pytest.mark.parametrize("rate_per_s", [0.02, 0.2])
async def test_a_site_that_throttles_for_many(
    place: Running, autojump_clock: MockClock, rate_per_s: float
) -> None:
    place.add("slow.test", Behaviour(rate_per_s=rate_per_s))
    async with place.running():
        for name in ("one", "two"):
            await place.send(await place.account(name), "slow.test", 60)
        status = await place.wait_for(lambda status: status["incidents"], 600)
        assert titles(status["incidents"]) == ["Delayed delivery to slow.test"]
        assert "a few mails at a time" in status["incidents"][0]["updates"][0]["text"]


@pytest.mark.slow
async def test_a_limit_of_our_own_is_no_incident(place: Running, autojump_clock: MockClock) -> None:
    place.add("ruled.test")
    place.rules = (Rule(destination=DomainPattern("ruled.test"), rate=Rate.parse("6/min")),)
    async with place.running():
        for name in ("one", "two"):
            await place.send(await place.account(name), "ruled.test", 60)
        await trio.sleep(600)
        assert (await place.status_now())["history"] == []


async def test_many_sites_at_once_are_our_own_trouble(
    place: Running, autojump_clock: MockClock
) -> None:
    for number in range(5):
        place.add(f"d{number}.test", is_up=False)
    async with place.running():
        for name in ("one", "two"):
            account = await place.account(name)
            for number in range(5):
                await place.send(account, f"d{number}.test", 12)
        status = await place.wait_for(lambda status: status["incidents"], 300)
        assert titles(status["incidents"]) == ["Many receivers cannot be reached"]
        assert status["indicator"] == "major"
        await trio.sleep(300)
        assert len((await place.status_now())["history"]) == 1


async def test_a_disk_that_fills_up(
    place: Running, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = DiskRoom(3 * GIB, GIB)
    async with place.running() as engine:
        statistics = engine.spool.spool_statistics
        monkeypatch.setattr(engine.spool, "disk_room", lambda: room)
        monkeypatch.setattr(
            engine.spool,
            "spool_statistics",
            lambda: replace(statistics(), intake_open=room.free_bytes >= room.low_water_bytes),
        )
        await trio.sleep(120)
        assert (await place.status_now())["history"] == []
        room = DiskRoom(2 * GIB - 1, GIB)
        status = await place.wait_for(lambda status: status["incidents"], 120)
        assert titles(status["incidents"]) == ["Storage is running low"]
        room = DiskRoom(GIB - 1, GIB)
        status = await place.wait_for(lambda status: len(status["incidents"]) == 2, 120)
        assert titles(status["incidents"])[0] == "No mail is accepted"
        assert status["indicator"] == "critical"
        levels = {each["id"]: each["status"] for each in status["components"]}
        assert levels["http_intake"] == levels["disk"] == "major_outage"
        assert levels["delivery"] == "operational"
        room = DiskRoom(3 * GIB, GIB)
        await place.wait_for(lambda status: not status["incidents"], 300)


async def test_an_incident_outlives_a_restart_and_is_resolved_after_it(
    place: Running, autojump_clock: MockClock
) -> None:
    receiver = place.add("down.test", is_up=False)
    async with place.running():
        await place.send(await place.account("one"), "down.test", 20)
        status = await place.wait_for(lambda status: status["incidents"], 300)
        incident_id = status["incidents"][0]["id"]
    place.receivers[place.address_of("down.test")] = receiver
    async with place.running():
        status = await place.status_now()
        assert [each["id"] for each in status["incidents"]] == [incident_id]
        began_s = trio.current_time()
        await place.wait_for(lambda status: not status["incidents"], 600)
        assert trio.current_time() - began_s >= RESOLVES_AFTER_MS / 1000


async def test_nobody_there_for_long_is_told_afterwards(
    place: Running, autojump_clock: MockClock
) -> None:
    async with place.running():
        await trio.sleep(100)
    await trio.sleep(60)
    async with place.running():
        await trio.sleep(10)
        assert (await place.status_now())["history"] == []
        await trio.sleep(100)
    await trio.sleep(3600)
    async with place.running():
        status = await place.wait_for(lambda status: status["history"], 10)
    [gap] = status["history"]
    assert (gap["title"], gap["impact"], gap["stage"]) == ("Interruption", "critical", "resolved")
    assert set(gap["components"]) == {"http_intake", "delivery", "stream"}
    assert status["indicator"] == "none"


@pytest.mark.slow
async def test_planned_work_begins_ends_and_explains_an_interruption(
    place: Running, autojump_clock: MockClock
) -> None:
    body = {
        "title": {"en": "Move", "de": "Umzug"},
        "text": {"en": "We move."},
        "from": "2026-11-24T09:40:00Z",
        "until": "2026-11-24T11:40:00Z",
        "components": {"delivery": ""},
    }
    async with place.running():
        answer = await place.ask("POST", "/v1/status/maintenances", body)
        assert answer.status == 201, answer.body
        assert [each["stage"] for each in (await place.status_now())["maintenances"]] == [
            "scheduled"
        ]
        status = await place.wait_for(
            lambda status: status["maintenances"][0]["stage"] == "in_progress", 620
        )
        assert status["indicator"] == "maintenance"
        await trio.sleep(60)
    await trio.sleep(3600)
    async with place.running():
        status = await place.wait_for(lambda status: not status["maintenances"], 3600)
        [work] = status["history"]
        assert work["stage"] == "completed"
        assert len(work["updates"]) == 3


class NameServers(DnsResolver):
    """A resolver whose name servers are a test's: silent, or saying no."""

    def __init__(self) -> None:
        super().__init__(["127.0.0.1:9"])
        self.answers = True
        self.probes = 0

    async def is_answering(self) -> bool:
        self.probes += 1
        await trio.lowlevel.checkpoint()
        return self.answers


async def test_dns_is_down_only_when_nothing_at_all_answers(
    place: Running, autojump_clock: MockClock
) -> None:
    servers = place.resolver = NameServers()
    async with place.running():
        # One domain's servers are silent, and the resolver with them; others are answered.
        for _ in range(40):
            servers.counts.unanswered += 1
            servers.counts.answered += 1
            await trio.sleep(5)
        # Only the silent one is asked for: the resolver itself answers all the same.
        for _ in range(40):
            servers.counts.unanswered += 1
            await trio.sleep(5)
        assert servers.probes
        status = await place.status_now()
        assert status["history"] == []
        servers.answers = False
        servers.counts.unanswered += 1
        status = await place.wait_for(lambda status: status["incidents"], 120)
        assert titles(status["incidents"]) == ["Name resolution (DNS) does not answer"]
        levels = {each["id"]: each["status"] for each in status["components"]}
        assert levels["dns"] == "major_outage"
        # Nobody asks any more, because everything backs off; it is found out all the same.
        servers.answers = True
        await place.wait_for(lambda status: not status["incidents"], 300)


async def test_the_probe_of_real_name_servers() -> None:
    async with trio.open_nursery() as nursery:
        server = DnsServer(Zones({"one.test": Records(a=("127.0.0.1",))}))
        await nursery.start(server.serve)
        resolver = DnsResolver([f"127.0.0.1:{server.port}"])
        assert await resolver.is_answering()
        await resolver.mail_hosts("nowhere.test")
        assert resolver.counts.unanswered == 0
        assert resolver.counts.answered > 1
        nursery.cancel_scope.cancel()
    silent = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    with silent:
        await silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        resolver = DnsResolver([f"127.0.0.1:{port}"], try_s=0.02, lifetime_s=0.05)
        assert not await resolver.is_answering()
        assert resolver.counts == AnswerCounts(0, 1)
    # Nobody listens there any more: refused is as good as silent.
    assert not await resolver.is_answering()
