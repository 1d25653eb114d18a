"""Messages built from their parts: text, HTML, attachments and header fields to octets.

Owns the structure (RFC 2046: alternative, related and mixed, nested only as far as needed) and the
transfer encodings (RFC 2045). Written by hand because the standard library's builder takes twenty
times as long; the tests hold the two against each other.

What comes out has CRLF line ends and no other CR or LF, no octet above 127 but in the local parts
of addresses, and no line above 998 octets. It parses nothing, and it refuses by raising what
intake should have refused with a better word: control characters in headers, content types that
are none. `Bcc` has no place in a `Message`, so it cannot leak.
"""

import binascii
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from protocols.header_fields import (
    LINE_OCTETS_MAX,
    Mailbox,
    mailbox_field,
    parameter,
    text_field,
    value_field,
)

# RFC 2045 6.7 and 6.8: lines have at most 76 characters in both encodings.
_ENCODED_LINE: Final = 76
_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"
_CONTENT_TYPE: Final = re.compile(
    rf'({_TOKEN}/{_TOKEN})((?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|"[ !#-\[\]-~]*"))*)[ \t]*;?',
    re.ASCII,
)
_PARAMETER: Final = re.compile(rf'({_TOKEN})=({_TOKEN}|"[ !#-\[\]-~]*")', re.ASCII)
_CONTENT_ID: Final = re.compile(r"[!-;=?-~]{1,200}", re.ASCII)
# What plain text may not hold without an encoding: all controls but tab and the line end.
_CONTROLS: Final = bytes([*range(0x09), *range(0x0B, 0x20), 0x7F])
_HIGH_OCTETS: Final = bytes(range(128, 256))
# Long content types are attacks or accidents; every registered one with its parameters is shorter.
CONTENT_TYPE_CHARACTERS_MAX: Final = 200


class MimeError(ValueError):
    """A message was asked for that may not be written: the caller did not check."""


class Attachment(msgspec.Struct, frozen=True):
    """A file beside the text, or inside the HTML if it has a `content_id` (without brackets)."""

    content_type: str
    filename: str
    content: bytes
    content_id: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of one message. Texts have any line ends; `message_id` has its angle brackets."""

    from_: Mailbox
    to: tuple[Mailbox, ...]
    subject: str
    date: str
    message_id: str
    sender: Mailbox | None = None
    cc: tuple[Mailbox, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    text: str | None = None
    html: str | None = None
    attachments: tuple[Attachment, ...] = ()
    inline: tuple[Attachment, ...] = ()
    extra_fields: tuple[tuple[str, str], ...] = ()
    received: str = ""


class Built(msgspec.Struct, frozen=True):
    """A message's octets. `needs_utf8` says that an address in its header needs SMTPUTF8."""

    octets: bytes
    needs_utf8: bool


def is_content_type(text: str) -> bool:
    """Say whether an attachment can carry this content type; composite ones cannot, but a message.

    RFC 2046 5.1.1 gives multipart bodies a structure that no attachment of octets has.
    """
    return (
        len(text) <= CONTENT_TYPE_CHARACTERS_MAX
        and _CONTENT_TYPE.fullmatch(text) is not None
        and not text.lower().startswith("multipart/")
    )


def is_content_id(text: str) -> bool:
    """Say whether `text` can stand between the angle brackets of a Content-ID."""
    return _CONTENT_ID.fullmatch(text) is not None


