"""Who may open the stream, and that nothing a stranger sends to its door ends the engine."""

import random
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trustme
import websocket

from engine.config import Config, Http
from engine.spool.account_calls import AccountChange
from engine.watch import stream
from engine.watch.stream import SUBSCRIBERS_MAX
from tests.spool.harness import Harness, accept_many
from tests.watch.looking import Look, looking, make_account

NOBODY = ("", "")


async def refusal(look: Look, *arguments: Any, **options: Any) -> int:
    """The status that a handshake is refused with."""
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        async with look.stream(*arguments, **options):
            pass
    return int(refused.value.status_code)


async def ticket(look: Look, who: str | tuple[str, str] = "acme") -> str:
    response = await look.ask("POST", "/v1/stream/tickets", who)
    assert response.status_code == 200
    assert set(response.json()) == {"ticket", "expires_at"}
    return str(response.json()["ticket"])


async def test_credentials_or_a_ticket(look: Look) -> None:
    assert await refusal(look, NOBODY) == 401
    assert await refusal(look, ("key-acme", "wrong")) == 401
    assert await refusal(look, NOBODY, query="?ticket=guessed") == 401
    # Wrong credentials are not mended by a good ticket.
    assert await refusal(look, ("key-acme", "wrong"), query=f"?ticket={await ticket(look)}") == 401
    assert (await look.ask("POST", "/v1/stream/tickets", NOBODY)).status_code == 401


async def test_a_ticket_of_an_account_that_was_disabled_opens_nothing(look: Look) -> None:
    bought = await ticket(look)
    await look.spool.change_account(look.account.account_id, AccountChange(disabled=True))
    assert await refusal(look, NOBODY, query=f"?ticket={bought}") == 401


async def test_a_ticket_serves_once_and_shows_its_owners_mail(look: Look) -> None:
    other = await make_account(look.spool, "other")
    await accept_many(look.spool, look.account, 2)
    await accept_many(look.spool, other, 1)
    query = f"?ticket={await ticket(look, 'other')}"
    async with look.stream(NOBODY, query=query) as listener:
        await listener.say({"subscribe": {"after": "start"}})
        [event] = await listener.hear_events(1)
        assert event["account"] == "other"
    assert await refusal(look, NOBODY, query=query) == 401


async def test_a_ticket_lives_for_a_minute(look: Look) -> None:
    fresh, stale = await ticket(look), await ticket(look)
    look.clock.now += 59_999
    async with look.stream(NOBODY, query=f"?ticket={fresh}"):
        pass
    look.clock.now += 1
    assert await refusal(look, NOBODY, query=f"?ticket={stale}") == 401


@pytest.mark.parametrize(
    ("origin", "is_admitted"),
    [
        ("http://127.0.0.1:{port}", True),
        ("https://mail.out.example", True),
        ("http://mail.out.example", False),
        ("https://mail.out.example:8443", False),
        ("https://mail.out.example.evil.test", False),
        ("http://evil.test", False),
        ("http://127.0.0.1:1", False),
        ("null", False),
        ("http://[", False),
    ],
)
async def test_pages_of_other_origins_are_refused_before_the_upgrade(
    tmp_path: Path, origin: str, is_admitted: bool
) -> None:
    config = Config(http=Http(public_url="https://mail.out.example/"))
    async with looking(Harness("memory", tmp_path), config=config) as look:
        options = {"origin": origin.format(port=look.port)}
        if is_admitted:
            async with look.stream(**options):
                pass
        else:
            assert await refusal(look, **options) == 403
            # A foreign page does not get to use up a ticket either.
            good = await ticket(look)
            assert await refusal(look, NOBODY, query=f"?ticket={good}", **options) == 403
            async with look.stream(NOBODY, query=f"?ticket={good}"):
                pass


async def test_without_an_upgrade_it_says_what_it_is(look: Look) -> None:
    response = await look.get("/v1/stream")
    assert response.status_code == 426
    assert response.headers["Upgrade"] == "websocket"


async def test_places_are_counted(look: Look) -> None:
    async with look.stream(), look.stream():
        assert look.watch.hub.subscribers == 2
    while look.watch.hub.subscribers:
        await trio.lowlevel.checkpoint()


