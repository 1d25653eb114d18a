"""What a spool keeps for other rooms: small values under names, of which it knows nothing more."""

from collections.abc import Mapping
from typing import Protocol


class NoteCalls(Protocol):
    """Notes: a few kilobytes at most under a name of up to 400 octets of ASCII."""

    async def put_notes(self, notes: Mapping[str, bytes | None]) -> None:
        """Store all of these or none; None removes. Returns when it is durable."""
        ...

    async def notes(self, prefix: str) -> list[tuple[str, bytes]]:
        """Return the notes whose names begin so, in the order of their names.

        A note that was damaged on disk is not among them.
        """
        ...
