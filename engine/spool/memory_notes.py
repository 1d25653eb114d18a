"""Notes in the `memory:` adapter; see `engine.spool.note_calls`."""

from collections.abc import Mapping

import trio

from engine.spool.memory_data import MemoryData


class MemoryNotes:
    """A part of `MemorySpool`, which sets `_data`."""

    _data: MemoryData

    async def put_notes(self, notes: Mapping[str, bytes | None]) -> None:
        await trio.lowlevel.checkpoint()
        for name, value in notes.items():
            if value is None:
                self._data.notes.pop(name, None)
            else:
                self._data.notes[name] = value

    async def notes(self, prefix: str) -> list[tuple[str, bytes]]:
        await trio.lowlevel.checkpoint()
        return sorted(each for each in self._data.notes.items() if each[0].startswith(prefix))
