"""`/v1/quota` at a real port: what is booked, what is paused until when, and whose it is."""

from pathlib import Path
from typing import Any

from engine.config import Config, Plan
from protocols.records import Status
from protocols.timestamps import time_text
from tests.intake.test_accounts_http import change, operate

CONFIG = Config(plans=(Plan(name="two", messages_per_day=2, messages_per_month=50),))


def mails(count: int) -> dict[str, Any]:
    one = {"From": {"Email": "me@out.example"}, "TextPart": "Hello"}
    return {"Messages": [{**one, "To": [{"Email": f"r{n}@one.test"}]} for n in range(count)]}


async def test_a_sender_sees_what_is_booked_and_when_the_rest_goes(door: Any) -> None:
    async with door(CONFIG, plan="two") as opened:
        before = (await opened.post({}, path="/v1/quota", method="GET")).json
        assert (before["account"], before["plan"], before["time_zone"]) == ("sender", "two", "UTC")
        assert (before["messages_per_day"], before["messages_per_month"]) == (2, 50)
        assert (before["booked_today"], before["paused"]) == (0, 0)
        assert (before["next_release_at"], before["last_release_at"]) == (None, None)
        assert (await opened.post(mails(5))).status == 200
        after = (await opened.post({}, path="/v1/quota", method="GET")).json
        assert (after["booked_today"], after["paused"]) == (2, 3)
        assert after["next_release_at"] == after["day_ends_at"]
        paused = [
            envelope.state.due_unix_ms
            for envelope in await opened.envelopes()
            if envelope.state.status is Status.PAUSED
        ]
        assert len(paused) == 3
        released = [time_text(each) for each in paused]
        assert (after["next_release_at"], after["last_release_at"]) == (released[0], released[-1])


async def test_an_operator_says_whose_and_an_account_sees_its_own(
    door: Any, tmp_path: Path
) -> None:
    control = tmp_path / "control.sock"
    async with door(CONFIG, plan="two", control=control) as opened:
        await operate(control, "POST", {"account": "shop"})
        await opened.post(mails(3))
        path = "/v1/quota"
        assert (await operate(control, "GET", path=path))[0] == 400
        assert (await operate(control, "GET", path=f"{path}?account=nobody"))[0] == 404
        status, shop = await operate(control, "GET", path=f"{path}?account=shop")
        assert (status, shop["plan"], shop["messages_per_day"]) == (200, None, None)
        _, seen = await operate(control, "GET", path=f"{path}?account=sender")
        assert (seen["booked_today"], seen["paused"]) == (2, 1)
        other = await opened.post({}, path=f"{path}?account=shop", method="GET")
        assert other.status == 404
        odd = await opened.post({}, path=f"{path}?day=1", method="GET")
        assert (odd.status, odd.json["error"]["where"]) == (400, "day")
        status, changed = await change(control, "sender/plan", {"plan": None})
        assert (status, changed["rebooked"]) == (200, 1)
        _, seen = await operate(control, "GET", path=f"{path}?account=sender")
        assert (seen["plan"], seen["booked_today"], seen["paused"]) == (None, 3, 0)
