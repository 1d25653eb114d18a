"""The form and the links: what is refused, what nobody learns, and how much may be asked for."""

import itertools
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
import trio
from trio.testing import MockClock

from engine.http_server import Response
from engine.spool.interface import AcceptRequest, SpoolError, SpoolFull
from engine.spool.listing_calls import EnvelopeFilter
from engine.watch.status.bombing import DAY_MS, HOUR_MS, Answer, AskingLimits, network_of
from engine.watch.status.links import CONFIRM_MS, BadLink, Links, Wish
from engine.watch.status.subscribers import Frequency
from tests.watch.status.running import START_UNIX_MS, Running

FORM = (b"content-type", b"application/x-www-form-urlencoded")
WISH = Wish("ann@one.test", "de", Frequency.DAILY, START_UNIX_MS + CONFIRM_MS)
_names = itertools.count()


@pytest.fixture
def place(tmp_path: Path) -> Running:
    return Running(tmp_path, f"memory:status-asking-{next(_names)}")


async def ask(
    place: Running, address: str, *, peer: str = "192.0.2.1", query: str = "", **fields: str
) -> Response:
    body = urlencode({"address": address, **fields}).encode()
    target = f"/status/subscriptions{query}"
    return await place.ask("POST", target, body, headers=(FORM,), peer=peer)


async def mails_to(place: Running, address: str) -> int:
    assert place.engine is not None
    page = await place.engine.spool.find(EnvelopeFilter(address=address), None, 100)
    return len(page.envelopes)


async def test_the_answer_tells_nothing_of_who_is_subscribed(
    place: Running, autojump_clock: MockClock
) -> None:
    async with place.running():
        await place.subscribe(WISH)
        assert await place.subscribers() == ["ann@one.test"]
        known = await ask(place, "ann@one.test")
        unknown = await ask(place, "bob@one.test")
        again = await ask(place, "bob@one.test")
        assert known.status == unknown.status == again.status == 202
        assert known.body == unknown.body == again.body
        # The second time within the hour nothing is sent, and that is not told either.
        assert await mails_to(place, "ann@one.test") == 1
        assert await mails_to(place, "bob@one.test") == 1


@pytest.mark.parametrize(
    ("address", "fields", "status", "said"),
    [
        ("ann@@one.test", {}, 400, "At character 5"),
        ("", {}, 400, "At character 1"),
        ('"><script>@one.test', {}, 400, "At character"),
        ("ann@one.test\r\nBcc: x@two.test", {}, 400, "At character"),
        ("x" * 500 + "@one.test", {}, 400, "At character"),
        ("ann@one.test", {"frequency": "hourly"}, 400, "use the form"),
        ("ann@one.test", {"language": "fr"}, 400, "use the form"),
    ],
)
async def test_what_cannot_be_subscribed(
    place: Running,
    autojump_clock: MockClock,
    address: str,
    fields: dict[str, str],
    status: int,
    said: str,
) -> None:
    async with place.running() as engine:
        answer = await ask(place, address, **fields)
        assert answer.status == status
        page = answer.body.decode()
        assert said in page
        assert "<script" not in page
        assert not engine.spool.spool_statistics().envelopes_open
        assert await engine.spool.accounts() == []


async def test_faults_are_named_in_the_readers_language(
    place: Running, autojump_clock: MockClock
) -> None:
    async with place.running():
        page = (await ask(place, "ann@@one.test", query="?lang=de")).body.decode()
    assert "An Stelle 5:" in page
    assert 'value="ann@@one.test" aria-invalid="true"' in page


async def test_other_sites_and_other_bodies_are_refused(
    place: Running, autojump_clock: MockClock
) -> None:
    body = urlencode({"address": "ann@one.test"}).encode()
    path = "/status/subscriptions"
    async with place.running() as engine:
        foreign = await place.ask(
            "POST", path, body, headers=(FORM, (b"sec-fetch-site", b"cross-site"))
        )
        assert foreign.status == 403
        untyped = await place.ask("POST", path, body)
        assert untyped.status == 415
        rubbish = await place.ask("POST", path, b"address=%ff\xff", headers=(FORM,))
        assert rubbish.status == 400
        many = await place.ask("POST", path, b"&".join([b"a=1"] * 500), headers=(FORM,))
        assert many.status == 400
        assert await engine.spool.accounts() == []


