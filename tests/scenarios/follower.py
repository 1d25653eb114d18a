"""A subscriber that goes on from its last cursor after each loss, and proves what it can.

It speaks through a websocket library that shares nothing with the engine's. What it keeps of each
message is the row of its statuses; of the whole log a digest, to be compared with a second look.
"""

import json
import socket
import threading
import time
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import websocket

from engine.rehearsal.engine_process import Credentials

RETRY_S: Final = 0.02
# No frame for so long is looked into; the engine says something whenever there is something.
RECEIVE_S: Final = 0.2
FINAL: Final = {"delivered", "soft_bounced", "hard_bounced", "blocked", "cancelled"}


@dataclass(slots=True)
class Story:
    """One message as its events tell it."""

    address: str
    account: str = ""
    campaign: str | None = None
    statuses: list[str] = field(default_factory=list)
    last_at: str = ""
    last_reply: str = ""
    last_reason: str | None = None
    # How often it was said that nobody knows what became of an attempt.
    doubts: int = 0


@dataclass(slots=True)
class Heard:
    """All that came over the stream so far."""

    stories: dict[int, Story] = field(default_factory=dict)
    final: int = 0
    events: int = 0
    holes: list[str] = field(default_factory=list)
    cursor: str | None = None
    connections: int = 0
    digest: Any = field(default_factory=lambda: blake2b(digest_size=16))

    def take(self, batch: dict[str, Any]) -> None:
        """Judge one batch and add its events."""
        if "gap" in batch:
            self.holes.append(f"a gap notice: {batch['gap']}")
            return
        if self.cursor is not None and batch["after"] != self.cursor:
            self.holes.append(f"a batch after {batch['after']} follows {self.cursor}")
        self.cursor = batch["cursor"]
        for event in batch["events"]:
            self.events += 1
            told = (event["cursor"], event["message_id"], event["status"], event["attempt"])
            self.digest.update(repr(told).encode())
            story = self.stories.get(event["message_id"])
            if story is None:
                story = Story(event["address"], event["account"], event["campaign"])
                self.stories[event["message_id"]] = story
            if event["status"] in FINAL:
                self.final += not FINAL.intersection(story.statuses)
            story.statuses.append(event["status"])
            story.last_at, story.last_reply = event["at"], event["reply"]
            story.last_reason = event["reason"]
            story.doubts += event["reason"] == "outcome_unknown"


class Follower(threading.Thread):
    """Follows the stream until told to stop. `resumes` is what makes it hole-free: the control's
    follower starts over at "now" instead.
    """

    def __init__(self, port: int, credentials: Credentials, *, resumes: bool = True) -> None:
        super().__init__(name="follower")
        self.heard = Heard()
        self.stop = threading.Event()
        self._port = port
        self._url = f"ws://127.0.0.1:{port}/v1/stream"
        self._authorization = credentials.authorization
        self._resumes = resumes

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self._follow()
            except (OSError, websocket.WebSocketException):
                self.stop.wait(RETRY_S)

    def wait_until_at(self, head: str, seconds_max: float) -> bool:
        """Wait until everything up to the cursor `head` was heard; say whether it was."""
        deadline = time.monotonic() + seconds_max
        while self.heard.cursor != head and time.monotonic() < deadline and self.is_alive():
            time.sleep(RETRY_S)
        return self.heard.cursor == head

    def _follow(self) -> None:
        # Our own socket, because the client leaves one that was refused to the garbage collector.
        plain = self.connected()
        try:
            self._listen(plain)
        finally:
            plain.close()

    def connected(self) -> socket.socket:
        """Return a socket to the engine. Raises OSError."""
        return socket.create_connection(("127.0.0.1", self._port), timeout=10)

    def _listen(self, plain: socket.socket) -> None:
        connection = websocket.create_connection(
            self._url,
            socket=plain,
            header=[f"Authorization: {self._authorization}"],
            subprotocols=["eilpost.v1+json"],
            timeout=10,
        )
        try:
            self.heard.connections += 1
            after = self.heard.cursor if self._resumes else "now"
            connection.send(json.dumps({"subscribe": {"after": after or "start", "filter": {}}}))
            connection.settimeout(RECEIVE_S)
            while not self.stop.is_set():
                try:
                    text = connection.recv()
                except websocket.WebSocketTimeoutException:
                    continue
                if not text:
                    return
                self.heard.take(json.loads(text))
        finally:
            connection.close(timeout=0)
