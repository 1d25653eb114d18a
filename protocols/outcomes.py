"""What a reply means for one envelope: delivered, deferred, bounced or not attempted.

The first digit decides; then come the exceptions, which mostly turn a failure
into a delay: a late mail can still be delivered and a bounced one cannot. The
reason is read from the enhanced status code first and from the words second.
When to try again, and what a status becomes, is `engine.delivery.disposition`.
"""

import re
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from protocols.records import Reason
from protocols.replies import Reply
from protocols.smtp_states import Stage

# `reply` is "CODE text" on one line. Words of our own, where the server said
# nothing, have the same form and stand in parentheses: "451 4.4.2 (no reply ...)".


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """The server took responsibility: 2yz to the final dot, nothing else."""

    reply: str = ""
    enhanced_status_code: str = "2.0.0"


class Deferred(msgspec.Struct, frozen=True, gc=False):
    """Not delivered this time; to be tried again."""

    enhanced_status_code: str
    reply: str
    reason: Reason
    stage: Stage


class Bounced(msgspec.Struct, frozen=True, gc=False):
    """Refused for good. `is_hard`: the recipient does not exist, so the address is suppressed."""

    enhanced_status_code: str
    reply: str
    reason: Reason
    stage: Stage
    is_hard: bool = False


class Unattempted(msgspec.Struct, frozen=True, gc=False):
    """Nothing was said about this envelope: no attempt is used up, it may go at once.

    `reply` and `reason` say why it had to stay behind.
    """

    reply: str
    reason: Reason


Outcome: TypeAlias = Delivered | Deferred | Bounced | Unattempted

# Reasons that say "there is no such recipient"; only these make a bounce hard.
HARD_REASONS: Final = frozenset({Reason.UNKNOWN_USER, Reason.NO_SUCH_DOMAIN, Reason.NULL_MX})

# Replies to these stages speak about the session. They never bounce a mail: the
# next MX host, or the same one an hour later, may think otherwise.
SESSION_STAGES: Final = frozenset(
    {Stage.CONNECT, Stage.BANNER, Stage.EHLO, Stage.STARTTLS, Stage.TLS, Stage.RSET, Stage.QUIT}
)


def outcome_of(reply: Reply, *, stage: Stage, recipients: int = 1) -> Outcome:
    """Return what `reply` to `stage` means for each envelope that it answers.

    `recipients` is how many envelopes share this reply: what is said to all of
    them after DATA names no one as unknown.
    """
    if reply.code < 400 and stage is Stage.DOT:
        enhanced = reply.enhanced_status_code
        return Delivered(reply.on_one_line, enhanced if enhanced.startswith("2.") else "2.0.0")
    reason = reason_of(reply, stage=stage)
    if reply.code < 500 or stage in SESSION_STAGES or _is_delay(reply, reason, stage):
        return Deferred(
            enhanced_status_code(reply, class_digit="4"), reply.on_one_line, reason, stage
        )
    is_about_recipient = stage is Stage.RCPT or (
        stage in (Stage.DATA, Stage.DOT) and recipients == 1
    )
    return Bounced(
        enhanced_status_code(reply, class_digit="5"),
        reply.on_one_line,
        reason,
        stage,
        is_hard=is_about_recipient and reason in HARD_REASONS,
    )


def enhanced_status_code(reply: Reply, *, class_digit: str) -> str:
    """Return the reply's enhanced code under the class that we go by.

    Servers do send "552 5.5.3" for too many recipients; a delay must not be
    reported with the code of a failure.
    """
    _, _, detail = reply.enhanced_status_code.partition(".")
    return f"{class_digit}.{detail or '0.0'}"


def is_too_many_recipients(reply: Reply, *, accepted: int) -> bool:
    """Whether a refusal of RCPT means "start another transaction for this one".

    RFC 5321 4.5.3.1.10 moved this meaning from 552 to 452, and servers of both
    ages are about. 452 also means a full disk or mailbox, so without the
    enhanced code the words decide, and only after another recipient was taken.
    """
    if reply.code not in (452, 552) or not accepted:
        return False
    if reply.enhanced_status_code:
        return reply.enhanced_status_code.endswith(".5.3")
    return "recipients" in reply.text.lower()


