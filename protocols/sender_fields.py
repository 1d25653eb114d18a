"""What a sender may say in a header, and how much: the same at every door and in templates.

A field that is ours to write is refused from a sender, and so is one that would change how the
message is read or tell of recipients.
"""

from typing import Final

# As documented by Mailjet, so that clients written for it meet no other limit.
SUBJECT_CHARACTERS_MAX: Final = 255
# Undocumented there. A name of 255 characters is already one that no person reads.
NAME_CHARACTERS_MAX: Final = 255
# A hundred is five times what mails have.
HEADERS_MAX: Final = 100
# Receivers refuse headers somewhere between 32 and 128 kB in all; one value gets the smallest part.
HEADER_CHARACTERS_MAX: Final = 8_192

# Mailjet's list, and what our own writer is answerable for: a second Content-Type would change how
# the message is read, Resent-Bcc and Apparently-To would tell of recipients.
_FORBIDDEN: Final = frozenset(
    (
        *("from", "sender", "subject", "to", "cc", "bcc", "date", "message-id", "mime-version"),
        *("return-path", "delivered-to", "received", "apparently-to", "list-id"),
        *("dkim-signature", "domainkey-status", "domainkey-signature", "received-spf"),
        *("authentication-results", "user-agent", "x-mailer", "x-feedback-id", "x-csa-complaints"),
    )
)
_FORBIDDEN_PREFIXES: Final = ("x-mj-", "x-mailjet-", "content-", "resent-", "arc-")


def may_be_set(name: str) -> bool:
    """Say whether a sender may bring a field of this name."""
    lower = name.lower()
    return lower not in _FORBIDDEN and not lower.startswith(_FORBIDDEN_PREFIXES)