class MessageBuilder:
    """Builds messages that may share parts: an encoded part or body is kept and used again.

    Keep one for the life of a request. `boundary_token` must be unguessable for the authors of the
    texts; it is in every boundary.
    """

    def __init__(self, boundary_token: str) -> None:
        self._token = boundary_token
        self._texts: dict[tuple[str, str], bytes] = {}
        self._attachments: dict[Attachment, bytes] = {}
        self._bodies: dict[object, bytes] = {}
        self._fields: dict[object, bytes] = {}

    def build(self, message: Message) -> Built:
        """Return the octets of `message`. Raises MimeError or FieldError for what is illegal."""
        mailboxes = [self._mailboxes("From", (message.from_,))]
        if message.sender is not None:
            mailboxes.append(self._mailboxes("Sender", (message.sender,)))
        for name, given in (
            ("To", message.to),
            ("Cc", message.cc),
            ("Reply-To", message.reply_to),
        ):
            if given:
                mailboxes.append(self._mailboxes(name, given))
        octets = join_message(
            received=message.received,
            mailboxes=mailboxes,
            subject=self._text_field("Subject", message.subject),
            date=message.date,
            message_id=message.message_id,
            extra_fields=[value_field(name, value) for name, value in message.extra_fields],
            body=self._body(message),
        )
        return Built(octets, _has_international_address(message))

    def _mailboxes(self, name: str, mailboxes: tuple[Mailbox, ...]) -> bytes:
        # The sender is the same in a whole batch; recipients hardly ever are.
        if name == "To":
            return mailbox_field(name, mailboxes)
        field = self._fields.get((name, mailboxes))
        if field is None:
            field = self._fields[name, mailboxes] = mailbox_field(name, mailboxes)
        return field

    def _text_field(self, name: str, text: str) -> bytes:
        field = self._fields.get((name, text))
        if field is None:
            field = self._fields[name, text] = text_field(name, text)
        return field

    def _body(self, message: Message) -> bytes:
        """Return the content fields, the empty line and the body."""
        key = (message.text, message.html, message.attachments, message.inline)
        body = self._bodies.get(key)
        if body is None:
            body = self._bodies[key] = self._build_body(message)
        return body

    def _build_body(self, message: Message) -> bytes:
        token = self._free_token(message)
        text = None if message.text is None else self._text("plain", message.text)
        html = None if message.html is None else self._text("html", message.html)
        beside = message.attachments
        if html is not None and message.inline:
            related = [html, *(self._attachment(part) for part in message.inline)]
            html = multipart("related", f"=_r_{token}", related, root="text/html")
        else:
            # Nothing can refer to them: better shown beside the text than lost.
            beside = message.inline + beside
        if text is not None and html is not None:
            body = multipart("alternative", f"=_a_{token}", [text, html])
        else:
            body = text or html or self._text("plain", "")
        if beside:
            parts = [body, *(self._attachment(part) for part in beside)]
            body = multipart("mixed", f"=_m_{token}", parts)
        return body

    def _free_token(self, message: Message) -> str:
        """Return a token that no part contains unencoded. QP and base64 never hold "=_"."""
        number = 0
        token = self._token
        texts = [text for text in (message.text, message.html) if text]
        texts += [
            part.content.decode("latin-1")
            for part in message.attachments + message.inline
            if _is_message(part)
        ]
        while any(f"_{token}" in text for text in texts):
            number += 1
            token = f"{self._token}.{number}"
        return token

    def _text(self, subtype: str, text: str) -> bytes:
        part = self._texts.get((subtype, text))
        if part is None:
            part = self._texts[subtype, text] = _text_part(subtype, text)
        return part

    def _attachment(self, attachment: Attachment) -> bytes:
        part = self._attachments.get(attachment)
        if part is None:
            part = self._attachments[attachment] = _attachment_part(attachment)
        return part


def received_over_http(host: str, identifier: str, date: str) -> str:
    """Return the value of the trace field of a mail that came in over HTTP at `host`.

    RFC 5321 4.4 wants both clauses; a request over HTTP comes from no mail host, and the address of
    whoever made it is not the recipient's business.
    """
    return f"from {host} (HTTP API) by {host} with HTTP id {identifier}; {date}"


def join_message(
    *,
    received: str,
    mailboxes: Sequence[bytes],
    subject: bytes,
    date: str,
    message_id: str,
    extra_fields: Sequence[bytes],
    body: bytes,
) -> bytes:
    """Return a whole message of fields that are made already, in the order that every mail has.

    `received` is the value of the trace field, "" for none; `body` begins with the content fields.
    """
    octets = b"".join(
        (
            value_field("Received", received) if received else b"",
            *mailboxes,
            subject,
            f"Date: {date}\r\nMessage-ID: {message_id}\r\n".encode(),
            *extra_fields,
            b"MIME-Version: 1.0\r\n",
            body,
        )
    )
    return octets if octets.endswith(b"\r\n") else octets + b"\r\n"


def encode_base64(octets: bytes) -> bytes:
    """Return base64 in CRLF lines of 76, without a line end after the last."""
    whole = binascii.b2a_base64(octets, newline=False)
    return b"\r\n".join(
        [whole[start : start + _ENCODED_LINE] for start in range(0, len(whole), _ENCODED_LINE)]
    )


def _text_part(subtype: str, text: str) -> bytes:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        octets = text.encode()
    except UnicodeEncodeError as error:
        raise MimeError(f"the text has half a surrogate pair at {error.start}") from error
    if text.isascii() and not has_long_line(octets) and not has_controls(octets):
        encoding, body = b"7bit", octets
    else:
        if prefers_quoted_printable(octets):
            encoding, body = b"quoted-printable", encode_quoted_printable(octets)
        else:
            encoding, body = b"base64", encode_base64(octets.replace(b"\n", b"\r\n"))
    if encoding != b"base64":
        body = body.replace(b"\n", b"\r\n")
    return text_part_head(subtype, encoding) + body


