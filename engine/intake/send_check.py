"""One message of a request: may it be sent, and if not, why not, all faults at once?

Owns the meaning and the limits of each property. A property that asks for something this server
does not do is refused, never dropped: a template that is not filled in is a worse mail than none.
The one exception is tracking, which changes nothing in what the recipient reads: it is accepted,
nothing is tracked, and the answer says so in `Warnings`. These also say which accepted recipients
look like typing errors.

How texts are filled in is `send_texts`'s. Nothing here builds or stores.
"""

import binascii
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

import msgspec

from engine.intake import send_errors
from engine.intake.send_errors import SendError, SendWarning
from engine.intake.send_request import (
    ERRORS_PER_MESSAGE_MAX,
    AttachmentIn,
    EmailIn,
    MessageIn,
)
from engine.intake.send_texts import VARIABLES_MAX, texts_of
from protocols.address_suggestions import DomainTypos
from protocols.addresses import Address
from protocols.header_fields import Mailbox, name_fault, text_fault, value_fault
from protocols.mime import Attachment, is_content_id, is_content_type
from protocols.sender_fields import (
    HEADER_CHARACTERS_MAX,
    HEADERS_MAX,
    NAME_CHARACTERS_MAX,
    may_be_set,
)

# As documented by Mailjet, so that clients written for it meet no other limits.
RECIPIENTS_MAX: Final = 50
CAMPAIGN_CHARACTERS_MAX: Final = 255
URL_TAGS_CHARACTERS_MAX: Final = 256
ATTACHMENT_OCTETS_MAX: Final = 15 * 1024 * 1024
# Undocumented there. An identifier of 255 characters is already one that no person reads; a payload
# travels in every event of its message.
CUSTOM_ID_CHARACTERS_MAX: Final = 255
EVENT_PAYLOAD_CHARACTERS_MAX: Final = 16_384
# A hundred is five times what mail programs show.
ATTACHMENTS_MAX: Final = 100

