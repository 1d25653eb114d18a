"""`kill -9` while servers have mail: which may arrive twice is listed, and nothing else is."""

import json
from pathlib import Path

import pytest

from tests.scenarios.scene import scene

pytestmark = pytest.mark.slow

DELIVERED = "to@d0.fast.test"
# Taken by a server that says nothing more, after the final dot and before it.
SENT = "to@d0.stall-dot.test"
BEGUN = "to@d0.stall-rcpt.test"


def test_what_may_be_delivered_twice_is_listed_after_the_crash(tmp_path: Path) -> None:
    with scene(tmp_path) as world:
        ids = world.send([DELIVERED, SENT, BEGUN])
        world.wait_for("what was taken", lambda: {DELIVERED, SENT} <= set(world.delivered()))
        world.wait_for("the commit", lambda: world.counts().get("delivered"))

        def is_in_flight() -> object:
            held = world.get(f"/v1/messages/{ids[BEGUN]}/explain")["held_by"]
            return held["code"] == "in_flight"

        world.wait_for("the one that was begun", is_in_flight)
        world.engine.kill()
        world.engine.start()
        world.engine.wait_until_ready()

        listed = world.get("/v1/events?reason=outcome_unknown")["events"]
        assert [each["address"] for each in listed] == [SENT]
        assert (listed[0]["status"], listed[0]["attempt"]) == ("deferred", 1)
        told = world.engine.run("events", "--reason", "outcome_unknown", "--json")
        assert [json.loads(line)["message_id"] for line in told.splitlines()] == [ids[SENT]]
        assert "1 mails may arrive twice" in world.written()
        # It is tried again at once, as it was before.
        world.wait_for("the second copy", lambda: world.delivered().count(SENT) == 2)
        # Its server would hold a stop in order for as long as one may.
        world.engine.kill()