def text_part_head(subtype: str, encoding: bytes) -> bytes:
    """Return the content fields of a text part and the empty line after them."""
    return b"Content-Type: text/%s; charset=utf-8\r\nContent-Transfer-Encoding: %s\r\n\r\n" % (
        subtype.encode(),
        encoding,
    )


def prefers_quoted_printable(octets: bytes) -> bool:
    """Say whether quoted-printable is shorter than base64, about."""
    high = len(octets) - len(octets.translate(None, _HIGH_OCTETS))
    # Quoted-printable adds two octets for each encoded one, base64 a third to all.
    return high * 6 <= len(octets)


def encode_quoted_printable(octets: bytes) -> bytes:
    """Return RFC 2045 6.7 lines of at most 76, ending in LF like those of `octets`."""
    lines = binascii.b2a_qp(octets, istext=True).split(b"\n")
    for number, line in enumerate(lines):
        # The library encodes white space at a line's end after it has measured the line.
        if len(line) > _ENCODED_LINE:
            lines[number] = line[:-3] + b"=\n" + line[-3:]
    return b"\n".join(lines)


def has_controls(octets: bytes) -> bool:
    """Say whether plain text with LF line ends has what cannot go unencoded: all but tab and LF."""
    # Deleting them and comparing lengths takes a fifth of the time of a regular expression.
    return len(octets.translate(None, _CONTROLS)) != len(octets)


def has_long_line(octets: bytes) -> bool:
    """Say whether some line has more than 998 octets, at the cost of a few searches."""
    start = 0
    while len(octets) - start > LINE_OCTETS_MAX:
        end = octets.rfind(b"\n", start, start + LINE_OCTETS_MAX + 1)
        if end < 0:
            return True
        start = end + 1
    return False


def _attachment_part(attachment: Attachment) -> bytes:
    match = _CONTENT_TYPE.fullmatch(attachment.content_type)
    if match is None or not is_content_type(attachment.content_type):
        raise MimeError(f"{attachment.content_type!a} is no content type for an attachment")
    content_type = match[1]
    parameters = "".join(f";\r\n {name}={value}" for name, value in _PARAMETER.findall(match[2]))
    encoding = "base64"
    if content_type.lower().startswith("message/"):
        # RFC 2046 5.2.1 forbids encoding a message. One that cannot travel as it is goes as a file.
        if _is_message(attachment):
            encoding = "7bit"
        else:
            content_type, parameters = "application/octet-stream", ""
    disposition = "attachment"
    identity = ""
    if attachment.content_id:
        if not is_content_id(attachment.content_id):
            raise MimeError(f"{attachment.content_id!a} is no content id")
        disposition = "inline"
        identity = f"Content-ID: <{attachment.content_id}>\r\n"
    head = (
        f"Content-Type: {content_type}{parameters}\r\n"
        f"Content-Disposition: {disposition}{parameter('filename', attachment.filename)}\r\n"
        f"{identity}Content-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    body = attachment.content if encoding == "7bit" else encode_base64(attachment.content)
    return head.encode("ascii") + body


def _is_message(attachment: Attachment) -> bool:
    """Say whether this is a message in 7-bit CRLF lines, which may be attached unencoded."""
    content = attachment.content
    return (
        attachment.content_type.lower().startswith("message/rfc822")
        and content.isascii()
        and b"\0" not in content
        and content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")
        and not has_long_line(content)
    )


def multipart(subtype: str, boundary: str, parts: list[bytes], *, root: str = "") -> bytes:
    """Return the content fields, the empty line and the parts; no part may have the boundary."""
    delimiter = f"\r\n--{boundary}\r\n".encode()
    root_type = f';\r\n type="{root}"' if root else ""
    head = f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"{root_type}\r\n'
    return b"".join(
        (
            head.encode(),
            delimiter,
            delimiter.join(parts),
            f"\r\n--{boundary}--\r\n".encode(),
        )
    )


def _has_international_address(message: Message) -> bool:
    mailboxes = (message.from_, *message.to, *message.cc, *message.reply_to)
    if any(mailbox.address.needs_utf8 for mailbox in mailboxes):
        return True
    return message.sender is not None and message.sender.address.needs_utf8
