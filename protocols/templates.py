"""Templates: one message for many, stored once and filled in for each recipient.

Owns what a template may be (`compile_template` names every fault with its line and column), its
stored form (a version byte and a MessagePack map) and the filling. What is filled in is a function
of the template, the variables and what names the envelope: a mail that is tried again has the same
octets, so a receiver can recognise it.

A value can do nothing but stand where it is put: in the HTML part it is escaped, in a `List-` field
percent-encoded, in other fields its line ends and controls become spaces and what is not ASCII an
encoded word (RFC 2047). A variable without value, or with an empty one, takes the placeholder's
default, which may be empty (`{{title:""}}`); without a default the recipient cannot be sent to.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from protocols.addresses import Address
from protocols.commands import is_wire_address
from protocols.header_fields import (
    FieldError,
    Mailbox,
    mailbox_field,
    name_fault,
    text_fault,
    text_field,
    value_fault,
    value_field,
)
from protocols.mime import join_message, multipart, received_over_http
from protocols.records import parts_number
from protocols.sender_fields import (
    HEADER_CHARACTERS_MAX,
    HEADERS_MAX,
    NAME_CHARACTERS_MAX,
    SUBJECT_CHARACTERS_MAX,
    may_be_set,
)
from protocols.template_language import (
    MissingVariable,
    Text,
    parse_text,
    percent_encoded,
    place_in,
)
from protocols.template_parts import TextPart
from protocols.variables import pack_variables

# Pictures are linked or attached, not written: the longest letters have a tenth of it.
TEMPLATE_OCTETS_MAX: Final = 1024 * 1024
# What a template may become, before it is encoded: twice of the longest. It bounds what long values
# in many places can do, as a mail is filled in without a pause; more would hold up all others.
FILLED_CHARACTERS_MAX: Final = 2 * 1024 * 1024
FAULTS_MAX: Final = 50
# Four octets of UTF-8, each percent-encoded.
ESCAPED_CHARACTERS_MAX: Final = 12
# No field has a fault for its length if it is shorter as a whole.
WORD_CHARACTERS_SAFE: Final = 900
# The recipient's address is a variable of every template, and the list's column of that name is it.
ADDRESS: Final = "address"
# The variable that is shown beside the address in To, if the list has it.
DISPLAY_NAME: Final = "name"

_VERSION: Final = b"\x01"
_UNFIT_FOR_FIELDS: Final = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class TemplateSource(msgspec.Struct, frozen=True, kw_only=True):
    """A template as its author gives it: placeholders are allowed in all texts, not in addresses.

    `headers` are further fields as (name, value); a name has no placeholders. At least one of
    `text` and `html` is not empty.
    """

    from_: Mailbox
    subject: str
    reply_to: Mailbox | None = None
    text: str = ""
    html: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class TemplateFault(msgspec.Struct, frozen=True):
    """What is wrong with a template: in which part, and there at which line and column, from 1.

    `part` is "from", "from_name", "reply_to", "reply_to_name", "subject", "text", "html" or
    "headers[NAME]", or "" for the whole, where line and column are 0.
    """

    part: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.part}, line {self.line}, column {self.column}: {self.text}".removeprefix(
            ", line 0, column 0: "
        )


class TemplateError(ValueError):
    """This is no template that could be sent; `faults` say why, at least one."""

    def __init__(self, faults: Collection[TemplateFault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)


class DamagedTemplate(Exception):
    """The octets are no stored template; the text says what is wrong."""


class FillError(ValueError):
    """These variables cannot fill the template; the text says which one and why."""


class Filled(msgspec.Struct, frozen=True):
    """A whole mail: 7-bit, but for the local parts of addresses where it `needs_utf8`."""

    octets: bytes
    needs_utf8: bool


class _Stored(msgspec.Struct, frozen=True):
    source: TemplateSource
    host: str


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Stored)


def compile_template(source: TemplateSource, *, host: str) -> bytes:
    """Return the stored form. Raises TemplateError with all that is wrong.

    `host` is our name in the trace field; it is stored, so that a retry has the same one.
    """
    _check_source(source)
    return _VERSION + _encoder.encode(_Stored(source, host))


def read_template(stored: bytes) -> "Template":
    """Return the template that was compiled. Raises DamagedTemplate."""
    if stored[:1] != _VERSION:
        raise DamagedTemplate(f"the template has an unknown version {stored[:1].hex()}")
    try:
        found = _decoder.decode(memoryview(stored)[1:])
        _check_source(found.source)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedTemplate(f"the template does not decode: {error}") from error
    except TemplateError as error:
        raise DamagedTemplate(f"the template cannot be read: {error}") from error
    if value_fault(received_over_http(found.host, "", "")) is not None:
        raise DamagedTemplate("the template's host is none")
    return Template(found.source, found.host)


class Template:
    """A template ready to be filled in. It has no state, so threads may share one."""

    def __init__(self, source: TemplateSource, host: str) -> None:
        """`source` must have been checked."""
        self._host = host
        self._domain = source.from_.address.domain
        self._needs_utf8 = source.from_.address.needs_utf8 or (
            source.reply_to is not None and source.reply_to.address.needs_utf8
        )
        self._from = _MailboxField("From", source.from_, part="from_name")
        self._reply_to = (
            _MailboxField("Reply-To", source.reply_to, part="reply_to_name")
            if source.reply_to is not None
            else None
        )
        self._subject = _FieldText("subject", source.subject, SUBJECT_CHARACTERS_MAX)
        self._headers = [_HeaderField(name, value) for name, value in source.headers]
        self._parts = [
            TextPart(subtype, _parsed(text, is_html=subtype == "html"))
            for subtype, text in (("plain", source.text), ("html", source.html))
            if text
        ]
        self._fields = [each.name for each in (self._from, self._reply_to) if each is not None]
        self._fields += [self._subject, *(each.value for each in self._headers)]
        texts = [(each.part, each.text) for each in self._fields]
        texts += [(part.name, part.text) for part in self._parts]
        self._placeholders = [
            (part, each) for part, text in texts for each in text.placeholders if each.name
        ]
        self.parts = parts_number(
            has_text=bool(source.text), has_html=bool(source.html), attachments=0
        )
        self._characters = sum(part.characters for part in self._parts)
        defaults = (each.default or "" for _, each in self._placeholders)
        self._longest_default = max(map(len, defaults), default=0)
        names = frozenset(each.name for _, each in self._placeholders)
        required = (each.name for _, each in self._placeholders if each.default is None)
        # The variables that every recipient must have, and those with a default wherever they are.
        self.required = frozenset(required) - {ADDRESS}
        self.optional = names - self.required - {ADDRESS}
        self._required_in_order = sorted(self.required)
        self._stored_names = self.required | self.optional | {DISPLAY_NAME}

    def column_faults(self, columns: Collection[str]) -> list[TemplateFault]:
        """Say which required variables a list with these columns does not have, once for each."""
        by_fold = {column.casefold(): column for column in columns}
        known = {ADDRESS, *columns}
        faults: list[TemplateFault] = []
        for part, each in self._placeholders:
            if each.default is None and each.name not in known:
                known.add(each.name)
                near = by_fold.get(each.name.casefold())
                text = f'"{each.name}" has no default, and the list has no such column'
                if near:
                    text += f'; is "{near}" meant?'
                faults.append(TemplateFault(part, each.line, each.column, text))
        return faults

    def check(self, variables: Mapping[str, str], recipient: Address) -> str:
        """Return why the template cannot be filled for `recipient`, "" if it can."""
        for name in self._required_in_order:
            if not variables.get(name):
                return str(MissingVariable(name))
        longest = max(map(len, variables.values()), default=0)
        longest = max(longest, len(recipient.as_given), self._longest_default)
        # If the longest value fits wherever one can stand, which is the rule, nothing has to be
        # filled in to know.
        find = _finder(variables, recipient)
        if (
            ESCAPED_CHARACTERS_MAX * longest * len(self._placeholders) + self._characters
            <= FILLED_CHARACTERS_MAX
            and len(variables.get(DISPLAY_NAME, "")) <= NAME_CHARACTERS_MAX
            and all(each.surely_fits(find) for each in self._fields)
        ):
            return ""
        try:
            # Everything that can go wrong; texts of megabytes are not made to be thrown away.
            self._fill_fields(variables, recipient)
            self._check_characters(find)
        except FillError as error:
            return str(error)
        return ""

    def pack_variables(self, variables: Mapping[str, str]) -> bytes:
        """Return the stored form of those variables that this template uses.

        Raises VariablesError if they are above a limit.
        """
        names = self._stored_names
        return pack_variables({n: value for n, value in variables.items() if n in names and value})

    def subject(self, variables: Mapping[str, str], recipient: Address) -> str:
        """Return the subject as `recipient` reads it. Raises FillError."""
        return self._subject.fill(_finder(variables, recipient))

    def fill(
        self, variables: Mapping[str, str], *, recipient: Address, identifier: str, date: str
    ) -> Filled:
        """Return the mail for `recipient`. Raises FillError.

        `identifier` names the envelope in Message-ID and Received and is in the boundary: letters
        and digits. `date` is that of acceptance.
        """
        mailboxes, subject, headers = self._fill_fields(variables, recipient)
        octets = join_message(
            received=received_over_http(self._host, identifier, date),
            mailboxes=mailboxes,
            subject=subject,
            date=date,
            message_id=f"<{identifier}@{self._domain}>",
            extra_fields=headers,
            body=self._body(_finder(variables, recipient), identifier),
        )
        return Filled(octets, self._needs_utf8 or recipient.needs_utf8)

    def _fill_fields(
        self, variables: Mapping[str, str], recipient: Address
    ) -> tuple[list[bytes], bytes, list[bytes]]:
        """Return the fields of mailboxes, the subject and the author's own. Raises FillError."""
        find = _finder(variables, recipient)
        display_name = for_field(variables.get(DISPLAY_NAME, ""))
        if len(display_name) > NAME_CHARACTERS_MAX:
            raise FillError(f'"{DISPLAY_NAME}" has more than {NAME_CHARACTERS_MAX} characters')
        mailboxes = [
            self._from.fill(find),
            mailbox_field("To", (Mailbox(recipient, display_name),)),
        ]
        if self._reply_to is not None:
            mailboxes.append(self._reply_to.fill(find))
        subject = text_field("Subject", self._subject.fill(find))
        return mailboxes, subject, [each.fill(find) for each in self._headers]

    def _check_characters(self, find: Callable[[str], str | None]) -> None:
        """Count what the texts would have. Raises FillError if that is too much."""
        characters = self._characters + sum(part.characters_inserted(find) for part in self._parts)
        if characters > FILLED_CHARACTERS_MAX:
            raise FillError(
                f"the mail would have {characters} characters of text, and at most "
                f"{FILLED_CHARACTERS_MAX} are sent"
            )

    def _body(self, find: Callable[[str], str | None], identifier: str) -> bytes:
        # Counted before anything is made: a thousand places may want the same long value.
        self._check_characters(find)
        try:
            filled = [part.fill(find) for part in self._parts]
        except MissingVariable as error:
            raise FillError(str(error)) from error
        if len(filled) == 1:
            return filled[0]
        boundary = f"=_a_{identifier}"
        number = 0
        # Nobody can have known it, unless identifiers were made from what is known.
        while any(boundary.encode() in part for part in filled):
            number += 1
            boundary = f"=_a_{identifier}.{number}"
        return multipart("alternative", boundary, filled)


