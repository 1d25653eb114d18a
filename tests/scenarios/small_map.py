"""The engine with a spool that can hold eight megabytes: a full map without filling a disk.

`python -m tests.scenarios.small_map` takes the words of `eilpost`.
"""

from typing import Any

from engine.cli import main
from engine.spool import lmdb_spool

MAP_OCTETS = 8 * 1024 * 1024

if __name__ == "__main__":
    opening: Any = lmdb_spool.open_lmdb_spool
    opening.__wrapped__.__kwdefaults__["map_octets"] = MAP_OCTETS
    main()
