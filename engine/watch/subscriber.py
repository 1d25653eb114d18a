"""One subscriber: a websocket whose reader takes requests and whose writers follow the log.

There is always a reader, or pings and closes would go unanswered. Each subject
has its own writer; all of them write whole frames to the same stream, which
keeps frames apart. There is no queue of events: a writer that waits for a slow
client falls behind and later reads older events. A client that takes nothing for
`SEND_S` is cut off, since half a frame may be on its way and nothing can follow it.
"""

from collections.abc import Callable
from typing import Final, NoReturn

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from engine.http_server import Identity, ReplayStream
from engine.spool.interface import EventFilter, Spool
from engine.watch.admittance import Admittance, Dismissal
from engine.watch.boards import Boards, Subject
from engine.watch.hub import EventHub, Place, place_of
from engine.watch.messages import reader_of
from protocols.languages import Language
from protocols.stream_frames import (
    FrameError,
    Frames,
    Subscribe,
    Wanted,
    Watch,
    error_frame,
    websocket_frame,
)

SEND_S: Final = 30.0
# Twice a minute keeps the usual gateways' idle timers from firing.
PING_S: Final = 25.0
# A ping may stand behind a frame that is being sent, and its pong behind as much on the way back.
PONG_S: Final = 2 * SEND_S
# How far a filtered subscriber's cursor may lag behind what was looked at before it is told.
EMPTY_BATCH_S: Final = 0.25
# Answers to frames that we refuse; who sends more of them than it reads is cut off.
ERRORS_MAX: Final = 16
# To say why we hang up, and for the client to answer the close.
CLOSE_S: Final = 2.0
POLICY_VIOLATION: Final = 1008  # RFC 6455 7.4.1, and the nearest to a lost right.


class SubscriberLost(Exception):
    """The client does not take what it is sent, floods us, or may not be here any more."""


class _Subscription:
    def __init__(self, place: Place, wanted: EventFilter) -> None:
        self.place = place
        self.wanted = wanted
        self.is_replaced = False
        self.waiting = trio.CancelScope()

    def replace(self) -> None:
        self.is_replaced = True
        self.waiting.cancel()


