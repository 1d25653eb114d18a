"""Which addresses are suppressed, and for how long: pure, and the same for every adapter.

Every hard bounce suppresses: nobody is there, whether the receiver said so or the domain has no
receiver. Nothing else does: a refusal for policy is about us, and a soft bounce about that day.
"""

from typing import Final

from protocols.records import (
    EnvelopeFixed,
    EnvelopeState,
    Status,
    Suppression,
    suppressed_address,
)

HARD_BOUNCE_MS: Final = 90 * 86_400_000

# What is longer than any address can be would not fit into a key; nothing is delivered to it.
ADDRESS_OCTETS_MAX: Final = 480


def after_change(fixed: EnvelopeFixed, state: EnvelopeState) -> Suppression | None:
    """Return what a new state of an envelope suppresses; None for most."""
    if state.status is not Status.HARD_BOUNCED:
        return None
    address = suppressed_address(fixed.recipient, fixed.destination)
    if len(address.encode("utf-8", "surrogatepass")) > ADDRESS_OCTETS_MAX:
        return None
    since_unix_ms = state.finished_unix_ms
    return Suppression(
        address, since_unix_ms, since_unix_ms + HARD_BOUNCE_MS, state.reply, fixed.envelope_id
    )


def is_over(suppression: Suppression, now_unix_ms: int) -> bool:
    return 0 < suppression.until_unix_ms <= now_unix_ms


def outlasts(old: Suppression | None, new: Suppression, now_unix_ms: int) -> bool:
    """Say whether an old suppression holds longer than a new one, and so stays as it is."""
    if old is None or is_over(old, now_unix_ms):
        return False
    return old.until_unix_ms == 0 or 0 < new.until_unix_ms < old.until_unix_ms
