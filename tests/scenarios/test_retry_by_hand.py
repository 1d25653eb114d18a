"""A receiver goes away and comes back, and an operator has its mail tried before its time."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from engine.rehearsal.engine_process import EngineProcess, HttpClient, free_port, status_counts
from tests.scenarios.scene import mails

pytestmark = pytest.mark.slow

# The agenda is looked at every sixty seconds in any case: what takes half of that was not told.
AT_ONCE_S = 20.0
RETRY_S = 3600


class Taking:
    """Says yes to all mail, or that it is to come later."""

    def __init__(self) -> None:
        self.recipients: list[str] = []
        self.puts_off = False

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.puts_off:
            return "451 4.7.1 not yet"
        self.recipients += envelope.rcpt_tos
        return "250 Taken"


class Receiver:
    """A server at one port that is there or not."""

    def __init__(self) -> None:
        self.port = free_port()
        self.taking = Taking()
        self._controller: Controller | None = None

    def come_back(self) -> None:
        self._controller = Controller(self.taking, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    def go_away(self) -> None:
        if self._controller is not None:
            self._controller.stop()
            self._controller = None


class Shop:
    """The engine, an account and its HTTP client, and the receiver."""

    def __init__(self, engine: EngineProcess, receiver: Receiver, client: HttpClient) -> None:
        self.engine = engine
        self.receiver = receiver
        self._client = client

    def post(self, path: str, body: Any) -> Any:
        octets = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer = self._client.request("POST", path, octets)
        assert status in (200, 201), answer
        return answer

    def send(self, *addresses: str, **fields: object) -> None:
        self.post("/v3.1/send", mails(addresses, **fields))

    def destination(self, name: str = "shop.test") -> dict[str, Any]:
        rows: Any = self._client.get("/v1/destinations")["destinations"]
        [found] = [row for row in rows if row["destination"] == name]
        assert isinstance(found, dict)
        return found

    def counts(self) -> dict[str, int]:
        return {name: n for name, n in status_counts(self._client)["total"].items() if n}

    def wait_for(self, what: str, met: Callable[[], object], seconds_max: float = 60.0) -> None:
        deadline = time.monotonic() + seconds_max
        while not met():
            self.engine.check_alive()
            assert time.monotonic() < deadline, f"waited {seconds_max} s for {what}"
            time.sleep(0.02)

    def wait_until_at_rest(self, name: str = "shop.test") -> dict[str, Any]:
        """Wait until a destination is known to be out of reach, and its next attempt is far."""
        self.wait_for(
            "a back-off",
            lambda: (
                (found := self.destination(name))["state"] == "unreachable"
                and found["next_attempt_at"] > self.now()
            ),
        )
        return self.destination(name)

    def now(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S.999Z", time.gmtime(time.time() + 60))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    receiver = Receiver()
    toml = f"""
    [delivery]
    retry_s = [{RETRY_S}]
    [[route]]
    domain = "*.test"
    next_hop = "127.0.0.1:{receiver.port}"
    """
    engine = EngineProcess(tmp_path, toml)
    credentials = engine.create_account("shop")
    engine.start()
    client = HttpClient(engine.port, credentials)
    try:
        engine.wait_until_ready()
        yield Shop(engine, receiver, client)
    finally:
        client.close()
        receiver.go_away()
        assert engine.stop() == 0


def test_mail_goes_at_once_when_the_server_is_back(shop: Shop) -> None:
    shop.send("a@shop.test", "b@shop.test")
    shop.wait_until_at_rest()
    shop.receiver.come_back()
    done = shop.post("/v1/retry", {"destination": "shop.test"})
    assert done == {
        "matched": {"queued": 2},
        "changed": 0,
        "in_flight": 0,
        "dry_run": False,
        "after": None,
        "destinations": ["shop.test"],
        "held": [],
    }
    shop.wait_for("delivery", lambda: len(shop.receiver.taking.recipients) == 2, AT_ONCE_S)


def test_while_it_is_away_nothing_is_made_worse(shop: Shop) -> None:
    """From the command line: what it says is what it did, and the next attempt stays."""
    shop.send("a@shop.test")
    before = shop.wait_until_at_rest()
    assert "Would be tried now, though out of reach so far: shop.test." in shop.engine.run(
        "retry", "--destination", "shop.test", "--dry-run"
    )
    for _ in range(3):
        assert shop.engine.run("retry", "--destination", "shop.test").splitlines() == [
            "Fitting: 1 queued.",
            "Made due now: 0; due already: 1; in flight and left alone: 0.",
            "Tried now, though out of reach so far: shop.test.",
        ]
        after = shop.wait_until_at_rest()
        assert (after["next_attempt_at"], after["since"]) == (
            before["next_attempt_at"],
            before["since"],
        )
    shop.receiver.come_back()
    told = json.loads(shop.engine.run("retry", "--account", "shop", "--json"))
    assert (told["destinations"], told["changed"]) == (["shop.test"], 0)
    shop.wait_for("delivery", lambda: shop.receiver.taking.recipients, AT_ONCE_S)


def test_mail_that_was_put_off_goes_at_once_too(shop: Shop) -> None:
    shop.receiver.come_back()
    shop.receiver.taking.puts_off = True
    shop.send("a@shop.test", "b@other.test", CustomCampaign="spring")
    shop.wait_for("deferrals", lambda: shop.counts().get("deferred") == 2)
    shop.receiver.taking.puts_off = False
    assert shop.engine.run("retry", "--reply", "no such text") == "No waiting mail fits.\n"
    told = shop.engine.run("retry", "--reply", "not yet").splitlines()
    assert told == [
        "Fitting: 2 deferred.",
        "Made due now: 2; due already: 0; in flight and left alone: 0.",
    ]
    shop.wait_for("delivery", lambda: len(shop.receiver.taking.recipients) == 2, AT_ONCE_S)


def test_what_is_held_stays_and_is_said_to(shop: Shop) -> None:
    shop.send("a@shop.test", CustomCampaign="spring")
    shop.send("b@gone.test", "c@gone.test", CustomCampaign="spring")
    shop.send("d@gone.test")
    for name in ("shop.test", "gone.test"):
        shop.wait_until_at_rest(name)
    shop.engine.run("suspend", "--campaign", "spring", "--reason", "wrong link")
    shop.receiver.come_back()
    told = shop.engine.run("retry", "--account", "shop").splitlines()
    assert told == [
        "Fitting: 4 queued.",
        "Made due now: 0; due already: 4; in flight and left alone: 0.",
        "Tried now, though out of reach so far: gone.test.",
        "Held back all the same: 3 by hold 1 (campaign spring; by operator until it is resumed, "
        "reason: wrong link).",
    ]
    shop.wait_for("the mail that is not held", lambda: shop.receiver.taking.recipients, AT_ONCE_S)
    shop.wait_for("its result", lambda: shop.counts().get("delivered") == 1, AT_ONCE_S)
    assert shop.receiver.taking.recipients == ["d@gone.test"]
    assert shop.counts() == {"queued": 3, "delivered": 1}
    [held] = shop.post("/v1/retry", {"campaign": "spring", "dry_run": True})["held"]
    assert (held["mails"], held["campaign"], held["reason"]) == (3, "spring", "wrong link")
