"""`/v1/accounts`: operators make, list and change accounts; nobody else does."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio

from engine.config import Config, Plan
from engine.http_server import unix_socket_address
from engine.intake.accounts import NewAccount

ONE_MAIL = {
    "Messages": [
        {
            "From": {"Email": "a@out.example"},
            "To": [{"Email": "b@one.test"}],
            "TextPart": "Hello",
        }
    ]
}


async def operate(
    control: Path, method: str, root: object = None, path: str = "/v1/accounts"
) -> tuple[int, Any]:
    """Ask the control socket; return status and JSON."""
    body = b"" if root is None else root if isinstance(root, bytes) else json.dumps(root).encode()
    with unix_socket_address(control) as address:
        stream = await trio.open_unix_socket(address)
    async with stream:
        await stream.send_all(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
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
        ({"account": "shop", "time_zone": "Mars/Olympus"}, 400, "account_refused"),
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


async def change(control: Path, what: str, root: object = None) -> tuple[int, Any]:
    return await operate(control, "POST", root, f"/v1/accounts/{what}")


async def test_a_disabled_account_is_refused_from_that_moment_on(door: Any, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    async with door(control=control) as opened:
        assert (await opened.post(ONE_MAIL)).status == 200
        status, shown = await change(control, "sender/disable")
        assert (status, shown["disabled"]) == (200, True)
        refused = await opened.post(ONE_MAIL)
        assert (refused.status, refused.json["ErrorCode"]) == (401, "mj-0001")
        assert refused.headers["www-authenticate"].startswith("Basic")
        # Whoever has not the secret is told nothing of the account.
        wrong = await opened.post(ONE_MAIL, secret="wrong")
        assert (wrong.status, "ErrorCode" in wrong.json) == (401, False)
        other = await opened.post({"addresses": []}, path="/v1/check")
        assert (other.status, other.json["error"]["code"]) == (401, "account_suspended")
        assert (await change(control, "sender/enable"))[1]["disabled"] is False
        assert (await opened.post(ONE_MAIL)).status == 200
        assert len(await opened.envelopes()) == 2


async def test_new_keys_end_the_old_ones(door: Any, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    async with door(control=control) as opened:
        assert (await opened.post(ONE_MAIL)).status == 200
        status, kept = await change(control, "sender/keys", {"keep_old_for_s": 3600})
        assert (status, kept["account"]) == (201, "sender")
        assert (await opened.post(ONE_MAIL)).status == 200
        _, shown = await operate(control, "GET", path="/v1/accounts/sender")
        ends = [(key["api_key"], key["ends_at"]) for key in shown["keys"]]
        assert ends == [
            (opened.sender.api_key, kept["old_keys_end_at"]),
            (kept["api_key"], None),
        ]
        status, last = await change(control, "sender/keys")
        assert last["old_keys_end_at"] is None
        assert (await opened.post(ONE_MAIL)).status == 401
        for made, expected in ((kept, 401), (last, 200)):
            opened.sender = NewAccount(opened.sender.account, made["api_key"], made["secret_key"])
            assert (await opened.post(ONE_MAIL)).status == expected
        status, shown = await operate(control, "GET", path="/v1/accounts/sender")
        assert (status, shown["api_keys"]) == (200, [last["api_key"]])
        assert (await change(control, "sender/keys", {"keep_old_for_s": -1}))[0] == 400


async def test_a_plan_counts_for_new_mail_and_a_wider_one_at_once(
    door: Any, tmp_path: Path
) -> None:
    control = tmp_path / "control.sock"
    async with door(Config(plans=(Plan(name="one", messages_per_day=1),)), control=control) as it:
        assert (await it.post(ONE_MAIL)).status == 200
        status, shown = await change(control, "sender/plan", {"plan": "one"})
        assert (status, shown["plan"]) == (200, "one")
        await it.post(ONE_MAIL)
        assert [each.state.status for each in await it.envelopes()] == ["queued", "paused"]
        status, refused = await change(control, "sender/plan", {"plan": "large"})
        assert (status, refused["error"]["code"]) == (400, "account_refused")
        assert "free, one" in refused["error"]["message"]
        status, shown = await change(control, "sender/plan", {"plan": None})
        assert (status, shown["plan"], shown["rebooked"]) == (200, None, 1)
        assert [each.state.status for each in await it.envelopes()] == ["queued", "queued"]
        assert (await change(control, "nobody/plan", {"plan": None}))[0] == 404


async def test_names_of_all_kinds_have_a_path(door: Any, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    async with door(control=control):
        made = {"account": "Größe a/b ☀", "time_zone": "Europe/Berlin"}
        assert (await operate(control, "POST", made))[0] == 201
        path = f"/v1/accounts/{quote(made['account'], safe='')}"
        status, shown = await operate(control, "GET", path=path)
        assert (status, shown["account"], shown["time_zone"]) == (200, *made.values())
