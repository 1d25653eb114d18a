"""The demo: twenty thousand mails to sixty domains, and the books at the end.

The engine runs as a process of its own on its embedded default, as a user would
start it; receivers and DNS run here, on loopback. Mail is handed in over HTTP.
Nothing here prints: `engine.cli.demo` draws what `Demo` tells.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import trio

from engine.rehearsal.dns_server import DnsServer
from engine.rehearsal.engine_process import (
    Credentials,
    EngineFailed,
    EngineProcess,
    HttpClient,
    status_counts,
)
from engine.rehearsal.places import PLACES, Place, recipients, zones_of
from engine.rehearsal.receiver import Receiver
from engine.rehearsal.receivers import serve_receivers

BATCH = 50
CLIENTS = 4
# Real schedules are in minutes and hours; these let a run show what they do in one.
RETRY_S = (1.0, 2.0, 4.0)
GREYLIST_RETRY_S = (3.0,)
MAX_AGE_S = 45.0
# What is still open then is shown as open, and the books do not balance.
PATIENCE_S = 110.0
POLL_S = 0.25
OPEN = ("queued", "paused", "deferred")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the demo stands: what was acknowledged, and the engine's counts by status."""

    messages: int
    accepted: int
    counts: dict[str, int]
    elapsed_s: float

    @property
    def waiting(self) -> int:
        return sum(self.counts.get(status, 0) for status in OPEN)

    @property
    def finished(self) -> int:
        return sum(self.counts.values()) - self.waiting


@dataclass(frozen=True, slots=True)
class BookRow:
    """One destination: what was handed in, what the engine says, what its receiver counted."""

    domain: str
    note: str
    handed_in: int
    counts: dict[str, int]
    received: int
    received_again: int

    @property
    def faults(self) -> list[str]:
        """What does not add up, in words; empty when the row balances."""
        faults: list[str] = []
        if sum(self.counts.values()) != self.handed_in:
            faults.append(f"{self.handed_in} handed in, {sum(self.counts.values())} in the books")
        still_open = sum(self.counts.get(status, 0) for status in OPEN)
        if still_open:
            faults.append(f"{still_open} not finished")
        delivered = self.counts.get("delivered", 0)
        if delivered != self.received:
            faults.append(f"{delivered} delivered, {self.received} received")
        if self.received_again:
            faults.append(f"{self.received_again} received more than once")
        return faults


class Demo:
    """A running engine and the world it sends to; obtained from `open_demo`."""

    def __init__(
        self,
        engine: EngineProcess,
        credentials: Credentials,
        all_places: Sequence[Place],
        receivers: dict[str, Receiver],
    ) -> None:
        self.engine = engine
        self.credentials = credentials
        self._places = all_places
        self._receivers = receivers
        self._acknowledged: Counter[str] = Counter()

    async def run(self, messages: int, show: Callable[[Progress], None]) -> list[BookRow]:
        """Hand in `messages` mails, wait until all are finished, and return the books.

        `show` is called a few times a second. Raises EngineFailed when the engine
        ends or refuses mail.
        """
        started_s = trio.current_time()
        client = HttpClient(self.engine.port, self.credentials)

        async def look() -> Progress:
            self.engine.check_alive()
            rows = await trio.to_thread.run_sync(status_counts, client)
            progress = Progress(
                messages,
                self._acknowledged.total(),
                rows.get("total", {}),
                trio.current_time() - started_s,
            )
            show(progress)
            return progress

        async def watch(finished: trio.Event) -> None:
            while not finished.is_set():
                await look()
                await trio.sleep(POLL_S)

        handed_in = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, handed_in)
            await self._hand_in(messages)
            handed_in.set()
        with trio.move_on_at(started_s + PATIENCE_S):
            while (await look()).finished < messages:  # noqa: ASYNC110 - another process sets no event
                await trio.sleep(POLL_S)
        books = await trio.to_thread.run_sync(self._books, client)
        client.close()
        return books

    async def _hand_in(self, messages: int) -> None:
        source = recipients(self._places, messages)
        batches = iter(lambda: list(islice(source, BATCH)), [])

        async def post() -> None:
            client = HttpClient(self.engine.port, self.credentials)
            # The iterator is shared: whoever is free takes the next batch.
            for batch in batches:
                body = json.dumps({"Messages": [_message(address) for address in batch]}).encode()
                status, answer = await trio.to_thread.run_sync(
                    client.request, "POST", "/v3.1/send", body
                )
                self._acknowledged.update(_acknowledged(batch, status, answer))
            client.close()

        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(post)

    def _books(self, client: HttpClient) -> list[BookRow]:
        rows = status_counts(client, "destination")
        return [
            BookRow(
                place.domain,
                place.kind.note,
                self._acknowledged[place.domain],
                rows.get(place.domain, {}),
                *_received(self._receivers.get(place.domain)),
            )
            for place in self._places
        ]


