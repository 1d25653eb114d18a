"""The help page, sentence by sentence: quotas, throttling, and whom to ask."""

import json
import tarfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.article.provider import CONTACT, SETTINGS, Provider, provider
from tests.scenarios.stepping_clock import SteppingClock

MORNING = datetime(2031, 2, 3, 9, tzinfo=UTC)
MIDNIGHT = datetime(2031, 2, 4, tzinfo=UTC)
RATE_PER_S, BURST = 20, 5
RULE = f"""
[[rule]]
destination = "big.test"
rate = "{RATE_PER_S}/s, burst {BURST}"
"""


def clock_at(clock: SteppingClock, at: datetime) -> None:
    clock.step(round((at.timestamp() - time.time()) * 1000))


def test_the_free_plan_sends_200_a_day_and_further_ones_are_paused_and_sent_the_next_day(
    tmp_path: Path,
) -> None:
    clock = SteppingClock(tmp_path / "clock")
    clock_at(clock, MORNING)
    with provider(tmp_path, plan="free", command=clock.command()) as ours:
        ids = ours.send(*(f"customer{number}@shop.test" for number in range(250)))
        ours.wait_until(
            "today's are through", lambda: ours.counts() == {"delivered": 200, "paused": 50}
        )
        first_paused, last = ours.message(ids[200]), ours.message(ids[-1])
        assert (first_paused["status"], first_paused["reason"]) == ("paused", "quota")
        assert first_paused["next_attempt_at"] == "2031-02-04T00:00:00.000Z"
        held = ours.explain(ids[-1])["held_by"]
        assert (held["code"], held["scope"]) == ("quota", "account")
        assert last["next_attempt_at"] == first_paused["next_attempt_at"]
        ours.engine.kill()
        clock_at(clock, MIDNIGHT + timedelta(seconds=1))
        ours.engine.start()
        ours.engine.wait_until_ready()
        ours.wait_until("the next day's are through", lambda: ours.counts() == {"delivered": 250})


def test_a_paid_plan_lifts_that(tmp_path: Path) -> None:
    with provider(tmp_path, plan="free") as ours:
        ours.send(*(f"customer{number}@shop.test" for number in range(210)))
        ours.wait_until(
            "the day is used up", lambda: ours.counts() == {"delivered": 200, "paused": 10}
        )
        ours.eilpost("account", "plan", "customer", "none")
        ours.wait_until("the rest goes at once", lambda: ours.counts() == {"delivered": 210})


def test_receivers_throttle_and_rules_keep_to_their_capacity(tmp_path: Path) -> None:
    with provider(tmp_path, SETTINGS + RULE) as ours:
        ids = ours.send(*(f"customer{number}@big.test" for number in range(100)))
        ours.wait_until(
            "somebody waits for the rule",
            lambda: (ours.explain(ids[-1])["held_by"] or {}).get("code") == "rate_limit",
        )
        told = ours.explain(ids[-1])
        assert told["held_by"]["limit"] == f"{RATE_PER_S}/s, burst {BURST}"
        assert told["next_attempt_at"] is not None
        assert ours.get("/v1/destinations?limit=10")["destinations"][0]["state"] == "throttled"
        ours.wait_until("all are through", lambda: ours.counts() == {"delivered": 100})
        taken_s = sorted(at_s for _, _, at_s in ours.receivers.taken)
        for number, first_s in enumerate(taken_s):
            within = sum(at_s <= first_s + 1.0 for at_s in taken_s[number:])
            # What was let go before can arrive late, so that a second at the receiver's door has
            # at most a transaction for each connection more.
            assert within <= RATE_PER_S + BURST + BURST, f"{within} within a second"
        assert "big.test" in ours.eilpost("shaping", "show", "big.test")


def test_if_a_receiver_still_asks_for_less_the_provider_learns_it(our_provider: Provider) -> None:
    ours = our_provider
    too_fast = "421 4.7.0 big.test: too many messages, slow down"
    ours.receivers.refusals["big.test"] = too_fast
    [first] = ours.send("ann@big.test")
    ours.wait_until("it is put off", lambda: ours.message(first)["reply"] == too_fast)
    steps = [json.loads(line) for line in ours.eilpost("shaping", "audit", "--json").splitlines()]
    assert any(step["reply"] == too_fast for step in steps)
    del ours.receivers.refusals["big.test"]
    ours.wait_for_status(first, "delivered")


def test_what_can_a_customer_do_is_not_nothing(our_provider: Provider) -> None:
    """See the one cause and the time, be told what to do, try it now, or call it back."""
    ours = our_provider
    ours.receivers.refusals["ann@shop.test"] = "452 4.2.2 mailbox full"
    [ann] = ours.send("ann@shop.test", CustomCampaign="spring")
    [bob] = ours.send("bob@unreachable.test", CustomCampaign="spring")
    ours.wait_for_status(ann, "deferred")
    ours.wait_until(
        "it is known to be unreachable",
        lambda: (ours.explain(bob)["held_by"] or {}).get("code") == "destination_unreachable",
    )
    english, german = ours.explain(ann), ours.explain(ann, language="de")
    assert english["advice"]
    assert german["advice"]
    assert english["advice"] != german["advice"]
    forecast = ours.get("/v1/campaigns/spring/forecast")
    assert forecast["campaign"] == "spring"
    assert "spring" in ours.eilpost("forecast", "spring")
    status, done = ours.call("POST", "/v1/cancel", {"destination": "unreachable.test"})
    assert (status, done["changed"]) == (200, 1)
    assert ours.message(bob)["status"] == "cancelled"
    del ours.receivers.refusals["ann@shop.test"]
    status, done = ours.call("POST", "/v1/retry", {"destination": "shop.test"})
    assert status == 200
    ours.wait_for_status(ann, "delivered")


def test_for_questions_there_is_support(our_provider: Provider, tmp_path: Path) -> None:
    ours = our_provider
    ours.receivers.refusals["ann@shop.test"] = "452 4.2.2 mailbox full"
    [ann] = ours.send("ann@shop.test")
    ours.wait_for_status(ann, "deferred")
    for path in ("/v1/statistics?group=colour", "/v3.1/send", "/nowhere"):
        with pytest.raises(HTTPError) as refused:
            urlopen(f"{ours.engine.url}{path}")
        assert refused.value.headers["X-Support-Contact"] == CONTACT, path
        refused.value.close()
    bundle = tmp_path / "bundle.tar.gz"
    ours.eilpost("doctor", "--bundle", str(ann), "--output", str(bundle))
    with tarfile.open(bundle) as opened:
        files = {name: opened.extractfile(name) for name in opened.getnames()}
        told = b"".join(file.read() for file in files.values() if file is not None)
    assert b"452 4.2.2 mailbox full" in told
    assert ours.customer.secret_key.encode() not in told
