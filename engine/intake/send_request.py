"""Requests to `POST /v3.1/send`: JSON to typed values, the usual ones in one pass.

Owns the property names and types. A request whose names and types are exactly right is decoded in
one step. Any other is decoded loosely and read property by property, which forgives the spelling
of names (clients do send `SandBoxMode` and `HtmlPart`) and says of each wrong type where it is, so
that one bad message does not spoil the other forty-nine.

What the values mean, and whether they may be sent, is for `send_check`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_type_hints

import msgspec

from engine.intake import send_errors
from engine.intake.send_errors import SendError


class _In(msgspec.Struct, forbid_unknown_fields=True, rename="pascal", frozen=True):
    """An object of the request. Absent and null are the same, so every default is None."""


class EmailIn(_In, frozen=True):
    email: str | None = None
    name: str | None = None


class AttachmentIn(_In, frozen=True):
    content_type: str | None = None
    filename: str | None = None
    base64_content: str | None = None
    content_id: str | None = msgspec.field(default=None, name="ContentID")


class MessageIn(_In, frozen=True):
    """One message, or the `Globals` that stand in for what messages do not say.

    With `TemplateLanguage` placeholders in `Subject`, `TextPart` and `HTMLPart` are filled in from
    `Variables`: `{{var:name}}`, `{{var:name:"default"}}`, `{{url:name}}` for a part of a link. With
    `Variables` alone only `[[var:name]]` is. A value is escaped in the HTML. Without a value and a
    default the message is refused, or nothing stands there with `TemplateErrorDeliver`.
    """

    from_: EmailIn | None = msgspec.field(default=None, name="From")
    sender: EmailIn | None = None
    to: list[EmailIn] | None = None
    cc: list[EmailIn] | None = None
    bcc: list[EmailIn] | None = None
    reply_to: EmailIn | None = None
    subject: str | None = None
    text_part: str | None = None
    html_part: str | None = msgspec.field(default=None, name="HTMLPart")
    attachments: list[AttachmentIn] | None = None
    inlined_attachments: list[AttachmentIn] | None = None
    headers: dict[str, str] | None = None
    custom_id: str | None = msgspec.field(default=None, name="CustomID")
    event_payload: str | None = None
    custom_campaign: str | None = None
    deduplicate_campaign: bool | None = None
    priority: int | None = None
    track_opens: str | None = None
    track_clicks: str | None = None
    template_id: int | None = msgspec.field(default=None, name="TemplateID")
    template_language: bool | None = None
    template_error_reporting: EmailIn | None = None
    template_error_deliver: bool | None = None
    variables: dict[str, Any] | None = None
    monitoring_category: str | None = None
    url_tags: str | None = msgspec.field(default=None, name="URLTags")
    statistics_contacts_list_id: int | None = msgspec.field(
        default=None, name="StatisticsContactsListID"
    )


class SendRequest(_In, frozen=True):
    """A whole request. In place of a message that cannot be read stand its errors."""

    messages: list[MessageIn | list[SendError]] | None = None
    globals_: MessageIn | None = msgspec.field(default=None, name="Globals")
    sandbox_mode: bool | None = None
    advance_error_handling: bool | None = None


class _PlainRequest(_In, frozen=True):
    messages: list[MessageIn] | None = None
    globals_: MessageIn | None = msgspec.field(default=None, name="Globals")
    sandbox_mode: bool | None = None
    advance_error_handling: bool | None = None


MESSAGES_MAX: Final = 50
# A value of two octets becomes an object of two hundred, so the body's limit alone would let 32 MB
# become several gigabytes. Fifty messages with all that is allowed in them have half as many parts.
PARTS_MAX: Final = 100_000
COUNTED_OCTETS: Final = 65_536
# Who made fifty mistakes in one message has made one, and the answer would outgrow the request.
ERRORS_PER_MESSAGE_MAX: Final = 50

# Possessive, because a text of 20 MB must not leave a step to go back to at each character.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_decoder: Final = msgspec.json.Decoder(_PlainRequest)
_loose_decoder: Final = msgspec.json.Decoder()


def decode_send_request(body: bytes) -> SendRequest | SendError:
    """Return the request in `body`, or what is wrong with it as a whole; never raises.

    Nesting is bounded by the decoder, and a name given twice counts as the last one. Of the
    messages one above the limit is read: enough for the caller to see that there are too many.
    """
    if _has_too_many_parts(body):
        return send_errors.too_many(PARTS_MAX, "Messages")
    try:
        plain = _decoder.decode(body)
    except msgspec.ValidationError:
        return _read_loosely(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return send_errors.MALFORMED_JSON
    return SendRequest(
        list(plain.messages[: MESSAGES_MAX + 1]) if plain.messages is not None else None,
        plain.globals_,
        plain.sandbox_mode,
        plain.advance_error_handling,
    )


def _has_too_many_parts(body: bytes) -> bool:
    if _parts(body, 0, len(body)) <= PARTS_MAX:
        return False
    # Texts have commas and braces too; the slower look between them is for few requests.
    parts = end = 0
    for number, string in enumerate(_STRING.finditer(body)):
        parts += _parts(body, end, string.start())
        # A part has at most a name and a value; more strings than that are no JSON at all.
        if parts > PARTS_MAX or number > 2 * PARTS_MAX:
            return True
        end = string.end()
    return parts + _parts(body, end, len(body)) > PARTS_MAX


def _parts(octets: bytes, start: int, end: int) -> int:
    """Count what begins a value, give or take the first of each container."""
    # By what is left without them: a quarter of the time that it takes to count the three. In
    # pieces, because a request that is refused must not be copied first.
    count = 0
    for at in range(start, end, COUNTED_OCTETS):
        piece = octets[at : min(at + COUNTED_OCTETS, end)]
        count += len(piece) - len(piece.translate(None, b",{["))
    return count


def _read_loosely(body: bytes) -> SendRequest | SendError:
    try:
        root = _loose_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return send_errors.MALFORMED_JSON
    if not isinstance(root, dict):
        return send_errors.MALFORMED_JSON
    known = _properties(root, _names(SendRequest))
    if isinstance(known, SendError):
        return known
    found: dict[str, Any] = {}
    for name in ("SandboxMode", "AdvanceErrorHandling"):
        if not isinstance(known.get(name), bool | None):
            return send_errors.wrong_type("boolean", name)
        found[name] = known.get(name)
    if known.get("Globals") is not None:
        if not isinstance(known["Globals"], dict):
            return send_errors.wrong_type("object", "Globals")
        globals_ = _read_message(known["Globals"])
        if isinstance(globals_, list):
            return globals_[0].below("Globals")
        found["Globals"] = globals_
    messages = known.get("Messages")
    if messages is not None and not isinstance(messages, list):
        return send_errors.wrong_type("array", "Messages")
    return SendRequest(
        None if messages is None else [_read_message(one) for one in messages[: MESSAGES_MAX + 1]],
        found.get("Globals"),
        found["SandboxMode"],
        found["AdvanceErrorHandling"],
    )


def _read_message(value: object) -> MessageIn | list[SendError]:
    """Read one message property by property, collecting what is wrong with each."""
    if not isinstance(value, dict):
        return [send_errors.wrong_type("object", "Messages")]
    names = _names(MessageIn)
    errors: list[SendError] = []
    found: dict[str, Any] = {}
    for given, content in value.items():
        if len(errors) == ERRORS_PER_MESSAGE_MAX:
            break
        name = names.get(given.lower())
        if name is None:
            errors.append(send_errors.unknown_property(given))
            continue
        read = _read_property(name, content)
        if isinstance(read, SendError):
            errors.append(read)
        else:
            found[_ATTRIBUTES[name]] = read
    return errors or MessageIn(**found)


def _read_property(name: str, value: object) -> object:
    """Return the property's typed value, or a SendError with the path of what is wrong in it."""
    kind = _KINDS[name]
    inner = _INNER.get(name)
    if inner is not None:
        renamed = _rename(value, inner, name)
        if isinstance(renamed, SendError):
            return renamed
        value = renamed
    if name == "Headers" and isinstance(value, dict):
        # The validator calls every key "...", which helps nobody to find the wrong one.
        for header, text in value.items():
            if not isinstance(text, str):
                return send_errors.wrong_type("string", send_errors.header_path(header))
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return _type_error(name, str(error))


