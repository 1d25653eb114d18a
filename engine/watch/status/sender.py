"""Tells subscribers: at once, or in digests, once each, whatever dies in between.

Owns what has been told. News are a stretch of the book's time (its updates have distinct times):
before the mails are handed in, the stretch is noted, and after them that it is done. A mail is
accepted with a digest over the stretch's end, what it tells of and whom; so whoever dies in between
begins the same stretch again, and what was accepted is not accepted a second time. Mail goes
through the engine itself, under its own account, which is made when the first mail is.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Final

import msgspec
import trio

from engine.config import StatusTable
from engine.spool.booking import zone_of
from engine.spool.interface import (
    AcceptRequest,
    CommitNotice,
    NewMessage,
    Spool,
    SpoolError,
    SpoolFull,
)
from engine.watch.status.book import StatusBook
from engine.watch.status.digests import last_due_unix_ms
from engine.watch.status.internal_account import internal_account
from engine.watch.status.links import Wish
from engine.watch.status.mails import MailWriter, Told
from engine.watch.status.subscribers import Frequency, Subscriber, Subscribers, compared
from protocols.records import DamagedRecord, Status, pack_record, unpack_record

LOOK_EVERY_S: Final = 30.0
# What was said up to the moment of a digest has been committed so long after it.
SETTLED_MS: Final = 10_000
# Between two of them others have the loop and the writer: a digest of a bad week takes half a
# millisecond to write.
MAILS_AT_ONCE: Final = 25
# Longer than any crash lasts in which somebody should still be told of what was before it.
DIGEST_LIVES_MS: Final = 7 * 86_400_000
STRETCH_NOTE: Final = "status/told/"
PAGE: Final = 1_000

logger = logging.getLogger(__name__)


class Stretch(msgspec.Struct, frozen=True, array_like=True):
    """Up to when everything was told, and up to when it is being told (0: nothing is)."""

    told_unix_ms: int
    telling_unix_ms: int = 0


class StatusSender:
    """`run` tells subscribers; `confirm` sends the mail that asks for a confirmation."""

    def __init__(
        self,
        spool: Spool,
        book: StatusBook,
        subscribers: Subscribers,
        writer: MailWriter,
        settings: StatusTable,
        *,
        now_unix_ms: Callable[[], int],
    ) -> None:
        self._spool = spool
        self._book = book
        self._subscribers = subscribers
        self._writer = writer
        self._hour = settings.digest_hour
        self._zone = zone_of(settings.time_zone)
        self._now_unix_ms = now_unix_ms
        self._stretches: dict[Frequency, Stretch] = {}
        # At a start it is not known what bounced before.
        self._has_bounced = True
        self._account_id: int | None = None
        spool.add_listener(self._committed)

    async def run(self) -> None:
        """Tell until cancelled. SpoolFailed ends it, and with it the process."""
        await self._book.load()
        await self._subscribers.load()
        await self._load_stretches()
        while True:
            version = self._book.version
            try:
                await self.look()
            except SpoolFull as error:
                logger.warning("status: subscribers are told later: %s", error)
            with trio.move_on_after(LOOK_EVERY_S):
                await self._book.wait_for_change(version)

    async def look(self) -> None:
        """Tell what is news now."""
        if not len(self._subscribers):
            return
        if self._has_bounced:
            self._has_bounced = False
            await self._end_bounced()
        # Up to what can be seen: what is being written now has a later time.
        await self._tell_up_to(Frequency.EACH, self._book.newest_unix_ms)
        settled_unix_ms = self._now_unix_ms() - SETTLED_MS
        for frequency in (Frequency.DAILY, Frequency.WEEKLY):
            due_unix_ms = last_due_unix_ms(settled_unix_ms, frequency, self._hour, self._zone)
            await self._tell_up_to(frequency, due_unix_ms)

    async def confirm(self, wish: Wish) -> None:
        """Send a confirmation. Raises SpoolError if it cannot be stored now."""
        await self._accept([(self._writer.confirmation(wish), None)])

    async def _tell_up_to(self, frequency: Frequency, until_unix_ms: int) -> None:
        # Without a note nobody was ever told anything; each is told only of what is later than his
        # subscription.
        stretch = self._stretches.get(frequency, Stretch(0))
        if stretch.telling_unix_ms:
            # Cut off by the end of the last process: that first, exactly as it was meant.
            await self._tell(frequency, stretch)
            stretch = self._stretches[frequency]
        if until_unix_ms > stretch.told_unix_ms:
            await self._tell(frequency, Stretch(stretch.told_unix_ms, until_unix_ms))

    async def _tell(self, frequency: Frequency, stretch: Stretch) -> None:
        until_unix_ms = stretch.telling_unix_ms
        wanted = [
            each for each in self._subscribers.of(frequency) if each.since_unix_ms < until_unix_ms
        ]
        news = self._news(stretch)
        done = Stretch(until_unix_ms)
        if not wanted or not (news or frequency is Frequency.WEEKLY):
            # Not worth a commit: after a restart there is still nothing to tell of this time.
            self._stretches[frequency] = done
            return
        await self._note(frequency, stretch)
        mails = self._mails(frequency, news, wanted, until_unix_ms)
        while chunk := list(islice(mails, MAILS_AT_ONCE)):
            await self._accept(chunk)
        await self._note(frequency, done)

    def _news(self, stretch: Stretch) -> list[Told]:
        """What was said within the stretch, by entry, in the order of the last word."""
        news: list[Told] = []
        for entry in self._book.entries:
            updates = tuple(
                each
                for each in entry.updates
                if stretch.told_unix_ms < each.at_unix_ms <= stretch.telling_unix_ms
            )
            if updates:
                news.append(Told(entry, updates))
        return sorted(news, key=lambda told: told.updates[-1].at_unix_ms)

    def _mails(
        self,
        frequency: Frequency,
        news: Sequence[Told],
        wanted: Sequence[Subscriber],
        until_unix_ms: int,
    ) -> Iterable[tuple[NewMessage, bytes]]:
        """Yield each mail with the digest that makes it go once."""
        for subscriber in wanted:
            address, language = subscriber.address, subscriber.reads
            own = [told for told in news if told.updates[-1].at_unix_ms > subscriber.since_unix_ms]
            if frequency is Frequency.EACH:
                for told in own:
                    digest = _digest(
                        frequency, until_unix_ms, told.entry.incident.incident_id, address
                    )
                    yield self._writer.update(told, address, language), digest
            elif own or frequency is Frequency.WEEKLY:
                digest = _digest(frequency, until_unix_ms, "", address)
                yield self._writer.digest(frequency, own, address, language), digest

    async def _accept(self, mails: Sequence[tuple[NewMessage, bytes | None]]) -> None:
        account = await internal_account(self._spool, make=True)
        assert account is not None
        self._account_id = account.account_id
        requests = [
            AcceptRequest(account, [message], digest=digest, digest_lives_ms=DIGEST_LIVES_MS)
            for message, digest in mails
        ]
        for answer in await self._spool.accept(requests):
            if isinstance(answer, SpoolError):
                raise answer

    async def _end_bounced(self) -> None:
        """Whose mailbox is not there any more is no subscriber."""
        account = await internal_account(self._spool, make=False)
        if account is None:
            return
        self._account_id = account.account_id
        known = {compared(each.address): each.address for each in self._subscribers.all()}
        after = ""
        while True:
            page = await self._spool.suppressions(account.account_id, after=after, limit=PAGE)
            for suppression in page:
                if suppression.address in known:
                    await self._subscribers.remove(known[suppression.address])
            if len(page) < PAGE:
                return
            after = page[-1].address

    def _committed(self, notice: CommitNotice) -> None:
        if self._account_id is not None and not self._has_bounced:
            self._has_bounced = any(
                event.status is Status.HARD_BOUNCED and event.account_id == self._account_id
                for event in notice.events
            )

    async def _load_stretches(self) -> None:
        for name, stored in await self._spool.notes(STRETCH_NOTE):
            try:
                frequency = Frequency(name.removeprefix(STRETCH_NOTE))
                self._stretches[frequency] = unpack_record(stored, Stretch)
            except (ValueError, DamagedRecord):
                continue

    async def _note(self, frequency: Frequency, stretch: Stretch) -> None:
        await self._spool.put_notes({STRETCH_NOTE + frequency.value: pack_record(stretch)})
        self._stretches[frequency] = stretch


def _digest(frequency: Frequency, until_unix_ms: int, incident_id: str, address: str) -> bytes:
    told = f"status mail\n{frequency.value}\n{until_unix_ms}\n{incident_id}\n{compared(address)}"
    return blake2b(told.encode(), digest_size=16).digest()
