"""The free plan over its days, at the outside faces of a real engine whose wall clock is moved."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from engine.rehearsal.engine_process import Credentials
from tests.scenarios.scene import Scene, mails, scene
from tests.scenarios.stepping_clock import SteppingClock

pytestmark = pytest.mark.slow

BERLIN = ZoneInfo("Europe/Berlin")
UTC = ZoneInfo("UTC")
# Of a week whose days are all 24 hours long there.
MONDAY = datetime(2031, 2, 3, tzinfo=BERLIN)
TWO = '[[plan]]\nname = "two"\nmessages_per_day = 2\n'


@pytest.fixture
def clock(tmp_path: Path) -> SteppingClock:
    return SteppingClock(tmp_path / "clock")


@pytest.fixture
def sender(tmp_path: Path, clock: SteppingClock) -> Iterator[Scene]:
    clock_is(clock, MONDAY + timedelta(hours=10))
    with scene(tmp_path, TWO, command=clock.command()) as made:
        yield made


def clock_is(clock: SteppingClock, at: datetime) -> None:
    clock.step(round((at.timestamp() - time.time()) * 1000))


def account(sender: Scene, *arguments: str) -> Any:
    return json.loads(sender.engine.run("account", *arguments, "--json"))


def in_berlin(sender: Scene, plan: str) -> None:
    """Go on as an account with a plan whose days are those of Berlin."""
    made = account(sender, "create", "berlin", "--plan", plan, "--time-zone", "Europe/Berlin")
    sender.credentials = Credentials("berlin", made["api_key"], made["secret_key"])


def wait_for_counts(sender: Scene, **counts: int) -> None:
    expected = {name: count for name, count in counts.items() if count}
    sender.wait_for(str(expected), lambda: sender.counts() == expected)


def time_text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def test_a_thousand_parallel_requests_are_five_days_of_two_hundred(
    sender: Scene, clock: SteppingClock
) -> None:
    in_berlin(sender, "free")
    addresses = [f"u{number}@d{number % 7}.fast.test" for number in range(1000)]

    def send(address: str) -> int:
        status, answer = sender.post(mails([address]))
        assert status == 200, answer
        return int(answer["Messages"][0]["To"][0]["MessageID"])

    with ThreadPoolExecutor(100) as pool:
        ids = dict(zip(pool.map(send, addresses), addresses, strict=True))
    order = [ids[each] for each in sorted(ids)]
    for day in range(5):
        if day == 3:
            # What is paused outlives a death, and its release one that came too late for it.
            sender.engine.kill()
        if day:
            clock_is(clock, MONDAY + timedelta(days=day, seconds=1))
        if day == 3:
            sender.engine.start()
            sender.engine.wait_until_ready()
        so_far = 200 * (day + 1)
        wait_for_counts(sender, delivered=so_far, paused=1000 - so_far)
        # The receivers are hit by many connections at once: each day's mails in any order.
        assert sorted(sender.delivered()) == sorted(order[:so_far]), "each once"


def test_paused_mail_says_when_it_goes_and_goes_then(sender: Scene, clock: SteppingClock) -> None:
    in_berlin(sender, "two")
    addresses = [f"u{number}@one.fast.test" for number in range(7)]
    ids = list(sender.send(addresses).values())
    wait_for_counts(sender, delivered=2, paused=5)
    for number, message_id in enumerate(ids[2:], 2):
        message = sender.message(message_id)
        release = time_text(MONDAY + timedelta(days=number // 2))
        assert (message["status"], message["reason"]) == ("paused", "quota")
        assert message["next_attempt_at"] == release
        why = sender.get(f"/v1/messages/{message_id}/explain")
        assert (why["held_by"]["code"], why["next_attempt_at"]) == ("quota", release)
        # From its release on it has the three days that any mail has.
        assert message["expires_at"] == time_text(MONDAY + timedelta(days=number // 2 + 3))
    told = sender.get("/v1/events?after=start&status=paused")["events"]
    assert [each["message_id"] for each in told] == ids[2:]
    assert told[0]["next_attempt_at"] == time_text(MONDAY + timedelta(days=1))

    clock_is(clock, MONDAY + timedelta(days=1, seconds=-20))
    assert sender.counts() == {"delivered": 2, "paused": 5}
    clock_is(clock, MONDAY + timedelta(days=1))
    wait_for_counts(sender, delivered=4, paused=3)
    story = [each["status"] for each in sender.message(ids[2])["history"]]
    assert story == ["paused", "queued", "delivered"]

    stands = account(sender, "quota", "berlin")
    assert (stands["booked_today"], stands["messages_per_day"], stands["paused"]) == (2, 2, 3)
    assert stands["next_release_at"] == stands["day_ends_at"]
    assert stands["last_release_at"] == time_text(MONDAY + timedelta(days=3))
    assert sender.get("/v1/quota") == stands
    changed = account(sender, "plan", "berlin", "free")
    assert changed["rebooked"] == 3
    assert sender.wait_until_final() == {"delivered": 7}
    assert sorted(sender.delivered()) == sorted(addresses)


def test_a_disabled_account_hands_in_nothing_and_its_mail_goes_on(
    sender: Scene, clock: SteppingClock
) -> None:
    in_berlin(sender, "two")
    sender.send([f"u{number}@one.fast.test" for number in range(3)])
    wait_for_counts(sender, delivered=2, paused=1)
    account(sender, "disable", "berlin")
    status, answer = sender.post(mails(["late@one.fast.test"]))
    assert (status, answer["ErrorCode"]) == (401, "mj-0001")
    clock_is(clock, MONDAY + timedelta(days=1, seconds=1))
    account(sender, "enable", "berlin")
    assert sender.wait_until_final() == {"delivered": 3}


def test_an_unknown_user_is_written_to_once(sender: Scene) -> None:
    gone = "551-after-rcpt+gone@one.fast.test"
    [first] = sender.send([gone]).values()
    assert sender.wait_until_final() == {"hard_bounced": 1}
    [second] = sender.send([gone]).values()
    message = sender.message(second)
    assert (message["status"], message["reason"], message["attempts"]) == (
        "blocked",
        "suppressed",
        0,
    )
    assert message["next_attempt_at"] is None
    assert message["finished_at"] == message["accepted_at"]
    assert [each["status"] for each in message["history"]] == ["blocked"]
    listed = sender.get("/v1/suppressions")["suppressions"]
    assert [(each["address"], each["message_id"]) for each in listed] == [(gone, first)]
    sender.engine.run("account", "suppressions", "shop", "--lift", gone)
    sender.send([gone])
    assert sender.wait_until_final() == {"hard_bounced": 2, "blocked": 1}