async def test_when_all_places_are_taken_a_client_is_told_to_come_back(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with look.stream() as listener:
        monkeypatch.setattr(look.watch.hub, "subscribers", SUBSCRIBERS_MAX)
        assert await refusal(look) == 503
        assert look.server.statistics().failures == 0  # Nothing broke: it is no incident.
        await listener.say({"subscribe": {"after": "now"}})
        assert (await listener.hear())["events"] == []


async def test_one_account_leaves_places_for_others(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "ACCOUNT_SHARE", SUBSCRIBERS_MAX)
    await make_account(look.spool, "other")
    async with look.stream():
        assert await refusal(look) == 429
        async with look.stream("other"):
            assert look.watch.hub.subscribers == 2
    while look.watch.hub.subscribers:
        await trio.lowlevel.checkpoint()
    async with look.stream():
        pass


async def test_a_cookie_is_no_authority(look: Look) -> None:
    pair = "a2V5LWFjbWU6YSBzZWNyZXQ="
    assert await refusal(look, NOBODY, cookie=f"authorization=Basic {pair}; ticket=x") == 401


@pytest.mark.slow
async def test_the_stream_over_tls(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    trust = {"ca_certs": str(tmp_path / "ca.pem")}
    async with (
        looking(Harness("memory", tmp_path), certificate=tmp_path / "own.pem") as look,
        look.stream(sslopt=trust) as listener,
    ):
        await listener.say({"subscribe": {"after": "now"}})
        await listener.hear()
        for _ in range(5):
            await accept_many(look.spool, look.account, 2_000)
        assert len(await listener.hear_to(10_000)) == 10_000


def handshake(authorization: bytes) -> bytes:
    return (
        b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: eilpost.v1+json\r\n"
        b"Authorization: " + authorization + b"\r\n\r\n"
    )


def mutated(rng: random.Random, octets: bytes) -> bytes:
    """Spoil a handshake in one to four places, and perhaps send frames behind it."""
    data = bytearray(octets)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[place] = rng.randrange(256)
            case 1:
                data[place:place] = bytes([rng.randrange(128, 256)])
            case 2:
                del data[place : place + rng.randint(1, 6)]
            case 3:
                data[place:place] = rng.choice([b",", b"\r\n", b"\x00", b": ", b"websocket", b"\n"])
            case _:
                line = rng.choice(
                    [
                        b"Host: \xff\xfe\r\n",
                        b"Upgrade: h2c\r\n",
                        b"Sec-WebSocket-Key: \xe4\r\n",
                        b"Sec-WebSocket-Extensions: permessage-deflate; x=\r\n",
                        b"Connection: keep-alive, \xc3\xa4\r\n",
                        b"Content-Length: 3\r\n",
                        b"Sec-WebSocket-Version: 8\r\n",
                        b"Transfer-Encoding: chunked\r\n",
                    ]
                )
                data[data.find(b"\r\n") + 2 : data.find(b"\r\n") + 2] = line
    if rng.random() < 0.5:
        data += rng.randbytes(rng.randint(1, 40))
    return bytes(data)


@pytest.mark.slow
async def test_two_thousand_spoilt_handshakes_do_not_end_the_engine(look: Look) -> None:
    rng = random.Random(20261124)
    good = handshake(b"Basic a2V5LWFjbWU6YSBzZWNyZXQ=")
    statuses: dict[bytes, int] = {}
    limit = trio.CapacityLimiter(20)

    async def knock(octets: bytes, is_rude: bool) -> None:
        async with limit:
            stream = await trio.open_tcp_stream("127.0.0.1", look.port)
            try:
                await stream.send_all(octets)
                if is_rude:
                    return
                with trio.move_on_after(5):
                    await stream.send_eof()
                    answer = await stream.receive_some()
                    statuses[answer[9:12]] = statuses.get(answer[9:12], 0) + 1
            except trio.BrokenResourceError:
                pass
            finally:
                await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        for number in range(2_000):
            octets = good + rng.randbytes(9) if number % 10 == 0 else mutated(rng, good)
            nursery.start_soon(knock, octets, rng.random() < 0.3)
    # Both doors were really knocked at: some came in, many were refused.
    assert statuses[b"101"] > 50
    assert statuses[b"400"] > 200
    async with look.stream() as listener:
        await listener.say({"subscribe": {"after": "now"}})
        await listener.hear()


@pytest.mark.parametrize(
    "header",
    [
        b"Host: caf\xe9",
        b"Connection: Upgrade, \xff",
        b"Sec-WebSocket-Protocol: \xc3\xa4",
        b"X-Anything: \x80",
    ],
)
async def test_octets_beyond_ascii_are_refused(look: Look, header: bytes) -> None:
    good = handshake(b"Basic a2V5LWFjbWU6YSBzZWNyZXQ=")
    name = header.partition(b":")[0]
    lines = [line for line in good.split(b"\r\n") if not line.startswith(name + b":")]
    octets = b"\r\n".join([lines[0], header, *lines[1:]])
    stream = await trio.open_tcp_stream("127.0.0.1", look.port)
    async with stream:
        await stream.send_all(octets)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 400 ")


async def test_a_client_gone_right_after_its_handshake_is_nobodys_trouble(look: Look) -> None:
    good = handshake(b"Basic a2V5LWFjbWU6YSBzZWNyZXQ=")
    async with look.stream() as neighbour:
        for _ in range(10):
            stream = await trio.open_tcp_stream("127.0.0.1", look.port)
            # A reserved opcode, and then a reset instead of an end.
            await stream.send_all(good + b"\x83\x80abcd")
            stream.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            await trio.aclose_forcefully(stream)
        await neighbour.say({"subscribe": {"after": "now"}})
        assert (await neighbour.hear())["events"] == []


@pytest.mark.slow
async def test_a_message_of_endless_empty_fragments_is_cut_off(look: Look) -> None:
    good = handshake(b"Basic a2V5LWFjbWU6YSBzZWNyZXQ=")
    begin, empty = b"\x01\x81\x00\x00\x00\x00{", b"\x00\x80\x00\x00\x00\x00"
    stream = await trio.open_tcp_stream("127.0.0.1", look.port)
    async with stream, look.stream() as neighbour:
        await stream.send_all(good)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        await stream.send_all(begin)
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(empty * 4_000_000)
        await neighbour.say({"subscribe": {"after": "now"}})
        assert (await neighbour.hear())["events"] == []
