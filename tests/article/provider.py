"""A provider as its customer meets it: an engine, and receivers on real servers that change.

The engine is one process, the receivers are aiosmtpd. Everything is asked over the public faces.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from aiosmtpd.controller import Controller

from engine.rehearsal.engine_process import (
    COMMAND,
    Credentials,
    EngineFailed,
    EngineProcess,
    HttpClient,
    free_port,
)

# Long beyond what anything here takes, on a machine that does other things too.
PATIENCE_S: Final = 120.0
POLL_S: Final = 0.05
CONTACT: Final = "help@provider.example"
# Short times for retries, so that "later" comes soon.
SETTINGS: Final = f"""
[support]
contact = "{CONTACT}"
[delivery]
retry_s = [1, 1, 2]
greylist_retry_s = [1]
"""


class Receivers:
    """Servers for `*.test`. `refusals` has replies to RCPT, by address or by domain."""

    def __init__(self) -> None:
        self.refusals: dict[str, str] = {}
        # (recipient, content, seconds on the monotonic clock)
        self.taken: list[tuple[str, bytes, float]] = []
        # While it is clear, nobody answers the end of the data.
        self.may_answer = threading.Event()
        self.may_answer.set()

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, rcpt_options: list[str]
    ) -> str:
        refusal = self.refusals.get(address) or self.refusals.get(address.rpartition("@")[2])
        if refusal is None:
            envelope.rcpt_tos.append(address)
        return refusal or "250 2.1.5 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        # The test runs in another thread than this server's loop.
        await asyncio.to_thread(self.may_answer.wait)
        at_s = time.monotonic()
        self.taken += [(to, envelope.content, at_s) for to in envelope.rcpt_tos]
        return "250 2.0.0 taken"

    def got(self, address: str) -> bool:
        return any(to == address for to, _, _ in self.taken)


class Provider:
    """The engine, its receivers, and one customer. `unreachable.test` has no server at first."""

    def __init__(
        self, engine: EngineProcess, receivers: Receivers, unreachable_port: int, plan: str
    ) -> None:
        self.engine = engine
        self.receivers = receivers
        arguments = ["--plan", plan] if plan else []
        made = json.loads(engine.run("account", "create", "customer", *arguments, "--json"))
        self.customer = Credentials("customer", made["api_key"], made["secret_key"])
        self._unreachable_port = unreachable_port

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        language: str = "en",
    ) -> tuple[int, Any]:
        """Ask as the customer."""
        client = HttpClient(self.engine.port, self.customer)
        client.headers["Accept-Language"] = language
        try:
            octets = None if body is None else json.dumps(body).encode()
            return client.request(method, path, octets)
        finally:
            client.close()

    def get(self, path: str, *, language: str = "en") -> Any:
        status, answer = self.call("GET", path, language=language)
        assert status == 200, answer
        return answer

    def send(self, *addresses: str, **fields: Any) -> list[int]:
        """Send a mail to each address; return their ids."""
        ids: list[int] = []
        for start in range(0, len(addresses), 50):
            messages = [
                {
                    "From": {"Email": "shop@sender.test"},
                    "To": [{"Email": address}],
                    "Subject": "Your order",
                    "TextPart": "It is on its way.",
                    **fields,
                }
                for address in addresses[start : start + 50]
            ]
            status, answer = self.call("POST", "/v3.1/send", {"Messages": messages})
            assert status == 200, answer
            ids += [message["To"][0]["MessageID"] for message in answer["Messages"]]
        return ids

    def message(self, message_id: int) -> Any:
        return self.get(f"/v1/messages/{message_id}")

    def explain(self, message_id: int, *, language: str = "en") -> Any:
        return self.get(f"/v1/messages/{message_id}/explain", language=language)

    def counts(self) -> dict[str, int]:
        """The customer's mails by status, without those that nothing has."""
        [row] = self.get("/v1/statistics")["rows"]
        return {name: n for name, n in row.items() if n and name not in ("key", "total")}

    def eilpost(self, *arguments: str) -> str:
        """What is printed for whoever types this; raises EngineFailed with what it refuses."""
        return self.engine.run(*arguments)

    def wait_until(self, what: str, met: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not met():
            self.engine.check_alive()
            if time.monotonic() > deadline:
                raise EngineFailed(f"waited {PATIENCE_S:.0f} s until {what}; {self.counts()}")
            time.sleep(POLL_S)

    def wait_for_status(self, message_id: int, status: str) -> Any:
        self.wait_until(
            f"{message_id} is {status}", lambda: self.message(message_id)["status"] == status
        )
        return self.message(message_id)

    @contextmanager
    def unreachable_server_comes_back(self) -> Iterator[None]:
        server = Controller(self.receivers, hostname="127.0.0.1", port=self._unreachable_port)
        server.start()
        try:
            yield
        finally:
            server.stop()


@contextmanager
def provider(
    directory: Path, toml: str = SETTINGS, *, plan: str = "", command: Sequence[str] = COMMAND
) -> Iterator[Provider]:
    """Run all of it; `toml` ends with tables, the routes come after it."""
    receivers = Receivers()
    server = Controller(receivers, hostname="127.0.0.1", port=free_port())
    server.start()
    unreachable_port = free_port()
    engine = EngineProcess(
        directory,
        f"""{toml}
[[route]]
domain = "unreachable.test"
next_hop = "127.0.0.1:{unreachable_port}"
[[route]]
domain = "*.test"
next_hop = "127.0.0.1:{server.port}"
""",
        command=command,
    )
    engine.start()
    try:
        engine.wait_until_ready()
        yield Provider(engine, receivers, unreachable_port, plan)
    finally:
        # Who still waits for an answer gets it, or the server could not stop.
        receivers.may_answer.set()
        engine.stop()
        server.stop()