# msgspec: "Expected `str | null`, got `int` - at `$[0].Email`" (and "at key in" for names).
_EXPECTED: Final = re.compile(r"Expected `(\w+)")
_PLACE: Final = re.compile(r"`\$([^`]*)`$")
_TYPE_WORDS: Final = {"str": "string", "bool": "boolean", "int": "int", "object": "emailIn"}


def _type_error(name: str, text: str) -> SendError:
    place = _PLACE.search(text)
    below = place[1] if place else ""
    if not below and name in _WHOLE_WORDS:
        return send_errors.wrong_type(_WHOLE_WORDS[name], name)
    expected = _EXPECTED.search(text)
    word = _TYPE_WORDS.get(expected[1], expected[1]) if expected else "value"
    if word == "emailIn" and name in ("Attachments", "InlinedAttachments"):
        word = "attachment"
    return send_errors.wrong_type(word, name + below)


_WHOLE_WORDS: Final = {
    **dict.fromkeys(("To", "Cc", "Bcc"), "array of emails"),
    **dict.fromkeys(("Attachments", "InlinedAttachments"), "array of attachments"),
    **dict.fromkeys(("Headers", "Variables"), "object"),
}


def _rename(value: object, kind: type[_In], path: str) -> object:
    """Return objects (or a list of them) with their property names as they are declared."""
    if isinstance(value, list):
        renamed: list[object] = []
        for number, item in enumerate(value):
            one = _rename(item, kind, f"{path}[{number}]")
            if isinstance(one, SendError):
                return one
            renamed.append(one)
        return renamed
    if not isinstance(value, dict):
        return value
    known = _properties(value, _names(kind))
    return known.below(path) if isinstance(known, SendError) else known


def _properties(given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any] | SendError:
    """Return `given` under the declared names; a name that nothing is declared for is an error."""
    known: dict[str, Any] = {}
    for name, value in given.items():
        declared = names.get(name.lower())
        if declared is None:
            return send_errors.unknown_property(name)
        known[declared] = value
    return known


def _declared(kind: type[_In]) -> dict[str, str]:
    return {field.encode_name.lower(): field.encode_name for field in msgspec.structs.fields(kind)}


_READ_KINDS: Final[Sequence[type[_In]]] = (EmailIn, AttachmentIn, MessageIn, SendRequest)
_NAMES: Final = {kind: _declared(kind) for kind in _READ_KINDS}
_ATTRIBUTES: Final = {f.encode_name: f.name for f in msgspec.structs.fields(MessageIn)}
_KINDS: Final[Mapping[str, Any]] = {
    declared: get_type_hints(MessageIn)[attribute] for declared, attribute in _ATTRIBUTES.items()
}
_INNER: Final[Mapping[str, type[_In]]] = {
    **dict.fromkeys(
        ("From", "Sender", "To", "Cc", "Bcc", "ReplyTo", "TemplateErrorReporting"), EmailIn
    ),
    **dict.fromkeys(("Attachments", "InlinedAttachments"), AttachmentIn),
}


def _names(kind: type[_In]) -> Mapping[str, str]:
    return _NAMES[kind]
