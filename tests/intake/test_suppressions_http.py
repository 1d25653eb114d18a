"""`/v1/suppressions`: senders see, make and lift their own, and the send API says nothing of it."""

from typing import Any
from urllib.parse import quote

import pytest

from engine.spool.interface import AttemptResult, WindowPosition
from protocols.records import Reason, Status, Suppression


def mail_to(*addresses: str) -> dict[str, Any]:
    return {
        "Messages": [
            {
                "From": {"Email": "a@out.example"},
                "To": [{"Email": address} for address in addresses],
                "TextPart": "Hello",
            }
        ]
    }


async def ask(opened: Any, method: str, path: str = "", root: object = b"") -> Any:
    return await opened.post(root, path=f"/v1/suppressions{path}", method=method)


async def bounce(opened: Any, address: str) -> int:
    spool = opened.spool
    sent = await opened.post(mail_to(address))
    message_id: int = sent.json["Messages"][0]["To"][0]["MessageID"]
    domain = (await opened.envelopes())[-1].fixed.destination
    await spool.window(domain, WindowPosition(), 10, spool.now_unix_ms())
    result = AttemptResult(
        *(message_id, 1, Status.HARD_BOUNCED, spool.now_unix_ms()),
        reply="550 5.1.1 no such user",
        reason=Reason.UNKNOWN_USER,
    )
    await spool.settle([result])
    return message_id


@pytest.mark.parametrize(
    ("first", "later"),
    [
        ("gone@one.test", "gone@ONE.test"),
        ("gone@Bücher.test", "gone@xn--bcher-kva.test"),
        ("a/b+c@one.test", "a/b+c@one.test"),
    ],
)
async def test_mail_to_a_bounced_address_is_taken_and_blocked(
    door: Any, first: str, later: str
) -> None:
    async with door() as opened:
        message_id = await bounce(opened, first)
        [listed] = (await ask(opened, "GET")).json["suppressions"]
        assert (listed["reason"], listed["message_id"]) == ("hard_bounced", message_id)
        assert (listed["account"], listed["reply"]) == ("sender", "550 5.1.1 no such user")
        sent = await opened.post(mail_to(later, "here@one.test"))
        assert sent.status == 200
        [message] = sent.json["Messages"]
        assert message["Status"] == "success"
        assert [each["Email"] for each in message["To"]] == [later, "here@one.test"]
        blocked = (await opened.envelopes())[1]
        assert message["To"][0]["MessageID"] == blocked.fixed.envelope_id
        assert (blocked.state.status, blocked.state.reason) == (Status.BLOCKED, Reason.SUPPRESSED)
        found = await ask(opened, "GET", f"?address={quote(later, safe='')}")
        assert found.json == {"suppressions": [listed], "after": None}
        lifted = await ask(opened, "DELETE", f"/{quote(later, safe='')}")
        assert (lifted.status, lifted.body) == (204, b"")
        assert (await ask(opened, "DELETE", f"/{quote(later, safe='')}")).status == 404
        await opened.post(mail_to(later))
        assert (await opened.envelopes())[-1].state.status is Status.QUEUED


async def test_an_address_is_suppressed_by_hand(door: Any) -> None:
    async with door() as opened:
        made = await ask(
            opened, "POST", root={"address": "Ann@One.Test", "reason": "asked us to stop"}
        )
        assert made.status == 201
        shown = made.json
        assert (shown["address"], shown["until"]) == ("Ann@one.test", None)
        assert (shown["reason"], shown["reply"], shown["message_id"]) == (
            "asked us to stop",
            "",
            None,
        )
        limited = {"address": "bob@one.test", "until": "2999-01-01T00:00:00Z"}
        made = await ask(opened, "POST", root=limited)
        assert made.json["until"] == "2999-01-01T00:00:00.000Z"
        await opened.post(mail_to("Ann@one.test", "ann@one.test"))
        assert [each.state.status for each in await opened.envelopes()] == ["blocked", "queued"]


async def test_they_come_in_pages_and_only_ones_own(door: Any) -> None:
    async with door() as opened:
        for name in ("a", "b", "c"):
            await ask(opened, "POST", root={"address": f"{name}@one.test"})
        await opened.spool.suppress(77, Suppression("other@one.test", 1, 0))
        page = (await ask(opened, "GET", "?limit=2")).json
        assert [each["address"] for each in page["suppressions"]] == ["a@one.test", "b@one.test"]
        last = (await ask(opened, "GET", f"?limit=2&after={quote(page['after'])}")).json
        assert [each["address"] for each in last["suppressions"]] == ["c@one.test"]
        assert last["after"] is None
        assert (await ask(opened, "DELETE", "/other@one.test")).status == 404
        assert (await ask(opened, "GET", "?account=other")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "root", "where"),
    [
        ("POST", "", {"address": "Tom@@ one.test"}, "address"),
        ("POST", "", {"address": "a@one.test", "until": "tomorrow"}, "until"),
        ("POST", "", {"address": "a@one.test", "until": "2001-01-01T00:00:00Z"}, "until"),
        ("POST", "", {"address": "a@one.test", "reason": "x" * 501}, "reason"),
        ("POST", "", {"address": "a@one.test", "days": 3}, ""),
        ("GET", "?limit=0", b"", "limit"),
        ("GET", "?limit=1001", b"", "limit"),
        ("GET", f"?after={'x' * 481}", b"", "after"),
        ("GET", "?adress=a@one.test", b"", "adress"),
        ("GET", "?address=nobody", b"", "address"),
        ("DELETE", "/nobody", b"", "address"),
    ],
)
async def test_what_is_wrong_is_named(
    door: Any, method: str, path: str, root: object, where: str
) -> None:
    async with door() as opened:
        answer = await ask(opened, method, path, root)
        assert (answer.status, answer.json["error"]["where"]) == (400, where)
        assert await opened.spool.suppressions(opened.sender.account.account_id) == []