class _FieldText:
    """A text with placeholders in a header field: one line, with a limit on what it may become."""

    def __init__(self, part: str, text: str, characters_max: int, *, is_url: bool = False) -> None:
        self.part = part
        self.text = _parsed(text)
        self.is_url = is_url
        self._characters_max = characters_max
        self._characters = sum(map(len, self.text.literals))

    def surely_fits(self, find: Callable[[str], str | None]) -> bool:
        """Say whether `fill` cannot fail, at less cost than trying; all variables are given."""
        # A long word is a fault in some fields, and what is shorter as a whole has none.
        room = min(self._characters_max, WORD_CHARACTERS_SAFE) - self._characters
        for each in self.text.placeholders:
            value = (find(each.name) if each.name else None) or each.default or ""
            is_url = self.is_url or each.is_url
            room -= ESCAPED_CHARACTERS_MAX * len(value) if is_url else len(value)
        return room >= 0 or not self.text.placeholders

    def fill(self, find: Callable[[str], str | None]) -> str:
        """Return what stands in the field. Raises FillError."""
        if not self.text.placeholders:
            return self.text.literals[0]
        # Counted first: what is far too long is not made.
        self._check_length(self._characters + self.text.characters_inserted(find))
        try:
            values = self.text.values(find, percent_encoded if self.is_url else for_field)
        except MissingVariable as error:
            raise FillError(f"{self.part}: {error}") from error
        filled = self.text.with_values(values)
        self._check_length(len(filled))
        return filled

    def _check_length(self, characters: int) -> None:
        if characters > self._characters_max:
            raise FillError(
                f"{self.part}: it would have {characters} characters, and at most "
                f"{self._characters_max} are allowed"
            )


