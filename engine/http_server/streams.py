"""A stream that first gives back what was already read from it.

The websocket library reads the upgrade request itself, so the octets that h11
has seen are shown to it again. Sends are serialised here, whole call by whole
call: the library writes one frame per call, and so do we with frames that were
encoded once for many, so both may write without knowing of each other.
"""

import trio


class ReplayStream(trio.abc.Stream):
    """`stream` with `seen` in front of what it still has to say."""

    def __init__(self, stream: trio.abc.Stream, seen: bytes) -> None:
        self._stream = stream
        self._seen = seen
        self._sending = trio.StrictFIFOLock()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._seen:
            await trio.lowlevel.checkpoint()
            length = len(self._seen) if max_bytes is None else max_bytes
            data, self._seen = self._seen[:length], self._seen[length:]
            return data
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._sending:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()
