"""A small world for the delivery room: spool in memory, virtual time, receivers without sockets."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from engine.clock import VirtualClock
from engine.config import Config, Rule
from engine.config import Delivery as DeliverySettings
from engine.config_values import Network
from engine.delivery.service import Delivery
from engine.rehearsal.behaviour import Behaviour
from engine.rehearsal.memory_network import MemoryNetwork
from engine.rehearsal.receiver import Receiver
from engine.rehearsal.resolver import TableResolver
from engine.rehearsal.zones import Records, Zones
from engine.spool.interface import Accepted, AcceptRequest, NewMessage, NewRecipient, SpoolSettings
from engine.spool.listing_calls import EnvelopeFilter
from engine.spool.memory import MemorySpool
from engine.spool.memory_data import MemoryData
from protocols.records import Account, ApiKey, DestinationRecord, Envelope, Event, Status

START_UNIX_MS = 1_790_000_000_000
CONTENT = b"From: a@out.example\r\nSubject: hello\r\n\r\nHow are you?\r\n"


def config(rules: Sequence[Rule] = (), **delivery: object) -> Config:
    settings = {
        "ehlo_name": "out.example",
        "private_targets": (Network.parse("127.0.0.0/8"),),
        **delivery,
    }
    return Config(rules=tuple(rules), delivery=DeliverySettings(**settings))  # type: ignore[arg-type]  # tests choose


@dataclass
class World:
    """What the receivers are, what the engine is, and hands to put mail in."""

    receivers: dict[str, Receiver] = field(default_factory=dict)
    zones: Zones = field(default_factory=lambda: Zones({}))
    config: Config = field(default_factory=config)
    data: MemoryData = field(default_factory=MemoryData)
    seed: int = 1
    connections_max: int = 100

    def __post_init__(self) -> None:
        self.clock = VirtualClock(START_UNIX_MS)
        self.network = MemoryNetwork(self.receivers, connect_s=0.01)
        self.accounts: dict[str, Account] = {}
        self._uuids = 0
        self._grown = trio.Event()
        self.open_spool()

    def open_spool(self) -> None:
        """What a start of the process does with its spool."""
        settings = SpoolSettings(max_age_ms=int(self.config.delivery.max_age_s * 1000))
        self.spool = MemorySpool(
            self.data, settings=settings, clock=self.clock, random=random.Random(self.seed)
        )
        self.spool.add_listener(lambda notice: self._grown.set())

    def add(self, domain: str, behaviour: Behaviour | None = None, *, mx: str = "") -> Receiver:
        """Let `domain` have a receiver of its own, or share the one of host `mx`."""
        host = mx or f"mx.{domain}"
        known = self.zones.look_up(host)
        if known is None or not known.a:
            address = f"127.0.{len(self.receivers) // 250}.{len(self.receivers) % 250 + 1}"
            self.zones.set(host, Records(a=(address,)))
            self.receivers[address] = Receiver(host, behaviour or Behaviour())
        else:
            address = known.a[0]
        self.zones.set(domain, Records(mx=((10, host),)))
        return self.receivers[address]

    @property
    def account(self) -> Account | None:
        """The one that sends unless another is named; None before it has sent."""
        return self.accounts.get("acme")

    async def send(
        self,
        recipients: Sequence[str],
        *,
        content: bytes = CONTENT,
        campaign: str | None = None,
        together: bool = False,
        account: str = "acme",
        needs_utf8: bool = False,
    ) -> list[int]:
        """Accept one message for each recipient, or one for all `together`; return the ids."""
        sender = self.accounts.get(account)
        if sender is None:
            key = ApiKey(f"key-{account}", 0, b"\0" * 32, START_UNIX_MS)
            made = Account(0, account, "", START_UNIX_MS)
            sender = self.accounts[account] = await self.spool.create_account(made, key)
        groups = [recipients] if together else [[recipient] for recipient in recipients]
        messages = [
            NewMessage(
                content,
                [self._new(name) for name in group],
                "a@out.example",
                campaign=campaign,
                needs_utf8=needs_utf8,
            )
            for group in groups
        ]
        (answer,) = await self.spool.accept([AcceptRequest(sender, messages)])
        assert isinstance(answer, Accepted)
        return [envelope.envelope_id for envelope in answer.envelopes]

    def _new(self, recipient: str) -> NewRecipient:
        self._uuids += 1
        domain = recipient.rpartition("@")[2]
        return NewRecipient(self._uuids.to_bytes(16, "big"), recipient, recipient, domain)

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[Delivery]:
        """Run the network and the room; at the end the room is cut off, as by a crash."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.network.serve)
            nursery.start_soon(self._sweep)
            delivery = self.new_delivery()
            await nursery.start(delivery.run)
            yield delivery
            nursery.cancel_scope.cancel()

    async def _sweep(self) -> None:
        while True:
            await self.spool.sweep(self.clock.now_unix_ms(), 500)
            await trio.sleep(5.0)

    def new_delivery(self) -> Delivery:
        return Delivery(
            self.spool,
            self.config,
            self.clock,
            random.Random(self.seed),
            TableResolver(self.zones, own_names=["out.example"]),
            self.network.connect,
            connections_max=self.connections_max,
        )

    async def settle_down(self, *, within_s: float = 3600.0) -> None:
        """Wait until no mail is open any more."""
        await self.wait_for(
            lambda: not self.spool.spool_statistics().envelopes_open, within_s=within_s
        )

    async def wait_for(self, condition: Callable[[], bool], *, within_s: float = 600.0) -> None:
        """Wait until `condition` holds; it is asked after every commit."""
        with trio.fail_after(within_s):
            while not condition():
                self._grown = trio.Event()
                await self._grown.wait()

    async def envelopes(self) -> list[Envelope]:
        found: list[Envelope] = []
        after = None
        while True:
            page = await self.spool.find(EnvelopeFilter(), after, 1000)
            found += page.envelopes
            after = page.after
            if after is None:
                return found

    async def counts(self) -> Mapping[Status, int]:
        return Counter(envelope.state.status for envelope in await self.envelopes())

    async def record(self, domain: str) -> DestinationRecord:
        return await self.spool.destination(domain) or DestinationRecord()

    async def faults(self) -> list[str]:
        """Return what is wrong with the spool's books: nothing, ever."""
        return await self.spool.check_invariants()

    async def story(self, envelope_id: int) -> list[Event]:
        envelope = await self.spool.envelope(envelope_id)
        assert envelope is not None
        return await self.spool.events_at(envelope.state.event_seqs)