class _MailboxField:
    """From or Reply-To: an address that is the same for all beside a name that may differ."""

    def __init__(self, name: str, mailbox: Mailbox, *, part: str) -> None:
        self._field_name = name
        self._address = mailbox.address
        self.name = _FieldText(part, mailbox.name, NAME_CHARACTERS_MAX)
        self._octets = mailbox_field(name, (mailbox,))

    def fill(self, find: Callable[[str], str | None]) -> bytes:
        if not self.name.text.placeholders:
            return self._octets
        mailbox = Mailbox(self._address, self.name.fill(find).strip())
        return mailbox_field(self._field_name, (mailbox,))


class _HeaderField:
    """A field of the author's. Links stand in `List-` fields, so values are encoded for links."""

    def __init__(self, name: str, value: str) -> None:
        self._name = name
        self.value = _FieldText(
            f"headers[{name}]",
            value,
            HEADER_CHARACTERS_MAX,
            is_url=name.lower().startswith("list-"),
        )
        self._octets = value_field(name, value)

    def fill(self, find: Callable[[str], str | None]) -> bytes:
        if not self.value.text.placeholders:
            return self._octets
        try:
            return value_field(self._name, self.value.fill(find))
        except FieldError as error:
            raise FillError(f"{self.value.part}: {error}") from error


