"""A body of any length, read as its reader goes on: what is not asked for stays with the client.

There is no limit on the whole and none on its time, but on the time without an octet, and on how
far it may fall behind a slow pace: a list of a million people may come as slowly as the spool takes
it in, and nearly as slowly as its sender makes it. What counts is the time that we wait for octets.
"""

from typing import Final

import h11
import trio

from engine.http_server.exchange import Services
from engine.http_server.values import BodyFault

# What arrives at once with a usual window; more would sit in memory for nothing.
READ_BYTES: Final = 65_536

# Chunks that are parsed between two turns of other tasks: some milliseconds. There may be ten
# thousand of one octet in what is read at once.
CHUNKS_AT_ONCE: Final = 1_000

GO_ON: Final = h11.InformationalResponse(status_code=100, headers=[])


class StreamedBody:
    """The body of the request that `connection` is in, as an async iterator of octets."""

    def __init__(
        self, connection: h11.Connection, stream: trio.abc.Stream, services: Services
    ) -> None:
        self._h11 = connection
        self._stream = stream
        self._services = services
        self._is_over = False
        self._fault: BodyFault | None = None
        # How much longer it may take, if nothing more came: octets add to it.
        self._patience_s = services.settings.stream_behind_s_max

    @property
    def is_broken(self) -> bool:
        """Whether nothing more can be read of it, although it is not whole."""
        return self._fault is not None

    def __aiter__(self) -> "StreamedBody":
        return self

    async def __anext__(self) -> bytes:
        """Return the next octets, at least one. Raises BodyFault once it breaks off."""
        while True:
            await trio.lowlevel.checkpoint()
            octets = self._parsed()
            if octets:
                return octets
            if self._fault is not None:
                raise self._fault
            if self._is_over:
                raise StopAsyncIteration
            await self._read()

    def _parsed(self) -> bytes:
        """Return what has arrived of the body; small chunks come together."""
        parts: list[bytes] = []
        while not self._is_over and self._fault is None and len(parts) < CHUNKS_AT_ONCE:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError:
                text = "The body broke off, or its chunks are not valid HTTP."
                self._fault = BodyFault(400, "body_broken", text)
                break
            if type(event) is h11.Data:
                parts.append(bytes(event.data))
            elif event is h11.NEED_DATA:
                break
            else:
                self._is_over = True
        return b"".join(parts)

    async def _read(self) -> None:
        services = self._services
        if services.stopping:
            text = "The engine is stopping; go on when it is back."
            self._fault = BodyFault(503, "stopping", text, headers=(("retry-after", "5"),))
            return
        settings = services.settings
        began_s = trio.current_time()
        with trio.move_on_after(min(settings.body_s, self._patience_s)) as scope:
            try:
                if self._h11.they_are_waiting_for_100_continue:
                    await self._stream.send_all(self._h11.send(GO_ON) or b"")
                octets = bytes(await self._stream.receive_some(READ_BYTES))
                self._h11.receive_data(octets)
                gained_s = len(octets) / settings.stream_bytes_per_s_min
                left_s = self._patience_s - (trio.current_time() - began_s) + gained_s
                self._patience_s = min(left_s, settings.stream_behind_s_max)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._fault = BodyFault(400, "body_broken", "The connection broke in the body.")
        if scope.cancelled_caught:
            services.timeouts += 1
            code, text = "timeout", f"Nothing of the body came for {settings.body_s:g} seconds."
            if self._patience_s < settings.body_s:
                code = "too_slow"
                text = (
                    f"The body came with less than {settings.stream_bytes_per_s_min} octets a "
                    "second for too long."
                )
            self._fault = BodyFault(408, code, text)
