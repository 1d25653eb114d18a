"""A stream that first gives back what was already read from it.

The websocket library reads the upgrade request itself, so the octets that h11
has seen are shown to it again. Sends are serialised here, whole call by whole
call: the library writes one frame per call, and so do we with frames that were
encoded once for many, so both may write without knowing of each other.
"""

import os

import trio


class ReplayStream(trio.abc.Stream):
    """`stream` with `seen` in front of what it still has to say.

    `received` counts what came since whoever reads last set it to 0. Beyond `received_max` the
    client is cut off: the library keeps a list of the fragments of a message, and empty ones add
    nothing to the size that it bounds. `is_whole` says that all that was begun was sent, so that
    something may follow.
    """

    def __init__(self, stream: trio.abc.Stream, seen: bytes) -> None:
        self.received = 0
        self.received_max: int | None = None
        self.is_whole = True
        self._stream = stream
        self._seen = seen
        self._sending = trio.StrictFIFOLock()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._seen:
            await trio.lowlevel.checkpoint()
            length = len(self._seen) if max_bytes is None else max_bytes
            data, self._seen = self._seen[:length], self._seen[length:]
            return data
        data = bytes(await self._stream.receive_some(max_bytes))
        self.received += len(data)
        if self.received_max is not None and self.received > self.received_max:
            raise trio.BrokenResourceError("too much was said without a message in it")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._sending:
            self.is_whole = False  # And stays so if we are cancelled here.
            await self._stream.send_all(data)
            self.is_whole = True

    def send_nowait(self, data: bytes) -> int:
        """Send what the kernel takes at once and return how much that was, without waiting.

        0 while somebody else is sending. After a part, `send_all` of the rest has to follow before
        any other await. A frame to each of a hundred subscribers costs half as much this way.
        """
        if self._sending.locked() or not isinstance(self._stream, trio.SocketStream):
            return 0
        try:
            sent = os.write(self._stream.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError("the client is gone") from error
        self.is_whole = sent == len(data)
        return sent

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()
