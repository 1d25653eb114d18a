"""Some of the mail is a template: what a campaign stores in place of a mail of its own.

Which mail that is hangs on its subject alone, so that a sender's second try is the same. What a
receiver must get then is a function of the stored envelope, and is made here once more at the end.
"""

from dataclasses import replace
from hashlib import blake2b
from typing import Final

from engine.delivery.filling import Sendable, Templates
from engine.spool.interface import AcceptRequest, Content, ContentKind, NewMessage
from protocols.addresses import Address, parse_address
from protocols.header_fields import Mailbox
from protocols.records import EnvelopeFixed
from protocols.templates import TemplateSource, compile_template
from protocols.variables import pack_variables

# One mail in so many.
SHARE: Final = 4
WORDS: Final = ("plain", "größer", "<b>", ".", "two\nlines", "Привет")


def with_letters(request: AcceptRequest) -> AcceptRequest:
    """Return the request with templates for some of its mails."""
    return replace(
        request,
        messages=[
            _as_letter(message)
            if message.kind is ContentKind.OCTETS and _number(message.subject) % SHARE == 0
            else message
            for message in request.messages
        ],
    )


def digest_of_letter(fixed: EnvelopeFixed, template: bytes) -> bytes:
    """Return the digest of what the receiver of such a mail must get."""
    sendable = Templates().sendable(fixed, Content(ContentKind.TEMPLATE, template))
    assert isinstance(sendable, Sendable), sendable
    return blake2b(sendable.octets, digest_size=16).digest()


def _as_letter(message: NewMessage) -> NewMessage:
    return replace(
        message,
        content=LETTER,
        kind=ContentKind.TEMPLATE,
        recipients=[
            replace(
                each,
                variables=pack_variables(
                    {
                        "subject": message.subject,
                        "word": WORDS[_number(each.recipient) % len(WORDS)],
                    }
                ),
            )
            for each in message.recipients
        ],
    )


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big")


def _letter() -> bytes:
    sender = parse_address("news@out.example")
    assert isinstance(sender, Address)
    source = TemplateSource(
        from_=Mailbox(sender),
        subject="{{subject}}",
        text="Dear {{address}},\n.\n..\n{{word}}\n",
        html="<p>{{word}}</p>",
    )
    return compile_template(source, host="out.example")


LETTER: Final = _letter()
