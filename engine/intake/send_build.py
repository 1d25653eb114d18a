"""Checked drafts to what the spool accepts: octets, envelopes and their identifiers.

Owns the trace fields: Date, Message-ID and Received say when, where and by which door a message
came in, and nothing about who handed it in (RFC 5321 7.2 and 7.6). Bcc recipients become envelopes
and leave no trace in the octets.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from engine.intake.send_check import Draft
from engine.spool.interface import NewMessage, NewRecipient
from protocols.header_fields import Mailbox, format_date
from protocols.mime import Message, MessageBuilder, received_over_http
from protocols.records import parts_number

# All messages of one request in memory. A 15 MB attachment in `Globals` is one of 20 MB in each of
# 50 messages; what exceeds this has to come in several requests.
BUILT_OCTETS_MAX: Final = 64 * 1024 * 1024


class BuiltMessage(NamedTuple):
    """`messages` for the spool, and for each recipient (To, Cc, Bcc) its place among their
    envelopes."""

    messages: list[NewMessage]
    places: list[int]


class BatchBuilder:
    """Builds the messages of one request: one time, one trace, shared parts encoded once."""

    def __init__(
        self, ehlo_name: str, now_unix_ms: int, random_octets: Callable[[int], bytes]
    ) -> None:
        self._random_octets = random_octets
        self._date = format_date(now_unix_ms / 1000)
        self._host = ehlo_name
        self._builder = MessageBuilder(random_octets(12).hex())
        self._octets = 0

    def build(self, draft: Draft) -> BuiltMessage | None:
        """Return the message, or None if the request's messages together are too big."""
        identifier = uuid4(self._random_octets(16)).hex()
        built = self._builder.build(
            Message(
                received=received_over_http(self._host, identifier, self._date),
                from_=draft.from_,
                sender=draft.sender,
                to=draft.to,
                cc=draft.cc,
                reply_to=(draft.reply_to,) if draft.reply_to else (),
                subject=draft.subject,
                date=self._date,
                message_id=f"<{identifier}@{draft.from_.address.domain}>",
                extra_fields=draft.extra_fields,
                text=draft.text,
                html=draft.html,
                attachments=draft.attachments,
                inline=draft.inline,
            )
        )
        self._octets += len(built.octets)
        if self._octets > BUILT_OCTETS_MAX:
            return None
        recipients = (*draft.to, *draft.cc, *draft.bcc)
        groups = _by_need(recipients, header_needs_utf8=built.needs_utf8)
        places = [0] * len(recipients)
        for place, number in enumerate(number for _, numbers in groups for number in numbers):
            places[number] = place
        messages = [
            self._message(
                draft,
                built.octets,
                [recipients[n] for n in numbers],
                needs_utf8=needs_utf8,
                with_last=place > 0,
            )
            for place, (needs_utf8, numbers) in enumerate(groups)
        ]
        return BuiltMessage(messages, places)

    def _message(
        self,
        draft: Draft,
        octets: bytes,
        recipients: list[Mailbox],
        *,
        needs_utf8: bool,
        with_last: bool,
    ) -> NewMessage:
        random_octets = self._random_octets(16 * len(recipients))
        return NewMessage(
            content=octets,
            recipients=[
                NewRecipient(
                    uuid=uuid4(random_octets[16 * number : 16 * number + 16]),
                    recipient=mailbox.address.wire,
                    address=mailbox.address.as_given,
                    destination=mailbox.address.domain,
                )
                for number, mailbox in enumerate(recipients)
            ],
            reverse_path=(draft.sender or draft.from_).address.wire,
            subject=draft.subject,
            campaign=draft.campaign,
            custom_id=draft.custom_id,
            event_payload=draft.event_payload,
            lane=draft.lane,
            needs_utf8=needs_utf8,
            parts=parts_number(
                has_text=bool(draft.text),
                has_html=bool(draft.html),
                attachments=len(draft.attachments) + len(draft.inline),
            ),
            with_last=with_last,
        )


def _by_need(
    recipients: tuple[Mailbox, ...], *, header_needs_utf8: bool
) -> list[tuple[bool, list[int]]]:
    """Group the recipients' numbers by whether their servers must know SMTPUTF8.

    A Bcc address beyond ASCII is not in the header, so it must not cost the others their mail.
    """
    international = [n for n, mailbox in enumerate(recipients) if mailbox.address.needs_utf8]
    if header_needs_utf8 or not international:
        return [(header_needs_utf8, list(range(len(recipients))))]
    others = [n for n, mailbox in enumerate(recipients) if not mailbox.address.needs_utf8]
    return [
        (need, numbers) for need, numbers in ((False, others), (True, international)) if numbers
    ]


def uuid4(random_octets: bytes) -> bytes:
    """Return 16 random octets with the version and variant of RFC 9562 section 5.4."""
    octets = bytearray(random_octets)
    octets[6] = octets[6] & 0x0F | 0x40
    octets[8] = octets[8] & 0x3F | 0x80
    return bytes(octets)
