"""An open stream ends when its account or its key does."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import websocket

from engine.http_server import Identity
from engine.spool.account_calls import AccountChange
from engine.watch.admittance import Admittance
from protocols.records import ApiKey
from tests.spool.harness import accept_many
from tests.watch.looking import API_KEY, Listener, Look


async def disable(look: Look) -> None:
    await look.spool.change_account(look.account.account_id, AccountChange(disabled=True))


async def rotate(look: Look) -> None:
    await look.spool.rotate_keys(new_key(look), 0)


async def let_the_old_key_end(look: Look) -> None:
    await look.spool.rotate_keys(new_key(look), look.clock.now + 1_000)
    look.clock.now += 1_000


def new_key(look: Look) -> ApiKey:
    return ApiKey("key-new", look.account.account_id, bytes(32), look.clock.now)


async def closing(listener: Listener) -> int:
    """The code of the close frame that comes next."""
    opcode, data = await trio.to_thread.run_sync(listener.client.recv_data)
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    return int.from_bytes(data[:2], "big")


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (disable, "account_suspended"),
        (rotate, "unauthorized"),
        (let_the_old_key_end, "unauthorized"),
    ],
)
async def test_an_open_stream_ends_with_its_account_or_key(
    look: Look, end: Callable[[Look], Awaitable[None]], code: str
) -> None:
    async with look.stream() as listener, look.stream(look.operator()) as operator:
        for each in (listener, operator):
            await each.say({"subscribe": {"after": "now"}})
            assert (await each.hear())["events"] == []
        await end(look)
        await accept_many(look.spool, look.account, 1)
        told = await listener.hear()
        assert set(told) == {"error"}
        assert told["error"]["code"] == code
        assert await closing(listener) == 1008
        assert len(await operator.hear_events(1)) == 1


async def test_a_board_ends_with_its_account(look: Look) -> None:
    async with look.stream() as listener:
        await listener.say({"watch": "totals"})
        assert (await listener.hear())["snapshot"]
        await disable(look)
        await accept_many(look.spool, look.account, 1)
        assert (await listener.hear())["error"]["code"] == "account_suspended"
        assert await closing(listener) == 1008


async def test_a_key_that_lives_on_for_a_while_keeps_its_stream(look: Look) -> None:
    async with look.stream() as listener:
        await listener.say({"subscribe": {"after": "now"}})
        await listener.hear()
        await look.spool.rotate_keys(new_key(look), look.clock.now + 1_000)
        await accept_many(look.spool, look.account, 1)
        assert len(await listener.hear_events(1)) == 1


async def test_a_change_of_another_account_is_looked_at_once(look: Look) -> None:
    admittance = Admittance(look.spool, Identity(look.account, api_key=API_KEY))
    assert not admittance.is_certain
    assert await admittance.dismissal() is None
    assert admittance.is_certain
    await look.spool.change_account(look.account.account_id, AccountChange(plan="free"))
    assert not admittance.is_certain
    assert await admittance.dismissal() is None
    assert admittance.is_certain


async def test_a_stream_that_is_silent_ends_too(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.watch.subscriber.PING_S", 0.01)
    async with look.stream() as listener:
        await disable(look)
        assert (await listener.hear())["error"]["code"] == "account_suspended"
        assert await closing(listener) == 1008
