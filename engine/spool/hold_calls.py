"""What a spool knows about holds: a part of `engine.spool.interface.Spool`, which says the rest.

A hold is a row with a filter, judged whenever an actor pulls: no envelope is written for it.
Expiry does not wait for it: a held mail that becomes too old is ended like any other.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import msgspec

from protocols.records import Envelope

# The end of a hold that somebody has to lift, in places that need a time. No clock comes there.
NO_END_UNIX_MS: Final = 2**62


class MailFilter(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Which mail: all of what is given has to fit; None fits everything.

    `site` is as destinations show it, `reply` a text within the mail's last reply, in any case,
    `older_ms` an age since acceptance that the mail has reached, and `address` the recipient's as
    it was given.
    """

    account_id: int | None = None
    campaign: str | None = None
    destination: str | None = None
    site: str | None = None
    reply: str | None = None
    older_ms: int | None = None
    address: str | None = None

    @property
    def is_of_flow(self) -> bool:
        """Whether all mails of a flow at one destination fit, or none."""
        return self.reply is None and self.older_ms is None and self.address is None

    @property
    def is_of_destination(self) -> bool:
        """Whether all mails of a destination fit, or none."""
        return self.is_of_flow and self.account_id is None and self.campaign is None

    def fits_place(self, destination: str, site: str) -> bool:
        return self.destination in (None, destination) and self.site in (None, site)

    def fits_flow(self, account_id: int, campaign: str | None) -> bool:
        return self.account_id in (None, account_id) and self.campaign in (None, campaign)

    def fits(self, envelope: Envelope, site: str, now_unix_ms: int) -> bool:
        fixed = envelope.fixed
        return (
            self.fits_place(fixed.destination, site)
            and self.fits_flow(fixed.account_id, fixed.campaign)
            and self.fits_state(envelope, now_unix_ms)
        )

    def fits_state(self, envelope: Envelope, now_unix_ms: int) -> bool:
        """Say whether reply, age and address fit."""
        fixed, state = envelope.fixed, envelope.state
        if self.address is not None and fixed.address != self.address:
            return False
        return (self.reply is None or self.reply.casefold() in state.reply.casefold()) and (
            self.older_ms is None or now_unix_ms - fixed.accepted_unix_ms >= self.older_ms
        )


class Hold(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A suspension. `until_unix_ms` None: until it is lifted. `owner_id` 0 is an operator.

    `hold_id` is chosen by the spool. `is_lifted` marks one that holds nothing any more, while the
    destinations it held are still being woken.
    """

    hold_id: int
    wanted: MailFilter
    until_unix_ms: int | None
    who: str
    why: str
    since_unix_ms: int
    owner_id: int = 0
    is_lifted: bool = False

    @property
    def end_unix_ms(self) -> int:
        return NO_END_UNIX_MS if self.until_unix_ms is None else self.until_unix_ms

    def holds_at(self, now_unix_ms: int) -> bool:
        return not self.is_lifted and self.end_unix_ms > now_unix_ms


class HoldCalls(Protocol):
    """Holds. Changes are durable and felt by every later window when a call returns."""

    async def put_hold(self, hold: Hold) -> Hold:
        """Store a hold and return it with its id. SpoolError if there are too many."""
        ...

    async def lift_holds(self, hold_ids: Sequence[int]) -> None:
        """End holds and wake what they held; ids that are not there are passed over."""
        ...

    def holds(self) -> Sequence[Hold]:
        """Return the holds that hold now, oldest first."""
        ...

    def hold_of_destination(self, destination: str, site: str) -> Hold | None:
        """Return what holds all mail of a destination; of several the one that ends last."""
        ...

    def hold_of(self, envelope: Envelope, site: str) -> Hold | None:
        """Return what holds one mail of a destination with this site; likewise."""
        ...

    def in_flight(self, envelope_ids: Iterable[int]) -> frozenset[int]:
        """Return those that are claimed now: what operators decide does nothing to them."""
        ...

    def next_hold_end_unix_ms(self) -> int | None:
        """Return when the next hold ends by itself."""
        ...
