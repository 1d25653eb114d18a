"""Which mails a server may have, kept where the death of the process does not reach it.

A mail whose final dot was sent, and whose answer is not committed, may be delivered or not. What is
in flight lives in memory only; this is a small file beside the spool, written without a sync: the
kernel keeps it when the process is killed. When the power goes it may be out of date, and tells of
too few. It decides nothing: the mails are sent again either way, and who starts next tells of them.

A slot is an envelope's id, the number of the attempt and a checksum; zeroes are a free one.
"""

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import Final
from zlib import crc32

from engine.spool.interface import SpoolUnusable

NAME: Final = "handed_over"
# Twice as many as delivery ever has without a commit; 128 kB.
SLOTS: Final = 8192
_SLOT: Final = Struct("<QII")
_KEY: Final = Struct("<QI")
_FREE: Final = bytes(_SLOT.size)


class HandedOver:
    """The open file. Raises OSError where it cannot be made; see `open_handed_over`."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # Written through memory: a page without a place on the disk would end the process.
            os.posix_fallocate(descriptor, 0, SLOTS * _SLOT.size)
            self._map = mmap.mmap(descriptor, SLOTS * _SLOT.size)
        finally:
            os.close(descriptor)
        self._places: dict[int, int] = {}
        self._attempts: dict[int, int] = {}
        self._free: list[int] = []
        for place in range(0, SLOTS * _SLOT.size, _SLOT.size):
            envelope_id, attempt, checksum = _SLOT.unpack_from(self._map, place)
            is_whole = checksum == crc32(_KEY.pack(envelope_id, attempt))
            if envelope_id and is_whole and envelope_id not in self._places:
                self._places[envelope_id] = place
                self._attempts[envelope_id] = attempt
            else:
                self._free.append(place)

    def noted(self) -> Mapping[int, int]:
        """Return the number of the attempt by envelope id."""
        return dict(self._attempts)

    def note(self, envelopes: Iterable[tuple[int, int]]) -> None:
        """Note ids and numbers of attempts before their final dot is sent."""
        for envelope_id, attempt in envelopes:
            place = self._places.get(envelope_id)
            if place is None:
                if not self._free:
                    continue  # Never, by delivery's own bound; and then the list is short of one.
                place = self._places[envelope_id] = self._free.pop()
            self._attempts[envelope_id] = attempt
            record = _SLOT.pack(envelope_id, attempt, crc32(_KEY.pack(envelope_id, attempt)))
            self._map[place : place + _SLOT.size] = record

    def clear(self, envelope_id: int) -> None:
        """Forget an envelope, after the commit of what came of it."""
        place = self._places.pop(envelope_id, None)
        if place is not None:
            del self._attempts[envelope_id]
            self._map[place : place + _SLOT.size] = _FREE
            self._free.append(place)

    def close(self) -> None:
        self._map.close()


@contextmanager
def open_handed_over(path: Path) -> Iterator[HandedOver]:
    """Open the file, or make it. Raises SpoolUnusable, saying why."""
    try:
        opened = HandedOver(path)
    except OSError as error:
        raise SpoolUnusable(f"spool file {path}: {error.strerror}") from error
    try:
        yield opened
    finally:
        opened.close()
