"""A disk with a volatile cache, a plugin of nbdkit: a power cut takes what was not flushed.

`nbdkit python volatile_disk.py image=FILE cut=FILE seed=N keep=SHARE`. Writes stay in memory until
a FLUSH. Once the file `cut` exists the power is off: of each sector written since the last FLUSH,
on its own, the newest octets reach the image with the probability `keep`; then nothing is read or
written any more. Knows no file system. It runs in nbdkit's Python, so it imports nothing of ours.
"""

import errno
import os
import random
from pathlib import Path

import nbdkit  # type: ignore[import-not-found]  # there only inside nbdkit

API_VERSION = 2
SECTOR = 512

_settings: dict[str, str] = {}
_unflushed: dict[int, bytes] = {}
_is_off = False
_image = -1


def config(key: str, value: str) -> None:
    _settings[key] = value


def thread_model() -> int:
    model: int = nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS
    return model


def get_ready() -> None:
    global _image
    _image = os.open(_settings["image"], os.O_RDWR)


def open(readonly: bool) -> int:
    return 1


def get_size(handle: int) -> int:
    return os.fstat(_image).st_size


def can_flush(handle: int) -> bool:
    return True


def can_fua(handle: int) -> int:
    emulated: int = nbdkit.FUA_EMULATE
    return emulated


def pread(handle: int, buffer: bytearray, offset: int, flags: int) -> None:
    _need_power()
    octets = bytearray(os.pread(_image, len(buffer), offset))
    for start in range(0, len(octets), SECTOR):
        newest = _unflushed.get((offset + start) // SECTOR)
        if newest is not None:
            octets[start : start + SECTOR] = newest
    buffer[:] = octets


def pwrite(handle: int, buffer: bytes, offset: int, flags: int) -> None:
    _need_power()
    octets = bytes(buffer)
    for start in range(0, len(octets), SECTOR):
        _unflushed[(offset + start) // SECTOR] = octets[start : start + SECTOR]


def flush(handle: int, flags: int) -> None:
    _need_power()
    _write_out(1.0)


def _need_power() -> None:
    global _is_off
    if not _is_off and Path(_settings["cut"]).exists():
        _is_off = True
        _write_out(float(_settings["keep"]))
    if _is_off:
        nbdkit.set_error(errno.EIO)
        raise RuntimeError("the power is off")


def _write_out(keep: float) -> None:
    chances = random.Random(_settings["seed"])
    for sector, octets in _unflushed.items():
        if chances.random() < keep:
            os.pwrite(_image, octets, sector * SECTOR)
    _unflushed.clear()
