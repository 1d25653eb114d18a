"""Mail that has become too old ends within five seconds, whatever holds it.

Each case is held by something else, and each would be looked at again only in an hour.
"""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from engine.rehearsal.engine_process import free_port
from tests.scenarios.scene import Scene, scene

pytestmark = pytest.mark.slow

AGE_MAX_S = 2.0
WITHIN_S = 5.0
# Two connections at first, and a mail on its way behind the first one.
TOLD_MAX = 4
# Until the answer to a question is here, and the machine has time for us.
SLACK_S = 5.0


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    toml = f"""
    [delivery]
    retry_s = [3600]
    greylist_retry_s = [3600]
    max_age_s = {AGE_MAX_S}
    [[rule]]
    destination = "slow.fast.test"
    rate = "1/h"
    [[route]]
    domain = "dead.test"
    next_hop = "127.0.0.1:{free_port()}"
    """
    with scene(tmp_path_factory.mktemp("engine"), toml) as made:
        yield made
        # An end in order would wait for those who never answer; that is not what is asked here.
        made.engine.kill()


@pytest.fixture
def held(engine: Scene, request: pytest.FixtureRequest) -> Scene:
    """The engine, seen by an account of this test's own."""
    engine.receivers.taken()
    account = engine.engine.create_account(request.node.name)
    return Scene(engine.engine, engine.receivers, account)


def lasted_s(message: dict[str, Any]) -> float:
    """Return how long after its acceptance a message came to its end, as its own story says."""
    ended_at = message["history"][-1]["at"]
    return (at(ended_at) - at(message["accepted_at"])).total_seconds()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def ends_expired(held: Scene, ids: dict[str, int]) -> dict[str, dict[str, Any]]:
    began = time.monotonic()
    held.wait_until_final(AGE_MAX_S + WITHIN_S + SLACK_S)
    assert time.monotonic() - began < AGE_MAX_S + WITHIN_S + SLACK_S
    found = {address: held.message(message_id) for address, message_id in ids.items()}
    for address, message in found.items():
        assert (message["status"], message["reason"]) == ("soft_bounced", "expired"), address
        assert AGE_MAX_S <= lasted_s(message) <= AGE_MAX_S + WITHIN_S, address
        assert [each["status"] for each in message["history"]].count("soft_bounced") == 1
    return found


def test_behind_a_destination_that_cannot_be_reached(held: Scene) -> None:
    ids = held.send([f"to{number}@dead.test" for number in range(30)])
    for address, message in ends_expired(held, ids).items():
        assert "refused" in message["reply"], f"{address}: the destination's last reply"
        assert message["attempts"] == 0


def test_deferred_by_a_reply_of_its_own(held: Scene) -> None:
    ids = held.send(["451-after-rcpt+a@d0.fast.test", "452-after-data+b@d1.fast.test"])
    found = ends_expired(held, ids)
    assert found["451-after-rcpt+a@d0.fast.test"]["reply"].startswith("451 ")
    assert found["452-after-data+b@d1.fast.test"]["reply"].startswith("452 ")
    assert held.delivered() == []


def test_behind_a_throttle(held: Scene) -> None:
    ids = held.send([f"to{number}@slow.fast.test" for number in range(20)])
    held.wait_for("the one that the rate allows", held.delivered)
    gone = held.delivered()
    ends_expired(held, {address: ids[address] for address in ids.keys() - set(gone)})
    assert len(held.delivered()) == 1


def test_while_the_engine_was_stopped(held: Scene) -> None:
    ids = held.send(["to@dead.test"])
    held.wait_for(
        "a reply", lambda: all(held.message(message_id)["reply"] for message_id in ids.values())
    )
    assert held.engine.stop() == 0
    deadline = time.monotonic() + AGE_MAX_S
    while time.monotonic() < deadline:
        time.sleep(0.1)
    held.engine.start()
    held.engine.wait_until_ready()
    held.wait_until_final(WITHIN_S + SLACK_S)
    (message,) = (held.message(message_id) for message_id in ids.values())
    assert (message["status"], message["reason"]) == ("soft_bounced", "expired")
    assert "refused" in message["reply"]


def test_behind_mail_that_a_server_does_not_answer(held: Scene) -> None:
    """What a silent server was told of is its own; what waits behind that may not wait on."""
    ids = held.send([f"to{number}@d0.stall-rcpt.test" for number in range(300)])

    def expired() -> int:
        return held.counts().get("soft_bounced", 0)

    waiting = len(ids) - TOLD_MAX
    held.wait_for(
        "the end of what waits", lambda: expired() >= waiting, AGE_MAX_S + WITHIN_S + SLACK_S
    )
    assert held.delivered() == []
    assert sum(held.counts().values()) == len(ids)