@asynccontextmanager
async def open_demo(
    directory: Path, *, all_places: Sequence[Place] = PLACES, seed: int = 1
) -> AsyncIterator[Demo]:
    """Start receivers, DNS and an engine with its data below `directory`; end them at the end.

    The seed decides whose mailbox is full and who is unknown. Raises EngineFailed, with
    what the engine wrote, if it does not start.
    """
    receivers = {
        place.domain: Receiver(place.domain, place.kind.behaviour, seed=seed)
        for place in all_places
        if place.kind.behaviour is not None
    }
    listening = {
        place.address: receivers[place.domain] for place in all_places if place.domain in receivers
    }
    async with trio.open_nursery() as world:
        name_server = DnsServer(zones_of(all_places))
        await world.start(name_server.serve)
        port: int = await world.start(serve_receivers, listening)
        engine = EngineProcess(directory, _settings(name_server, port))
        try:
            credentials = await trio.to_thread.run_sync(engine.create_account, "demo")
            engine.start()
            await trio.to_thread.run_sync(engine.wait_until_ready)
            yield Demo(engine, credentials, all_places, receivers)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(engine.stop)
            world.cancel_scope.cancel()


def _settings(name_server: DnsServer, port: int) -> str:
    return (
        f'[resolver]\nservers = ["{name_server.address}:{name_server.port}"]\n'
        f'[delivery]\nport = {port}\nehlo_name = "demo.example"\n'
        f'private_targets = ["127.0.0.0/8"]\n'
        f"retry_s = {list(RETRY_S)}\ngreylist_retry_s = {list(GREYLIST_RETRY_S)}\n"
        f"max_age_s = {MAX_AGE_S}\n"
    )


def _message(address: str) -> dict[str, object]:
    reader = address.partition("@")[0]
    return {
        "From": {"Email": "news@demo.example", "Name": "Demo News"},
        "To": [{"Email": address, "Name": reader.capitalize()}],
        "Subject": f"News for {reader}",
        "TextPart": f"Dear {reader},\n\n" + "this is a mail of the demo.\n" * 20,
        "HTMLPart": f"<p>Dear {reader},</p>" + "<p>this is a mail of the demo.</p>\n" * 20,
        "CustomCampaign": "demo",
    }


def _acknowledged(batch: Sequence[str], status: int, answer: object) -> Counter[str]:
    """Count the domains of a batch that was taken. Raises EngineFailed if any was refused."""
    if status != 200 or not isinstance(answer, dict):
        raise EngineFailed(f"/v3.1/send answered {status}: {answer!r:.500}")
    results = answer["Messages"]
    refused = [result for result in results if result["Status"] != "success"]
    if refused or len(results) != len(batch):
        raise EngineFailed(f"/v3.1/send refused {len(refused)} mails: {refused!r:.500}")
    return Counter(address.partition("@")[2] for address in batch)


def _received(receiver: Receiver | None) -> tuple[int, int]:
    """Return how many different mails a receiver took, and how many it got again."""
    if receiver is None:
        return 0, 0
    times = Counter(acceptance.key for acceptance in receiver.acceptances)
    return len(times), times.total() - len(times)
