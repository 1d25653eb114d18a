"""How much content may be in memory for delivery, over all destinations, and who waits for room."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from engine.delivery.filling import Templates

# One hop into a thread fetches this much: a hundred mails of 10 kB, so that the hop is cheap.
LOAD_BYTES: Final = 1024 * 1024
# All content in memory for delivery. Two thousand actors with fifty mails each would be a
# gigabyte without it.
CONTENT_BYTES_MAX: Final = 96 * 1024 * 1024
# Contents that are a load of their own get a third of it: such mail is rare and may take turns.
LARGE_SHARE: Final = 3


@dataclass(eq=False, slots=True)
class Share:
    """Room for so many octets of content; `granted` is called if it had to be waited for."""

    octets: int
    granted: Callable[[], None]
    is_granted: bool = False


class ContentRoom:
    """Octets of content that may be in memory; who finds none left is served in order."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._free = bytes_max
        self._waiting: deque[Share] = deque()

    @property
    def used(self) -> int:
        return self._bytes_max - self._free

    @property
    def free(self) -> int:
        return self._free

    def ask(self, size: int, granted: Callable[[], None]) -> Share:
        """Return room for `size` octets, which may be granted only later.

        Its octets are to be given back, or it is withdrawn while it waits.
        """
        # What is larger than the whole budget travels alone.
        share = Share(min(size, self._bytes_max), granted)
        if not self._waiting and share.octets <= self._free:
            self._free -= share.octets
            share.is_granted = True
        else:
            self._waiting.append(share)
        return share

    def withdraw(self, share: Share) -> None:
        """Make no use of `share`, granted or not."""
        if share.is_granted:
            self.give_back(share.octets)
        else:
            self._waiting.remove(share)
            self._grant()

    def give_back(self, size: int) -> None:
        self._free += size
        self._grant()

    def exceed(self, size: int) -> None:
        """Take room for what is in memory already, whether it is there; others wait for longer."""
        self._free -= size

    def _grant(self) -> None:
        while self._waiting and self._waiting[0].octets <= self._free:
            share = self._waiting.popleft()
            self._free -= share.octets
            share.is_granted = True
            share.granted()


class ContentBudget:
    """All content in memory for delivery, in two rooms.

    A receiver that takes nothing keeps what is in memory for it. So no destination gets more than
    it leaves free: one that stalls has half of a room, nine have nine tenths. Contents larger than
    a usual load have a room of their own, where a few can take all of it.
    """

    def __init__(self, bytes_max: int = CONTENT_BYTES_MAX) -> None:
        self._usual = ContentRoom(bytes_max - bytes_max // LARGE_SHARE)
        self._large = ContentRoom(bytes_max // LARGE_SHARE)
        self.templates = Templates()

    @property
    def used(self) -> int:
        return self._usual.used + self._large.used

    def room_for(self, size: int) -> ContentRoom:
        """Return where a load of `size` octets has its place."""
        return self._large if size > LOAD_BYTES else self._usual

    def may_ask(self, size: int, *, held: int) -> bool:
        """Say whether a destination that holds `held` octets may ask for `size` more now."""
        return not held or held < self.room_for(size).free
