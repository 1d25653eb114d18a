"""`/v1/accounts`: operators make and list accounts; nobody else does."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.http_server import unix_socket_address


async def operate(control: Path, method: str, root: object = None) -> tuple[int, Any]:
    """Ask the control socket; return status and JSON."""
    body = b"" if root is None else root if isinstance(root, bytes) else json.dumps(root).encode()
    with unix_socket_address(control) as address:
        stream = await trio.open_unix_socket(address)
    async with stream:
        await stream.send_all(
            f"{method} /v1/accounts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head, _, answer = b"".join([piece async for piece in stream]).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(answer)


async def test_an_operator_makes_an_account_that_can_send(door: Any, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    async with door(control=control) as opened:
        status, made = await operate(control, "POST", {"account": "shop", "plan": "free"})
        assert status == 201
        assert (made["account"], made["plan"]) == ("shop", "free")
        key = await opened.spool.api_key(made["api_key"])
        assert key is not None
        assert key[1].name == "shop"
        status, listing = await operate(control, "GET")
    assert status == 200
    assert listing["after"] is None
    assert [(row["account"], row["plan"]) for row in listing["accounts"]] == [
        ("sender", None),
        ("shop", "free"),
    ]
    assert made["secret_key"] not in json.dumps(listing)
    assert all(row["created_at"].endswith("Z") for row in listing["accounts"])


@pytest.mark.parametrize(
    ("root", "status", "code"),
    [
        ({"account": "sender"}, 409, "account_exists"),
        ({"account": "a\nb"}, 400, "account_refused"),
        ({"account": "shop", "plan": "none"}, 400, "account_refused"),
        ({"plan": "free"}, 400, "bad_request"),
        ({"account": 7}, 400, "bad_request"),
        ({"account": "shop", "disabled": True}, 400, "bad_request"),
        (b"{", 400, "bad_request"),
        (b'"\xff"', 400, "bad_request"),
    ],
)
async def test_a_refusal_says_why_and_makes_nothing(
    door: Any, tmp_path: Path, root: object, status: int, code: str
) -> None:
    control = tmp_path / "control.sock"
    async with door(control=control) as opened:
        found, answer = await operate(control, "POST", root)
        accounts = await opened.spool.accounts()
    assert (found, answer["error"]["code"]) == (status, code)
    assert answer["error"]["message"]
    assert len(accounts) == 1


async def test_an_accounts_own_key_opens_nothing_here(door: Any) -> None:
    async with door() as opened:
        answer = await opened.post({"account": "shop"}, path="/v1/accounts")
        assert answer.status == 403
        assert len(await opened.spool.accounts()) == 1