async def test_the_first_may_come_together(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The account that their mails are sent by is made then."""
    place = Running(tmp_path, "lmdb:")
    statuses: list[int] = []

    async def one(number: int) -> None:
        statuses.append((await ask(place, f"r{number}@one.test")).status)

    async with place.running() as engine:
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(one, number)
        assert statuses == [202] * 4
        assert [account.name for account in await engine.spool.accounts()] == ["status"]


async def test_whoever_could_not_be_written_to_may_ask_again(
    place: Running, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.running() as engine:

        async def full(requests: list[AcceptRequest]) -> list[SpoolError]:
            return [SpoolFull("no room") for _ in requests]

        with monkeypatch.context() as patch:
            patch.setattr(engine.spool, "accept", full)
            assert (await ask(place, "ann@one.test")).status == 503
        assert (await ask(place, "ann@one.test")).status == 202
        assert await mails_to(place, "ann@one.test") == 1
        assert (await ask(place, "ann@one.test")).status == 202
        assert await mails_to(place, "ann@one.test") == 1


async def test_one_client_cannot_ask_for_many(place: Running, autojump_clock: MockClock) -> None:
    async with place.running():
        statuses = [(await ask(place, f"r{n}@one.test")).status for n in range(12)]
        assert statuses == [202] * 10 + [429] * 2
        refused = await ask(place, "r@one.test")
        assert dict(refused.headers)["retry-after"] == "3600"
        assert (await ask(place, "s@one.test", peer="192.0.2.2")).status == 202
        led = await place.ask("GET", "/status/subscriptions?lang=de")
        assert (led.status, dict(led.headers)["location"]) == (303, "/status?lang=de#subscribe")
        assert await mails_to(place, "r10@one.test") == 0


def test_one_mailbox_is_left_in_peace() -> None:
    now = START_UNIX_MS
    limits = AskingLimits(lambda: now)
    peers = (f"192.0.2.{number}" for number in itertools.count(1))
    sent = 0
    for _ in range(240):  # Ten times an hour for a day, from everywhere.
        sent += limits.ask("ann@one.test", next(peers)) is Answer.SEND
        now += HOUR_MS // 10
    assert sent == 4
    now += DAY_MS
    assert limits.ask("ann@one.test", "192.0.2.9") is Answer.SEND


def test_a_mailbox_with_many_addresses_is_one() -> None:
    limits = AskingLimits(lambda: START_UNIX_MS)
    answers = [limits.ask(f"ann+{n}@one.test", f"192.0.2.{n}") for n in range(5)]
    assert answers.count(Answer.SEND) == 1
    assert limits.ask("+ann@one.test", "192.0.2.9") is Answer.SEND
    assert limits.ask("ann@two.test", "192.0.2.9") is Answer.SEND


@pytest.mark.slow
def test_all_together_have_a_limit_and_little_is_remembered() -> None:
    now = START_UNIX_MS
    limits = AskingLimits(lambda: now)
    for hour in range(30):
        answers = [
            limits.ask(f"r{hour}-{n}@one.test", f"10.{hour}.{n >> 8}.{n & 255}") for n in range(600)
        ]
        expected = 300 if hour < 10 or hour >= 24 else 0
        assert answers.count(Answer.SEND) == expected, hour
        assert answers.count(Answer.REFUSE) == 600 - expected
        now += HOUR_MS
    assert len(limits._by_address) <= 6_600
    assert len(limits._by_client) <= 6_600


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
def test_what_one_client_is(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


async def test_links_that_are_not_ours(place: Running, autojump_clock: MockClock) -> None:
    async with place.running():
        links = place.links()
        good = urlsplit(links.confirmation(WISH)).query
        leaving = urlsplit(links.farewell("ann@one.test", "de")).query
        old = WISH.__class__("ann@one.test", "de", Frequency.DAILY, START_UNIX_MS - 1)
        bad = [
            "",
            "token=",
            "token=%ff",
            "token=a.b",
            f"{good}&{good}",
            good[:-1],
            good.replace("=", "=A", 1),
            leaving,
            urlsplit(Links(bytes(32), "").confirmation(WISH)).query,
            urlsplit(links.confirmation(old)).query,
            "token=" + "A" * 3_000,
        ]
        for method, query in itertools.product(("GET", "POST"), bad):
            path = "/status/subscriptions/confirm"
            assert (await place.ask(method, f"{path}?{query}")).status == 400, query
            if query != leaving:
                assert (await place.ask(method, f"/status/unsubscribe?{query}")).status == 400
        assert await place.subscribers() == []


def test_a_link_is_good_for_one_thing_and_one_time() -> None:
    links = Links(bytes(range(32)), "https://mail.example")
    token = links.confirmation(WISH).partition("token=")[2]
    assert links.wish_in(token, WISH.until_unix_ms) == WISH
    with pytest.raises(BadLink, match="too old"):
        links.wish_in(token, WISH.until_unix_ms + 1)
    with pytest.raises(BadLink, match="not signed"):
        links.farewell_in(token)
    leave = links.farewell("Änn@one.test", "en").partition("token=")[2]
    assert links.farewell_in(leave) == ("Änn@one.test", "en")
