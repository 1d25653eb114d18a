"""What else goes on during a soak: an operator, people who look on, subscribers who misbehave.

Each is a thread with a seed of its own. What must never be answered is noted as a surprise.
"""

import base64
import http.client
import json
import os
import random
import signal
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from engine.cli.control import Control, EngineBusy, EngineRefused, EngineStopped
from engine.http_server.unix_socket import unix_socket_address
from engine.rehearsal.engine_process import Credentials, EngineProcess, HttpClient
from protocols.stream_frames import parse_cursor
from tests.scenarios.counting_receivers import MOODY_ADDRESSES
from tests.scenarios.follower import Follower, Heard
from tests.scenarios.senders import Ledger

DEED_EVERY_S: Final = 3.0
LOOK_EVERY_S: Final = 1.5
MISBEHAVE_EVERY_S: Final = 2.0
HELD_CONNECTIONS_MAX: Final = 8
HOLD_S: Final = (1.0, 8.0)
# Where mail is cancelled by hand; the others' fate is known.
MEDDLED: Final = tuple(f"d{number}.{name}.test" for name in MOODY_ADDRESSES for number in range(3))
HELD: Final = (*MEDDLED, "d0.fast.test", "d1.near.test", "d2.distant.test")
RULES: Final = (
    "",
    '[[rule]]\ndestination = "*.near.test"\nrate = "20/s, burst 20"\nconnections_max = 3\n',
    '[[rule]]\naccount = "shop"\nrate = "15/s, burst 30"\n'
    '[[rule]]\ndestination = "*.distant.test"\nmessages_per_connection_max = 5\n',
    '[[rule]]\ncampaign = "campaign *"\nrate = "10/s, burst 10"\n'
    '[[rule]]\ndestination = "d0.fast.test"\nrate = "5/s, burst 5"\n',
    '[[reaction]]\ndestination = "*.busy.test"\nreply = "^421 4.7.0 Too many"\n'
    'sample = "421 4.7.0 Too many messages, slow down"\nthen = "rate x0.5"\n',
)
PLANS: Final = ("tight", "wide", "tight", "")


class _Person(threading.Thread):
    """Acts now and then until told to stop."""

    def __init__(self, name: str, seed: int, every_s: float) -> None:
        super().__init__(name=name)
        self.stop = threading.Event()
        self.surprises: list[str] = []
        self.deeds = 0
        self.rand = random.Random(f"{seed} {name}")
        self._every_s = every_s

    def run(self) -> None:
        while not self.stop.wait(self.rand.expovariate(1.0 / self._every_s)):
            self.act()
            self.deeds += 1
        self.leave()

    def act(self) -> None:
        raise NotImplementedError

    def leave(self) -> None:
        """Let go of what was held."""


class Operator(_Person):
    """Holds, lifts, retries, cancels; changes rules and plans. Over the control socket."""

    def __init__(self, engine: EngineProcess, rules: Path, *, seed: int, every_s: float) -> None:
        super().__init__("operator", seed, every_s)
        self._engine = engine
        self._rules = rules
        self._socket = engine.directory / "data" / "control.sock"
        self._holds: list[int] = []

    def act(self) -> None:
        deeds = (self._hold, self._hold, self._lift, self._retry, self._cancel)
        self.rand.choice((*deeds, self._change_rules, self._hang_up, self._change_plan))()

    def ask(self, method: str, route: str, body: object = None) -> Any:
        """Return the answer; None if the engine is away, or says no."""
        control = Control(self._socket)
        try:
            if method == "DELETE":
                return control.delete(route)
            return control.get(route) if method == "GET" else control.post(route, body)
        except (EngineStopped, EngineBusy):
            return None
        except EngineRefused as refused:
            # A hold that has ended by itself meanwhile cannot be lifted.
            if method != "DELETE":
                self.surprises.append(f"{method} {route} {body}: {refused}")
            return None
        finally:
            control.close()

    def let_everything_go(self) -> None:
        """End all holds, and let paused mail go; campaigns that are cancelled stay so."""
        for hold in (self.ask("GET", "/v1/holds") or {"holds": []})["holds"]:
            self.ask("DELETE", f"/v1/holds/{hold['hold_id']}")
        self.ask("POST", "/v1/accounts/small/plan", {"plan": None})

    def _hold(self) -> None:
        body = {
            "destination": self.rand.choice(HELD),
            "for_s": self.rand.uniform(*HOLD_S),
            "reason": "soak",
        }
        if made := self.ask("POST", "/v1/holds", body):
            self._holds.append(made["hold_id"])

    def _lift(self) -> None:
        if self._holds:
            self.ask(
                "DELETE", f"/v1/holds/{self._holds.pop(self.rand.randrange(len(self._holds)))}"
            )

    def _retry(self) -> None:
        self.ask("POST", "/v1/retry", {"destination": self.rand.choice(MEDDLED)})

    def _cancel(self) -> None:
        self.ask("POST", "/v1/cancel", {"destination": self.rand.choice(MEDDLED)})

    def _change_rules(self) -> None:
        self._write_rules()
        self.ask("POST", "/v1/shaping/reload", {})

    def _hang_up(self) -> None:
        self._write_rules()
        try:
            # An interpreter that is only starting knows no signal yet, so it has to answer first.
            pid = self._engine.pid
            if self.ask("GET", "/v1/holds") is not None:
                os.kill(pid, signal.SIGHUP)
        except (AssertionError, ProcessLookupError):
            return

    def _write_rules(self) -> None:
        # A whole file takes another's place: half of one would be refused, which is right.
        draft = self._rules.with_suffix(".new")
        draft.write_text(self.rand.choice(RULES), encoding="utf-8")
        draft.replace(self._rules)

    def _change_plan(self) -> None:
        plan = self.rand.choice(PLANS)
        self.ask("POST", "/v1/accounts/small/plan", {"plan": plan or None})