def lost(what: str, *, stage: Stage, reason: Reason = Reason.CONNECTION) -> Deferred:
    """Return the outcome when no reply came; `what` is ours. RFC 5321 3.8 counts it as 451."""
    enhanced = {
        Reason.TLS: "4.7.5",
        Reason.PROTOCOL: "4.5.0",
        Reason.CONNECTION: "4.4.1" if stage is Stage.CONNECT else "4.4.2",
    }.get(reason, "4.4.2")
    return Deferred(enhanced, f"451 {enhanced} ({what})", reason, stage)


def refused_locally(code: int, enhanced: str, what: str, reason: Reason) -> Bounced:
    """Return the outcome for a mail that we know the server cannot take; `what` is ours."""
    return Bounced(enhanced, f"{code} {enhanced} ({what})", reason, Stage.LOCAL)


def reason_of(reply: Reply, *, stage: Stage) -> Reason:
    """Return why: by enhanced code, made finer by the words, else by words, else by code."""
    words = reply.text.lower()
    _, _, detail = reply.enhanced_status_code.partition(".")
    if detail in _INTERNATIONAL:
        return Reason.PROTOCOL
    by_words = _reason_by_words(words, stage)
    by_code = _BY_DETAIL.get(detail) or _BY_SUBJECT.get(detail.partition(".")[0])
    if by_code is None or by_code in _VAGUE:
        return by_words or by_code or _reason_by_reply_code(reply.code, stage)
    if by_code in HARD_REASONS and (
        by_words in _NOT_ABOUT_RECIPIENT or stage not in (Stage.RCPT, Stage.DATA, Stage.DOT)
    ):
        # "550 5.1.1 ... blocked using zen.spamhaus.org" is about us, not about the user.
        return by_words if by_words in _NOT_ABOUT_RECIPIENT else Reason.POLICY
    return by_code


def _reason_by_reply_code(code: int, stage: Stage) -> Reason:
    if stage in SESSION_STAGES:
        return Reason.CONNECTION
    if code == 552:
        return Reason.MAILBOX_FULL if stage is Stage.RCPT else Reason.SIZE
    return _BY_REPLY_CODE.get(code, Reason.OTHER)


def _is_delay(reply: Reply, reason: Reason, stage: Stage) -> bool:
    """Whether a 5yz is a delay in truth."""
    if stage is Stage.RCPT and reply.code == 552:
        # Too many recipients, or a mailbox that is full today. After the final
        # dot 552 does mean that the mail is too large.
        return True
    # A server that lost count of our pipelined commands says 503; the mail is fine.
    return reply.code == 503 or reason is Reason.GREYLISTED


_NOT_ABOUT_RECIPIENT: Final = frozenset(
    {Reason.POLICY, Reason.SPAM, Reason.THROTTLED, Reason.GREYLISTED, Reason.RELAY_DENIED}
)
# Codes under which servers file nearly everything: the words know more.
_VAGUE: Final = frozenset({Reason.OTHER, Reason.POLICY, Reason.PROTOCOL})

# "subject.detail" of an enhanced code (RFC 3463, 5248, 7372, 7505).
_BY_DETAIL: Final = {
    "1.1": Reason.UNKNOWN_USER,
    "1.2": Reason.NO_SUCH_DOMAIN,
    "1.3": Reason.UNKNOWN_USER,
    "1.6": Reason.UNKNOWN_USER,
    "1.7": Reason.POLICY,
    "1.8": Reason.POLICY,
    "1.10": Reason.NULL_MX,
    "2.1": Reason.OTHER,
    "2.2": Reason.MAILBOX_FULL,
    "2.3": Reason.SIZE,
    "3.4": Reason.SIZE,
    "4.2": Reason.CONNECTION,
    "4.5": Reason.THROTTLED,
    "5.3": Reason.THROTTLED,
    "7.10": Reason.TLS,
    "7.28": Reason.THROTTLED,
}
# RFC 6531 section 4: addresses beyond ASCII are not taken. Servers put it in the words that they
# have for unknown users, and know nothing about the user.
_INTERNATIONAL: Final = frozenset({"6.7", "6.8", "6.9", "6.10"})
_BY_SUBJECT: Final = {
    "1": Reason.OTHER,
    "2": Reason.OTHER,
    "3": Reason.OTHER,
    "4": Reason.OTHER,
    "5": Reason.PROTOCOL,
    "6": Reason.PROTOCOL,
    "7": Reason.POLICY,
}
_BY_REPLY_CODE: Final = {
    421: Reason.CONNECTION,
    500: Reason.PROTOCOL,
    501: Reason.PROTOCOL,
    502: Reason.PROTOCOL,
    503: Reason.PROTOCOL,
    504: Reason.PROTOCOL,
    530: Reason.POLICY,
    535: Reason.POLICY,
    551: Reason.UNKNOWN_USER,
    555: Reason.PROTOCOL,
    556: Reason.NULL_MX,
}

