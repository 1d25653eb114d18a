"""Addresses of unix sockets below long paths.

The kernel's address field holds 107 octets, a data directory's path may be
longer. Linux lets us name a directory by an open descriptor, which is short.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ADDRESS_BYTES_MAX: Final = 107  # sun_path of unix(7) less the final zero.


@contextmanager
def unix_socket_address(path: Path) -> Iterator[str]:
    """Yield an address to bind or connect to for `path`, good while the block runs."""
    if len(os.fsencode(path)) <= ADDRESS_BYTES_MAX:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
