"""Opens a spool of either adapter for the contract tests, and makes what they hand in."""

import itertools
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

from engine.spool import RunBlocking, open_spool
from engine.spool.interface import (
    Accepted,
    AcceptRequest,
    AttemptResult,
    EventFilter,
    NewMessage,
    NewRecipient,
    Quota,
    Spool,
    SpoolSettings,
    WindowPosition,
)
from engine.spool.listing_calls import EnvelopeFilter
from protocols.records import Account, ApiKey, Envelope, Event, Reason, Status

ADAPTERS = ("memory", "lmdb")

SECOND_MS = 1000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# A Tuesday morning, half an hour past nine in UTC.
START_UNIX_MS = 1_795_512_600_000

_names = itertools.count()


class SettableClock:
    """Wall time that stands still until a test moves it."""

    def __init__(self, now_unix_ms: int = START_UNIX_MS) -> None:
        self.now = now_unix_ms

    def now_unix_ms(self) -> int:
        return self.now


async def run_inline(function: Callable[..., Any], /, *arguments: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*arguments)


class Harness:
    """One spool's data; each `open` is a life of the process on it."""

    def __init__(self, adapter: str, data_dir: Path, settings: SpoolSettings | None = None) -> None:
        self.adapter = adapter
        self.clock = SettableClock()
        self.settings = settings or SpoolSettings(disk_free_bytes_min=0)
        self._url = "lmdb:" if adapter == "lmdb" else f"memory:contract-{next(_names)}"
        self._data_dir = data_dir

    @asynccontextmanager
    async def open(self, run_blocking: RunBlocking = run_inline) -> AsyncIterator[Spool]:
        async with open_spool(
            self._url,
            self._data_dir,
            settings=self.settings,
            clock=self.clock,
            run_blocking=run_blocking,
            random=random.Random(1),
        ) as spool:
            yield spool


@contextmanager
def data_directory() -> Iterator[Path]:
    """A directory that forgets at once: a property test makes thousands of commits."""
    memory_disk = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory_disk if memory_disk.is_dir() else None) as name:
        yield Path(name)


_numbers = itertools.count(1)


def recipients(*addresses: str) -> list[NewRecipient]:
    return [
        NewRecipient(
            next(_numbers).to_bytes(16, "big"), address, address, address.rpartition("@")[2]
        )
        for address in addresses
    ]


def message(*addresses: str, **fields: Any) -> NewMessage:
    """A message to these addresses; the content tells the first one, so that contents differ."""
    return NewMessage(
        fields.pop("content", b"To: " + addresses[0].encode() + b"\r\n\r\nHello\r\n"),
        recipients(*addresses),
        "sender@out.example",
        **fields,
    )


def request_of(
    account: Account,
    *messages: NewMessage,
    quota: Quota | None = None,
    digest: bytes | None = None,
    digest_lives_ms: int = DAY_MS,
) -> AcceptRequest:
    return AcceptRequest(account, messages, quota or Quota(), digest, digest_lives_ms)


async def make_account(spool: Spool, name: str = "acme", time_zone: str = "UTC") -> Account:
    key = ApiKey(f"key-{name}", 0, bytes(32), START_UNIX_MS)
    return await spool.create_account(Account(0, name, "", START_UNIX_MS, False, time_zone), key)


async def accept(spool: Spool, account: Account, *messages: NewMessage, **fields: Any) -> Accepted:
    [answer] = await spool.accept([request_of(account, *messages, **fields)])
    if not isinstance(answer, Accepted):
        raise answer
    return answer


async def accept_many(
    spool: Spool,
    account: Account,
    count: int,
    *,
    at: str = "one.test",
    quota: Quota | None = None,
    **fields: Any,
) -> list[int]:
    """Accept one message to `count` recipients at one destination; return the envelope ids."""
    addresses = [f"r{number}@{at}" for number in range(count)]
    answer = await accept(spool, account, message(*addresses, **fields), quota=quota)
    return [each.envelope_id for each in answer.envelopes]


async def claim(spool: Spool, destination: str = "one.test", limit: int = 1000) -> list[Envelope]:
    window = await spool.window(destination, WindowPosition(), limit, spool.now_unix_ms())
    return list(window.envelopes)


def result_of(
    spool: Spool, envelope: Envelope, status: Status = Status.DELIVERED, **fields: Any
) -> AttemptResult:
    reply = {Status.DELIVERED: "250 2.0.0 Ok", Status.DEFERRED: "451 4.7.1 Later"}
    reason = {Status.DEFERRED: Reason.GREYLISTED, Status.HARD_BOUNCED: Reason.UNKNOWN_USER}
    fields.setdefault("reply", reply.get(status, "550 5.1.1 No"))
    fields.setdefault("reason", reason.get(status))
    fields.setdefault("attempt", envelope.state.attempts + 1)
    return AttemptResult(
        envelope.fixed.envelope_id,
        status=status,
        at_unix_ms=spool.now_unix_ms(),
        mx_host="mx.one.test",
        mx_address="192.0.2.1",
        tls="TLSv1.3",
        **fields,
    )


async def deliver(spool: Spool, envelopes: Sequence[Envelope]) -> None:
    await spool.settle([result_of(spool, envelope) for envelope in envelopes])


async def all_events(spool: Spool, wanted: EventFilter | None = None) -> list[Event]:
    found: list[Event] = []
    seq = 0
    while seq < spool.head():
        page = await spool.events(seq, wanted or EventFilter(), 100)
        found += page.events
        seq = page.seq
    return found


async def all_envelopes(spool: Spool, wanted: EnvelopeFilter | None = None) -> list[Envelope]:
    found: list[Envelope] = []
    after: int | None = None
    while True:
        page = await spool.find(wanted or EnvelopeFilter(), after, 100)
        found += page.envelopes
        after = page.after
        if after is None:
            return found


async def sweep_all(spool: Spool) -> None:
    for _ in range(1000):
        if not await spool.sweep(spool.now_unix_ms(), 1000):
            return
    raise AssertionError("the sweeper never comes to an end")


async def state_of(spool: Spool, envelope_id: int) -> Envelope:
    envelope = await spool.envelope(envelope_id)
    assert envelope is not None, envelope_id
    return envelope