class Onlooker(_Person):
    """Asks for pages and explanations as dashboards do."""

    def __init__(self, port: int, credentials: Credentials, ledger: Ledger, *, seed: int) -> None:
        super().__init__("onlooker", seed, LOOK_EVERY_S)
        self._client = HttpClient(port, credentials)
        self._ledger = ledger

    def act(self) -> None:
        paths = [
            "/metrics",
            "/status",
            "/api/v2/summary.json",
            "/v1/destinations",
            "/v1/statistics?group=destination",
            "/v1/messages?status=deferred",
            "/v1/campaigns",
            f"/v1/destinations/{self.rand.choice(HELD)}/explain",
        ]
        with self._ledger.lock:
            recent = list(self._ledger.acknowledged.values())[-200:]
        if recent:
            paths += [f"/v1/messages/{self.rand.choice(recent)}/explain"] * 4
        path = self.rand.choice(paths)
        try:
            status, answer = self._client.request("GET", path)
        except (OSError, http.client.HTTPException):
            return
        # Without mail at a destination there is nothing to explain.
        if status not in (200, 404, 503):
            self.surprises.append(f"GET {path}: {status} {answer!r:.300}")
        if status == 200 and path.startswith("/v1/messages/") and isinstance(answer, dict):
            is_open = answer["status"] in ("queued", "paused", "deferred")
            if is_open != (answer["held_by"] is not None):
                self.surprises.append(f"GET {path}: {answer}")

    def leave(self) -> None:
        self._client.close()


class BadSubscribers(_Person):
    """Connect to the stream and never read, say rubbish, or go without a word."""

    def __init__(self, port: int, credentials: Credentials, *, seed: int) -> None:
        super().__init__("bad subscribers", seed, MISBEHAVE_EVERY_S)
        self._port = port
        self._authorization = credentials.authorization
        self._held: list[socket.socket] = []

    def act(self) -> None:
        deeds: Sequence[Callable[[socket.socket], bool]] = (
            self._read_nothing,
            self._say_rubbish,
            self._go_at_once,
        )
        try:
            plain = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        except OSError:
            return
        try:
            is_kept = self.rand.choice(deeds)(plain)
        except OSError:
            is_kept = False
        if is_kept:
            self._held.append(plain)
        else:
            plain.close()
        while len(self._held) > HELD_CONNECTIONS_MAX:
            self._held.pop(0).close()

    def leave(self) -> None:
        for each in self._held:
            each.close()

    def _upgrade(self, plain: socket.socket) -> None:
        key = base64.b64encode(self.rand.randbytes(16)).decode()
        plain.sendall(
            b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: eilpost.v1+json\r\n"
            + f"Sec-WebSocket-Key: {key}\r\nAuthorization: {self._authorization}\r\n\r\n".encode()
        )

    def _read_nothing(self, plain: socket.socket) -> bool:
        """Ask for everything since the start, and leave it where it is."""
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._upgrade(plain)
        ask = json.dumps({"subscribe": {"after": "start", "filter": {}}}).encode()
        # RFC 6455 5.2: a text frame, masked with zeroes.
        plain.sendall(bytes((0x81, 0x80 | len(ask), 0, 0, 0, 0)) + ask)
        return True

    def _say_rubbish(self, plain: socket.socket) -> bool:
        self._upgrade(plain)
        plain.sendall(self.rand.randbytes(200))
        return False

    def _go_at_once(self, plain: socket.socket) -> bool:
        self._upgrade(plain)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False


class WholeLog(Heard):
    """What an operator hears: every event of all accounts, so none may be missing by its number."""

    def take(self, batch: dict[str, Any]) -> None:
        before = parse_cursor(self.cursor)[1] if self.cursor else 0
        for place, event in enumerate(batch.get("events", ()), before + 1):
            seq = parse_cursor(event["cursor"])[1]
            if seq != place:
                self.holes.append(f"event {seq} where {place} was to come")
                break
        super().take(batch)


class OperatorsFollower(Follower):
    """Follows the stream of all accounts over the control socket."""

    def __init__(self, engine: EngineProcess, credentials: Credentials) -> None:
        super().__init__(engine.port, credentials)
        self.heard = WholeLog()
        self._path = engine.directory / "data" / "control.sock"

    def connected(self) -> socket.socket:
        plain = socket.socket(socket.AF_UNIX)
        try:
            plain.settimeout(10)
            with unix_socket_address(self._path) as address:
                plain.connect(address)
        except OSError:
            plain.close()
            raise
        return plain
