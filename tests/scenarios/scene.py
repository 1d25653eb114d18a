"""An engine with receivers around it, and the few things that every scenario does with them."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from engine.rehearsal.engine_process import (
    COMMAND,
    Credentials,
    EngineProcess,
    HttpClient,
    status_counts,
)
from tests.scenarios.counting_receivers import CountingReceivers, routes

# Long beyond what anything here takes, on a machine that does other things too.
PATIENCE_S: Final = 30.0
POLL_S: Final = 0.02
# So many a request may have.
MESSAGES_MAX: Final = 50


class Scene:
    """A running engine, its receivers, an account, and what was delivered so far."""

    def __init__(
        self, engine: EngineProcess, receivers: CountingReceivers, credentials: Credentials
    ) -> None:
        self.engine = engine
        self.receivers = receivers
        self.credentials = credentials
        self._delivered: list[str] = []

    def post(
        self, body: bytes, path: str = "/v3.1/send", credentials: Credentials | None = None
    ) -> tuple[int, Any]:
        client = HttpClient(self.engine.port, credentials or self.credentials)
        try:
            return client.request("POST", path, body)
        finally:
            client.close()

    def get(self, path: str) -> dict[str, Any]:
        client = HttpClient(self.engine.port, self.credentials)
        try:
            return client.get(path)
        finally:
            client.close()

    def send(self, addresses: Sequence[str], **fields: object) -> dict[str, int]:
        """Hand in one message for each address; return their ids."""
        ids: dict[str, int] = {}
        for start in range(0, len(addresses), MESSAGES_MAX):
            part = addresses[start : start + MESSAGES_MAX]
            status, answer = self.post(mails(part, **fields))
            assert status == 200, answer
            recipients = [each["To"][0] for each in answer["Messages"]]
            ids |= {each["Email"]: each["MessageID"] for each in recipients}
        return ids

    def message(self, message_id: int) -> dict[str, Any]:
        return self.get(f"/v1/messages/{message_id}")

    def counts(self) -> dict[str, int]:
        """Return the account's messages by status, without those that nothing has."""
        client = HttpClient(self.engine.port, self.credentials)
        try:
            return {name: n for name, n in status_counts(client)["total"].items() if n}
        finally:
            client.close()

    def delivered(self) -> list[str]:
        """Return the recipients of all that the receivers said yes to, in order."""
        self._delivered += [recipient for recipient, _, _ in self.receivers.taken()]
        return self._delivered

    def wait_for(
        self, what: str, met: Callable[[], object], seconds_max: float = PATIENCE_S
    ) -> None:
        deadline = time.monotonic() + seconds_max
        while not met():
            self.engine.check_alive()
            assert time.monotonic() < deadline, f"waited {seconds_max} s for {what}"
            time.sleep(POLL_S)

    def wait_until_final(self, seconds_max: float = PATIENCE_S) -> dict[str, int]:
        """Wait until no mail is open; return the counts by status."""
        self.wait_for("an end of all mail", lambda: not open_in(self.counts()), seconds_max)
        return self.counts()

    def written(self) -> str:
        """Return what the engine wrote to its output so far."""
        return self.engine.output_path.read_text(encoding="utf-8", errors="replace")


def mails(addresses: Sequence[str], **fields: object) -> bytes:
    """Return the body of a request with one message for each address."""
    messages = [
        {
            "From": {"Email": "shop@sender.test"},
            "To": [{"Email": address}],
            "TextPart": f"for {address}",
            **fields,
        }
        for address in addresses
    ]
    return json.dumps({"Messages": messages}).encode()


def open_in(counts: dict[str, int]) -> int:
    return sum(counts.get(name, 0) for name in ("queued", "deferred", "paused"))


@contextmanager
def scene(directory: Path, toml: str = "", *, command: Sequence[str] = COMMAND) -> Iterator[Scene]:
    """Run an engine that sends `*.NAME.test` to the receiver of that name.

    `toml` ends with whatever tables it likes; the routes come after it. The engine is ended the
    polite way, if it still runs, and must not have written a traceback.
    """
    with CountingReceivers() as receivers:
        engine = EngineProcess(directory, toml + "\n" + routes(receivers.port), command=command)
        made = Scene(engine, receivers, engine.create_account("shop"))
        engine.start()
        try:
            engine.wait_until_ready()
            yield made
        finally:
            status = engine.stop()
        assert status == 0
        assert "Traceback" not in made.written()
