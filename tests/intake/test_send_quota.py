"""`POST /v3.1/send` beyond what a quota has room for: each message is answered for itself."""

from typing import Any

from engine.config import Config, Delivery, Plan
from engine.spool.account_calls import AccountChange
from protocols.records import Status
from tests.intake.examples import MESSAGE

# Room for today and sixty days.
CONFIG = Config(
    delivery=Delivery(ehlo_name="mail.out.example"),
    plans=(Plan(name="tiny", messages_per_day=1),),
)
ROOM = 61
# One message to so many takes nearly all of it.
MANY = [{"Email": f"m{number}@in.example"} for number in range(50)]


def message(*addresses: str) -> dict[str, Any]:
    return MESSAGE | {"To": [{"Email": address} for address in addresses]}


def outcomes(answer: Any) -> list[str]:
    return [each["Status"] for each in answer.json["Messages"]]


async def test_messages_without_room_are_refused_and_the_others_taken(door: Any) -> None:
    batch = {
        "Messages": [
            MESSAGE | {"To": MANY},
            # Twelve where eleven have room; one of them needs a server that the others do not.
            message(*(f"n{number}@in.example" for number in range(11)), "jörg@in.example"),
            message("tom@@in.example"),
            *(message(f"o{number}@in.example") for number in range(12)),
        ]
    }
    async with door(CONFIG, plan="tiny") as opened:
        answer = await opened.post(batch)
        taken = [each.fixed.address for each in await opened.envelopes()]
        more = await opened.post({"Messages": [message("late@in.example")]})
    assert answer.status == 400
    assert outcomes(answer) == ["success", "error", "error", *["success"] * 11, "error"]
    assert len(taken) == ROOM
    assert not any(each.startswith(("n", "j")) for each in taken)
    refused = answer.json["Messages"][1]["Errors"]
    assert [(each["ErrorCode"], each["StatusCode"]) for each in refused] == [("quota-0001", 403)]
    assert "(1 messages a day) leaves no room" in refused[0]["ErrorMessage"]
    last = answer.json["Messages"][-2]["To"][0]
    assert (last["Email"], last["MessageID"] > 0) == ("o10@in.example", True)
    assert (more.status, outcomes(more)) == (400, ["error"])


async def test_a_repeat_takes_what_was_refused_and_nothing_twice(door: Any) -> None:
    batch = {"Messages": [MESSAGE | {"To": MANY}, MESSAGE | {"To": MANY}, message("o@in.example")]}
    headers = {"Idempotency-Key": "k"}
    async with door(CONFIG, plan="tiny") as opened:
        first = await opened.post(batch, headers=headers)
        again = await opened.post(batch, headers=headers)
        [account] = [each for each in await opened.spool.accounts() if each.plan]
        await opened.spool.change_account(account.account_id, AccountChange(plan=""))
        third = await opened.post(batch, headers=headers)
        fourth = await opened.post(batch, headers=headers)
        envelopes = await opened.envelopes()
    assert outcomes(first) == outcomes(again) == ["success", "error", "success"]
    assert first.json["Messages"][0] == again.json["Messages"][0] == third.json["Messages"][0]
    assert third.json["Messages"][2] == first.json["Messages"][2]
    assert outcomes(third) == outcomes(fourth) == ["success"] * 3
    assert third.json["Messages"][1] == fourth.json["Messages"][1]
    assert len(envelopes) == 101
    assert {each.state.status for each in envelopes} <= {Status.QUEUED, Status.PAUSED}
