"""What a spool says of the disk below it: a part of `engine.spool.interface.Spool`."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class DiskRoom:
    """What is free below the spool; intake closes when that is less than the low-water mark."""

    free_bytes: int
    low_water_bytes: int


class DiskCalls(Protocol):
    """One call, which costs a system call and does not wait."""

    def disk_room(self) -> DiskRoom | None:
        """Return how much the disk has left; None for a spool that keeps nothing on one."""
        ...
