"""Who gets the status page by mail: confirmed addresses, kept in the spool's notes.

Only who has confirmed is here: until then everything is in the link that was sent, so that asking
for strangers leaves nothing behind. A change returns when it is durable.
"""

from enum import StrEnum
from hashlib import blake2b
from typing import Final

import msgspec
import trio

from engine.spool.interface import Spool
from protocols.addresses import Address, AddressFault, parse_address
from protocols.languages import Language
from protocols.records import DamagedRecord, pack_record, suppressed_address, unpack_record

SUBSCRIBER_PREFIX: Final = "status/subscriber/"
# All of them are in memory and are written to one after the other; a larger page wants a list
# server beside it.
SUBSCRIBERS_MAX: Final = 20_000


class Frequency(StrEnum):
    """How often somebody wants to hear."""

    EACH = "each"
    DAILY = "daily"
    WEEKLY = "weekly"


class Subscriber(msgspec.Struct, frozen=True, array_like=True):
    """`address` is as it was typed, `language` "de" or "en"; since when, in milliseconds."""

    address: str
    language: str
    frequency: Frequency
    since_unix_ms: int

    @property
    def reads(self) -> Language:
        return "de" if self.language == "de" else "en"


class SubscribersFull(Exception):
    """There is no place for one more."""


class Subscribers:
    """All subscribers. `load` comes before everything else."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._subscribers: dict[str, Subscriber] = {}
        self._writing = trio.Lock()
        self._is_loaded = False

    async def load(self) -> None:
        """Read who is there, once."""
        if self._is_loaded:
            return
        async with self._writing:
            if self._is_loaded:
                return
            for _, stored in await self._spool.notes(SUBSCRIBER_PREFIX):
                try:
                    subscriber = unpack_record(stored, Subscriber)
                except DamagedRecord:
                    continue
                self._subscribers[compared(subscriber.address)] = subscriber
            self._is_loaded = True

    def all(self) -> list[Subscriber]:
        """All of them, by address."""
        return [subscriber for _, subscriber in sorted(self._subscribers.items())]

    def of(self, frequency: Frequency) -> list[Subscriber]:
        return [each for each in self.all() if each.frequency is frequency]

    def __len__(self) -> int:
        return len(self._subscribers)

    async def put(self, subscriber: Subscriber) -> None:
        """Subscribe, or change how. Raises SubscribersFull.

        Whoever is there already keeps the time since when.
        """
        async with self._writing:
            key = compared(subscriber.address)
            known = self._subscribers.get(key)
            if known is None and len(self._subscribers) >= SUBSCRIBERS_MAX:
                raise SubscribersFull(f"there are {SUBSCRIBERS_MAX:,} subscribers already")
            if known is not None:
                subscriber = msgspec.structs.replace(subscriber, since_unix_ms=known.since_unix_ms)
            await self._spool.put_notes({_note(key): pack_record(subscriber)})
            self._subscribers[key] = subscriber

    async def remove(self, address: str) -> bool:
        """End a subscription; say whether there was one."""
        async with self._writing:
            key = compared(address)
            if key not in self._subscribers:
                return False
            await self._spool.put_notes({_note(key): None})
            del self._subscribers[key]
            return True


def mailbox(address: str) -> Address:
    """The parts of a subscriber's address, which was checked when it came in."""
    read = parse_address(address)
    assert not isinstance(read, AddressFault), read.text
    return read


def compared(address: str) -> str:
    """The form in which addresses are compared, here and in suppressions."""
    read = mailbox(address)
    return suppressed_address(read.wire, read.domain)


def _note(key: str) -> str:
    # Names are ASCII and short, addresses neither.
    return SUBSCRIBER_PREFIX + blake2b(key.encode(), digest_size=16).hexdigest()