# Looked up in this order; each is a plain substring of the reply in lower case,
# so a reply costs its length times a constant, whatever the peer writes.
_PHRASES: Final[Sequence[tuple[Reason, tuple[str, ...]]]] = (
    (Reason.GREYLISTED, ("greylist", "graylist", "grey list", "gray list", "come back later")),
    (
        Reason.THROTTLED,
        (
            "too many connections",
            "too many concurrent",
            "too many messages",
            "too many mails",
            "too many emails",
            "too many recipients",
            "too many errors",
            "too much mail",
            "rate limit",
            "ratelimit",
            "rate-limit",
            "rate that",
            "rate control",
            "sending rate",
            "throttl",
            "slow down",
            "too fast",
            "too quickly",
            "too busy",
            "server busy",
            "connection limit",
            "exceeded the limit",
            "temporarily deferred due to unexpected volume",
        ),
    ),
    (
        Reason.POLICY,
        (
            "blocklist",
            "block list",
            "blacklist",
            "black list",
            "blocked using",
            "spamhaus",
            "spamcop",
            "barracudacentral",
            "sorbs",
            "uceprotect",
            "dnsbl",
            " rbl",
            "reputation",
            "spf ",
            "dkim",
            "dmarc",
            "reverse dns",
            "ptr record",
            "unauthenticated",
        ),
    ),
    (Reason.SPAM, ("spam", "unsolicited", "junk mail", "bulk mail", "virus", "malware")),
    (
        Reason.RELAY_DENIED,
        ("relay", "rcpthosts", "not a local domain", "we do not accept mail for"),
    ),
    (
        Reason.MAILBOX_FULL,
        (
            "mailbox full",
            "mailbox is full",
            "inbox is full",
            "inbox full",
            "over quota",
            "overquota",
            "quota exceeded",
            "exceeded storage",
            "exceeds quota",
            "quota",
            "insufficient disk",
        ),
    ),
    (
        Reason.SIZE,
        (
            "message too large",
            "message too big",
            "size limit",
            "exceeds size",
            "message size exceeds",
            "exceeds maximum",
            "maximum message size",
            "size exceeds",
        ),
    ),
    (Reason.TLS, ("starttls", "encryption required", "tls required", "must use tls")),
    (
        Reason.POLICY,
        (
            "policy",
            "not authorized",
            "not permitted",
            "administrative",
            "prohibited",
            "access denied for",
            "your ip",
            "blocked",
        ),
    ),
)
_TRY_LATER: Final = "try again later"
# Looked for only where a recipient is spoken about.
_UNKNOWN_USER: Final = re.compile(
    r"user unknown|unknown user|no such (?:user|mailbox|recipient|address|person|account)"
    r"|unknown (?:recipient|mailbox|address|local)|user not found|user does ?n.t exist"
    r"|(?:mailbox|account|address|recipient|user)(?: was| is)? not found"
    r"|(?:recipient|mailbox|user|account|address)(?: address)? does not exist"
    r"|(?:account|mailbox|user|address)[a-z ]{0,40} (?:is|has been) (?:disabled|inactive)"
    r"|invalid (?:recipient|mailbox|user)|not a valid (?:user|mailbox|recipient)"
    r"|mailbox unavailable|no mailbox here|recipient unknown|recipient not found"
    r"|recipient address rejected: access denied|user is unknown|undeliverable address"
)


def _reason_by_words(words: str, stage: Stage) -> Reason | None:
    for reason, phrases in _PHRASES[:3]:
        if any(phrase in words for phrase in phrases):
            return reason
    if stage in (Stage.RCPT, Stage.DATA, Stage.DOT) and _UNKNOWN_USER.search(words):
        return Reason.UNKNOWN_USER
    for reason, phrases in _PHRASES[3:]:
        if any(phrase in words for phrase in phrases):
            return reason
    if stage is Stage.RCPT and _TRY_LATER in words:
        # What a greylisting server says that does not like the word.
        return Reason.GREYLISTED
    return None