def _finder(variables: Mapping[str, str], recipient: Address) -> Callable[[str], str | None]:
    def find(name: str) -> str | None:
        return recipient.as_given if name == ADDRESS else variables.get(name) or None

    return find


def for_field(value: str) -> str:
    """Return `value` as it may stand in a header field: one line, without controls."""
    if not value.isprintable():
        value = _UNFIT_FOR_FIELDS.sub(" ", value)
    return value.strip()


def _parsed(text: str, *, is_html: bool = False) -> Text:
    parsed = parse_text(text, is_html=is_html)
    assert isinstance(parsed, Text), "a template is checked before it is made"
    return parsed


def _check_source(source: TemplateSource) -> None:
    faults: list[TemplateFault] = []
    for part, mailbox in (("from", source.from_), ("reply_to", source.reply_to)):
        if mailbox is not None and not is_wire_address(mailbox.address.wire, utf8=True):
            faults.append(TemplateFault(part, 1, 1, "this is no address"))
    if not (source.text or source.html):
        faults.append(TemplateFault("", 0, 0, "a template needs a text or an html part"))
    size = len(source.text.encode(errors="replace")) + len(source.html.encode(errors="replace"))
    if size > TEMPLATE_OCTETS_MAX:
        text = f"text and html have {size} octets together, at most {TEMPLATE_OCTETS_MAX} are taken"
        raise TemplateError([*faults, TemplateFault("", 0, 0, text)])
    for part, text in (("text", source.text), ("html", source.html)):
        faults += _text_faults(part, text)
    fields = [("from_name", source.from_.name, NAME_CHARACTERS_MAX)]
    if source.reply_to is not None:
        fields.append(("reply_to_name", source.reply_to.name, NAME_CHARACTERS_MAX))
    fields.append(("subject", source.subject, SUBJECT_CHARACTERS_MAX))
    for part, text, characters_max in fields:
        faults += _field_faults(part, text, characters_max)
    if len(source.headers) > HEADERS_MAX:
        faults.append(TemplateFault("", 0, 0, f"a template has at most {HEADERS_MAX} headers"))
    for name, value in source.headers[:HEADERS_MAX]:
        faults += _header_faults(name, value, has_reply_to=source.reply_to is not None)
    if faults:
        raise TemplateError(faults[:FAULTS_MAX])


def _text_faults(part: str, text: str) -> list[TemplateFault]:
    parsed = parse_text(text, is_html=part == "html")
    if isinstance(parsed, list):
        return [TemplateFault(part, each.line, each.column, each.text) for each in parsed]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line, column = place_in(text, error.start)
        return [TemplateFault(part, line, column, "half a surrogate pair is no character")]
    return []


def _field_faults(part: str, text: str, characters_max: int) -> list[TemplateFault]:
    if len(text) > characters_max:
        return [TemplateFault(part, 1, 1, f"at most {characters_max} characters are allowed")]
    fault = text_fault(text)
    if fault is not None:
        return [TemplateFault(part, *place_in(text, fault.position), fault.text)]
    return _text_faults(part, text)


def _header_faults(name: str, value: str, *, has_reply_to: bool) -> list[TemplateFault]:
    part = f"headers[{name[:NAME_CHARACTERS_MAX]}]"
    fault = name_fault(name)
    if fault is not None:
        return [TemplateFault(part, 1, fault.position + 1, f"no name for a header: {fault.text}")]
    if not may_be_set(name):
        return [TemplateFault(part, 1, 1, "this header is not the sender's to set")]
    if name.lower() == "reply-to" and has_reply_to:
        return [TemplateFault(part, 1, 1, "this header cannot be set beside reply_to")]
    fault = value_fault(value)
    if fault is not None:
        return [TemplateFault(part, *place_in(value, fault.position), fault.text)]
    return _field_faults(part, value, HEADER_CHARACTERS_MAX)