TRACKING_ALLOWED: Final = ("account_default", "disabled", "enabled")
PRIORITIES: Final = (0, 1, 2, 3)
# Mailjet has two queues: 2 and 3 are the high one, 0 and 1 the low one; 2 is the default.
PRIORITY_DEFAULT: Final = 2
LANE_OF_PRIORITY: Final = (1, 1, 0, 0)


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A message that may be sent: the checked values, not yet octets."""

    from_: Mailbox
    sender: Mailbox | None
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    bcc: tuple[Mailbox, ...]
    reply_to: Mailbox | None
    subject: str
    text: str | None
    html: str | None
    attachments: tuple[Attachment, ...]
    inline: tuple[Attachment, ...]
    extra_fields: tuple[tuple[str, str], ...]
    campaign: str | None
    custom_id: str
    event_payload: str
    lane: int
    warnings: tuple[SendWarning, ...]


def merged(message: MessageIn, globals_: MessageIn | None) -> MessageIn:
    """Return the message with the `Globals` for what it does not say itself.

    Headers and variables are added to those of the `Globals`, one by one: clients give what is the
    same for all there, and what differs in the messages (django-anymail).
    """
    if globals_ is None:
        return message
    whole = MessageIn(
        *(
            own if own is not None else shared
            for own, shared in zip(
                msgspec.structs.astuple(message), msgspec.structs.astuple(globals_), strict=True
            )
        )
    )
    # Too many of them are an error in each message, and need not be joined to say so.
    shared_headers, shared_variables = globals_.headers or {}, globals_.variables or {}
    if message.headers and 0 < len(shared_headers) <= HEADERS_MAX:
        own_names = {name.lower() for name in message.headers}
        headers = {n: value for n, value in shared_headers.items() if n.lower() not in own_names}
        whole = msgspec.structs.replace(whole, headers=headers | message.headers)
    if message.variables and 0 < len(shared_variables) <= VARIABLES_MAX:
        whole = msgspec.structs.replace(whole, variables=shared_variables | message.variables)
    return whole


class MessageChecker:
    """Checks the messages of one request; what they share is decoded once."""

    def __init__(self, typos: DomainTypos) -> None:
        self._typos = typos
        self._attachments: dict[tuple[AttachmentKey, bool], Attachment] = {}

    def check(self, message: MessageIn) -> Draft | list[SendError]:
        """Return the draft, or all that is wrong with the message, property by property."""
        errors: list[SendError] = []
        if message.from_ is None:
            errors.append(send_errors.missing("From"))
        if message.to is None:
            errors.append(send_errors.missing("To"))
        elif not message.to:
            errors.append(send_errors.empty_array("To"))
        from_ = self._mailbox(message.from_, "From", errors)
        sender = self._mailbox(message.sender, "Sender", errors)
        to = self._mailboxes(message.to, "To", errors)
        cc = self._mailboxes(message.cc, "Cc", errors)
        bcc = self._mailboxes(message.bcc, "Bcc", errors)
        if (
            sum(len(given or ()) for given in (message.to, message.cc, message.bcc))
            > RECIPIENTS_MAX
        ):
            errors.append(send_errors.too_many_recipients(RECIPIENTS_MAX))
        reply_to = self._mailbox(message.reply_to, "ReplyTo", errors)
        warnings = list(_tracking_warnings(message))
        texts = texts_of(message, errors, warnings)
        attachments = self._files(message.attachments, "Attachments", errors)
        inline = self._files(message.inlined_attachments, "InlinedAttachments", errors)
        if sum(len(part.content) for part in attachments + inline) > ATTACHMENT_OCTETS_MAX:
            errors.append(
                send_errors.payload_too_big(
                    ATTACHMENT_OCTETS_MAX, "Attachments", "InlinedAttachments"
                )
            )
        extra_fields = _headers(message, errors) if message.headers else ()
        _check_options(message, errors)
        if errors or from_ is None:
            return errors[:ERRORS_PER_MESSAGE_MAX]
        return Draft(
            from_=from_,
            sender=sender,
            to=to,
            cc=cc,
            bcc=bcc,
            reply_to=reply_to,
            subject=texts.subject,
            text=texts.text,
            html=texts.html,
            attachments=attachments,
            inline=inline,
            extra_fields=extra_fields,
            campaign=message.custom_campaign or None,
            custom_id=message.custom_id or "",
            event_payload=message.event_payload or "",
            lane=LANE_OF_PRIORITY[
                PRIORITY_DEFAULT if message.priority is None else message.priority
            ],
            warnings=(
                *warnings,
                *self._typo_warnings(("To", to), ("Cc", cc), ("Bcc", bcc)),
            ),
        )

    def _files(
        self, given: list[AttachmentIn] | None, path: str, errors: list[SendError]
    ) -> tuple[Attachment, ...]:
        if not given:
            return ()
        if len(given) > ATTACHMENTS_MAX:
            errors.append(send_errors.too_many(ATTACHMENTS_MAX, path))
            return ()
        inline = path == "InlinedAttachments"
        files: list[Attachment] = []
        for number, one in enumerate(given):
            key = (msgspec.structs.astuple(one), inline)
            known = self._attachments.get(key)
            if known is None:
                read = _file(one, f"{path}[{number}]", inline=inline)
                if isinstance(read, list):
                    errors.extend(read)
                    continue
                known = self._attachments[key] = read
            files.append(known)
        return tuple(files)

    def _mailbox(self, given: EmailIn | None, path: str, errors: list[SendError]) -> Mailbox | None:
        if given is None:
            return None
        address = self._address(given.email, f"{path}.Email", errors)
        name = given.name or ""
        if len(name) > NAME_CHARACTERS_MAX:
            errors.append(send_errors.too_long(NAME_CHARACTERS_MAX, f"{path}.Name"))
        elif name and (fault := text_fault(name)) is not None:
            errors.append(send_errors.bad_text(fault, f"{path}.Name"))
        return None if address is None else Mailbox(address, name)

    def _mailboxes(
        self, given: list[EmailIn] | None, path: str, errors: list[SendError]
    ) -> tuple[Mailbox, ...]:
        if not given:
            return ()
        found: list[Mailbox] = []
        # Past the limit the message is refused anyway; ten thousand faults of it would help nobody.
        for number, one in enumerate(given[:RECIPIENTS_MAX]):
            mailbox = self._mailbox(one, f"{path}[{number}]", errors)
            if mailbox is not None:
                found.append(mailbox)
        return tuple(found)

    def _address(self, given: str | None, path: str, errors: list[SendError]) -> Address | None:
        if given is None:
            errors.append(send_errors.missing(path))
            return None
        if not given:
            errors.append(send_errors.empty_string(path))
            return None
        address = self._typos.parse(given)
        if isinstance(address, Address):
            return address
        errors.append(send_errors.bad_address(given, address, path))
        return None

    def _typo_warnings(self, *recipients: tuple[str, tuple[Mailbox, ...]]) -> Iterator[SendWarning]:
        """Give a warning for each accepted recipient whose domain looks like a typing error."""
        for path, mailboxes in recipients:
            for number, mailbox in enumerate(mailboxes):
                suggestion = self._typos.suggestion(mailbox.address)
                if suggestion is not None:
                    yield send_errors.probable_typo(
                        mailbox.address.as_given, suggestion, f"{path}[{number}].Email"
                    )


AttachmentKey = tuple[str | None, ...]


def _file(given: AttachmentIn, path: str, *, inline: bool) -> Attachment | list[SendError]:
    errors: list[SendError] = []
    for name, value in (
        ("ContentType", given.content_type),
        ("Filename", given.filename),
        ("Base64Content", given.base64_content),
    ):
        if value is None:
            errors.append(send_errors.missing(f"{path}.{name}"))
        elif not value:
            errors.append(send_errors.empty_string(f"{path}.{name}"))
    if errors:
        return errors
    content_type, filename = given.content_type or "", given.filename or ""
    if not is_content_type(content_type):
        errors.append(
            send_errors.not_allowed(
                content_type,
                "type/subtype with parameters, but no multipart",
                f"{path}.ContentType",
            )
        )
    if len(filename) > NAME_CHARACTERS_MAX:
        errors.append(send_errors.too_long(NAME_CHARACTERS_MAX, f"{path}.Filename"))
    elif (fault := text_fault(filename)) is not None:
        errors.append(send_errors.bad_text(fault, f"{path}.Filename"))
    content = _decode_base64(given.base64_content or "")
    if content is None:
        errors.append(send_errors.wrong_type("base64", f"{path}.Base64Content"))
    content_id = ""
    if inline:
        # Without an id of its own the HTML refers to the file by its name, as URLs write it.
        content_id = given.content_id or quote(filename, safe="@!$&'()*+,=:~")
        if given.content_id and not is_content_id(given.content_id):
            errors.append(
                send_errors.not_allowed(
                    given.content_id,
                    "up to 200 ASCII characters without spaces and angle brackets",
                    f"{path}.ContentID",
                )
            )
    if errors or content is None:
        return errors
    return Attachment(content_type, filename, content, content_id)


def _decode_base64(text: str) -> bytes | None:
    """Return the octets, or None; white space (clients do break lines) counts for nothing."""
    try:
        octets = text.encode("ascii")
        try:
            return binascii.a2b_base64(octets, strict_mode=True)
        except binascii.Error:
            return binascii.a2b_base64(octets.translate(None, b" \t\r\n"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        return None


def _headers(message: MessageIn, errors: list[SendError]) -> tuple[tuple[str, str], ...]:
    given = message.headers or {}
    if len(given) > HEADERS_MAX:
        errors.append(send_errors.too_many(HEADERS_MAX, "Headers"))
        return ()
    for name, value in given.items():
        lower = name.lower()
        if (fault := name_fault(name)) is not None:
            errors.append(
                send_errors.forbidden_header(
                    name, f"is no header name: at position {fault.position}, {fault.text}"
                )
            )
        elif not may_be_set(name):
            errors.append(send_errors.forbidden_header(name, "cannot be set"))
        elif lower == "reply-to" and message.reply_to is not None:
            errors.append(send_errors.forbidden_header(name, "cannot be set beside ReplyTo"))
        elif len(value) > HEADER_CHARACTERS_MAX:
            path = send_errors.header_path(name)
            errors.append(send_errors.too_long(HEADER_CHARACTERS_MAX, path))
        elif (fault := value_fault(value)) is not None:
            errors.append(send_errors.bad_text(fault, send_errors.header_path(name)))
    return tuple(given.items())


def _check_options(message: MessageIn, errors: list[SendError]) -> None:
    for length_max, value, path in (
        (CUSTOM_ID_CHARACTERS_MAX, message.custom_id, "CustomID"),
        (EVENT_PAYLOAD_CHARACTERS_MAX, message.event_payload, "EventPayload"),
        (CAMPAIGN_CHARACTERS_MAX, message.custom_campaign, "CustomCampaign"),
        (URL_TAGS_CHARACTERS_MAX, message.url_tags, "URLTags"),
    ):
        if value is not None and len(value) > length_max:
            errors.append(send_errors.too_long(length_max, path))
    if message.priority is not None and message.priority not in PRIORITIES:
        errors.append(send_errors.not_allowed(message.priority, _listed(PRIORITIES), "Priority"))
    for value, path in (
        (message.track_opens, "TrackOpens"),
        (message.track_clicks, "TrackClicks"),
    ):
        if value is not None and value not in TRACKING_ALLOWED:
            errors.append(send_errors.not_allowed(value, _listed(TRACKING_ALLOWED), path))
    if message.deduplicate_campaign:
        errors.append(
            send_errors.not_available("DeduplicateCampaign", "Deduplication by campaign")
            if message.custom_campaign
            else send_errors.dedup_without_campaign()
        )
    if message.monitoring_category:
        errors.append(send_errors.unknown_monitoring_category(message.monitoring_category))
    if message.url_tags:
        errors.append(send_errors.not_available("URLTags", "Rewriting of links"))
    if message.statistics_contacts_list_id is not None:
        errors.append(
            send_errors.not_available("StatisticsContactsListID", "Statistics by contact list")
        )


def _tracking_warnings(message: MessageIn) -> Iterator[SendWarning]:
    """Give a warning for each property that is accepted without effect."""
    for value, path in (
        (message.track_opens, "TrackOpens"),
        (message.track_clicks, "TrackClicks"),
    ):
        if value == "enabled":
            yield send_errors.not_tracked(path)


def _listed(allowed: Iterable[object]) -> str:
    return ", ".join(map(str, allowed))