class Subscriber:
    """Serves one client until it goes. `stream` is what `websocket` writes to, too."""

    def __init__(
        self,
        websocket: WebSocketConnection,
        stream: ReplayStream,
        frames: Frames,
        identity: Identity,
        *,
        spool: Spool,
        hub: EventHub,
        boards: Boards,
        language: Language,
    ) -> None:
        self._websocket = websocket
        self._stream = stream
        self._frames = frames
        self._identity = identity
        self._spool = spool
        self._hub = hub
        self._boards = boards
        self._language = language
        self._subscription: _Subscription | None = None
        self._subscribed = trio.Event()
        self._watching: set[Subject] = set()
        self._admittance = Admittance(spool, identity)
        self._is_dismissed = False

    async def run(self) -> None:
        """Return when the client has closed. Raises SubscriberLost, possibly in a group."""
        errors, errors_to_send = trio.open_memory_channel[bytes](ERRORS_MAX)
        async with trio.open_nursery() as writers, errors:
            writers.start_soon(self._write_events)
            writers.start_soon(self._write_errors, errors_to_send)
            writers.start_soon(self._ping)

            def watch(asked: Watch) -> None:
                if asked.subject not in self._watching:
                    self._watching.add(asked.subject)
                    language = asked.language or self._language
                    writers.start_soon(self._write_board, asked.subject, language)

            try:
                await self._read(errors, watch)
            except ConnectionClosed:
                writers.cancel_scope.cancel()

    async def _read(
        self, errors: trio.MemorySendChannel[bytes], watch: Callable[[Watch], None]
    ) -> None:
        while True:
            message = await self._websocket.get_message()
            self._stream.received = 0
            try:
                asked = self._frames.parse(message)
                if isinstance(asked, Watch):
                    watch(asked)
                else:
                    self._subscribe(asked)
            except FrameError as error:
                frame = self._frame(error_frame(error.code, error.message))
                try:
                    errors.send_nowait(frame)
                except trio.WouldBlock:
                    raise SubscriberLost(
                        "refused frames are sent faster than answers are read"
                    ) from error

    def _subscribe(self, asked: Subscribe) -> None:
        place = place_of(self._spool, self._hub.head_seq, asked.after)
        if self._subscription is not None:
            self._subscription.replace()
        account = reader_of(self._identity)
        account_id = None if account is None else account.account_id
        self._subscription = _Subscription(place, event_filter(asked.wanted, account_id))
        self._subscribed.set()

    async def _write_events(self) -> None:
        await self._subscribed.wait()
        while self._subscription is not None:
            await self._follow(self._subscription)

    async def _follow(self, subscription: _Subscription) -> None:
        """Send batch after batch until another subscription takes this one's place."""
        hub, binary = self._hub, self._frames.binary
        seq = told_seq = subscription.place.seq
        if subscription.place.lost_from:
            await self._send(hub.gap(subscription.place.lost_from, seq, binary=binary))
        told_s = float("-inf")  # The first batch says where we are, even if it is empty.
        while not subscription.is_replaced:
            batch = await hub.batch_after(seq, told_seq, subscription.wanted, binary=binary)
            seq = batch.seq
            now_s = trio.current_time()
            is_due = now_s - told_s >= EMPTY_BATCH_S and (seq != told_seq or told_s < 0)
            if batch.events or batch.has_gap or is_due:
                await self._send(batch.frames)
                told_seq, told_s = seq, now_s
            if seq >= hub.head_seq:
                until_s = told_s + EMPTY_BATCH_S if seq != told_seq else float("inf")
                subscription.waiting.deadline = until_s
                with subscription.waiting:
                    await hub.wait_beyond(seq)
                if not subscription.is_replaced:
                    subscription.waiting = trio.CancelScope()

    async def _write_board(self, subject: Subject, language: Language) -> None:
        version = 0
        with self._boards.watched(subject, reader_of(self._identity), language) as board:
            while True:
                await board.wait_beyond(version)
                frames = board.frames_since(version, binary=self._frames.binary)
                version = board.version
                for frame in frames:
                    await self._send(frame)

    async def _write_errors(self, errors: trio.MemoryReceiveChannel[bytes]) -> None:
        async for frame in errors:
            await self._send(frame)

    async def _ping(self) -> None:
        while True:
            await trio.sleep(PING_S)
            await self._ensure_admitted()  # Nothing may be sent for hours.
            try:
                with trio.fail_after(PONG_S):
                    await self._websocket.ping()
            except trio.TooSlowError as error:
                raise SubscriberLost("no answer to a ping") from error
            except ConnectionClosed:
                return  # The reader hears of it too, and ends everything.

    async def _ensure_admitted(self) -> None:
        """Go on only if the account and its key are still good."""
        while not self._admittance.is_certain:
            dismissal = await self._admittance.dismissal()
            if dismissal is not None:
                await self._dismiss(dismissal)

    async def _dismiss(self, dismissal: Dismissal) -> NoReturn:
        if self._is_dismissed:
            await trio.sleep_forever()  # Another writer is saying it.
        self._is_dismissed = True
        # Closing ends the reader, and that cancels the writers: not before all has been said.
        with trio.move_on_after(CLOSE_S, shield=True):
            frame = self._frame(error_frame(dismissal.code, dismissal.text))
            await self._stream.send_all(frame)
            await self._websocket.aclose(POLICY_VIOLATION, dismissal.code)
        raise SubscriberLost(dismissal.text)

    async def _send(self, frames: bytes) -> None:
        await self._ensure_admitted()
        sent = self._stream.send_nowait(frames)
        if sent == len(frames):
            return
        with trio.move_on_after(SEND_S) as limit:
            await self._stream.send_all(frames[sent:])
        if limit.cancelled_caught:
            raise SubscriberLost(f"took nothing for {SEND_S:.0f} s")

    def _frame(self, value: dict[str, object]) -> bytes:
        return websocket_frame(self._frames.encode(value), binary=self._frames.binary)


def event_filter(wanted: Wanted, account_id: int | None) -> EventFilter:
    """The spool's filter for what a reader wants and, with `account_id`, may see."""
    return EventFilter(
        account_id=account_id,
        accounts=wanted.accounts,
        campaigns=wanted.campaigns,
        destinations=wanted.destinations,
        envelope_ids=wanted.message_ids,
        statuses=wanted.statuses,
        reasons=wanted.reasons,
    )
