"""The texts of a message, filled in where it asks for that (`TemplateLanguage`, `Variables`).

What is filled in is one message with all its recipients, at intake, in the language of
`protocols.template_language`. Mailjet takes a message with an error in it, and what becomes of it
is found out later; here it is refused at once with the place of the error. A variable that is
missing is forgiven with `TemplateErrorDeliver`, as there: nothing stands in its place.

Without `TemplateLanguage` only the older placeholders in brackets are filled in, and those only if
there are `Variables`: that is how clients merge on the fly (django-anymail does).
"""

from collections.abc import Callable, Iterator, Mapping
from html import escape as escape_html
from typing import Any, Final, NamedTuple

from engine.intake import send_errors
from engine.intake.send_errors import SendError, SendWarning
from engine.intake.send_request import MessageIn
from protocols.header_fields import text_fault
from protocols.sender_fields import SUBJECT_CHARACTERS_MAX
from protocols.template_language import Text, parse_text
from protocols.templates import FILLED_CHARACTERS_MAX, for_field

# Objects in objects, as far as anybody names their parts with dots.
DEPTH_MAX: Final = 8
VARIABLES_MAX: Final = 1_000


_ESCAPES: Final[Mapping[str, Callable[[str], str]]] = {
    "Subject": for_field,
    "TextPart": str,
    "HTMLPart": escape_html,
}


class Texts(NamedTuple):
    subject: str
    text: str | None
    html: str | None


def texts_of(message: MessageIn, errors: list[SendError], warnings: list[SendWarning]) -> Texts:
    """Return the texts as recipients are to read them, and add what is wrong with them."""
    subject = message.subject or ""
    text, html = message.text_part or None, message.html_part or None
    if (fault := text_fault(subject)) is not None:
        errors.append(send_errors.bad_text(fault, "Subject"))
    if not (text or html or message.template_id is not None):
        errors.append(send_errors.NO_CONTENT)
    _check_options(message, errors, warnings)
    if message.template_language or message.variables:
        filling = _Filling(message, errors, warnings)
        subject = filling.fill(subject, "Subject")
        text = text and filling.fill(text, "TextPart")
        html = html and filling.fill(html, "HTMLPart")
    if len(subject) > SUBJECT_CHARACTERS_MAX:
        errors.append(send_errors.too_long(SUBJECT_CHARACTERS_MAX, "Subject"))
    return Texts(subject, text, html)


def _check_options(
    message: MessageIn, errors: list[SendError], warnings: list[SendWarning]
) -> None:
    if message.template_id is not None:
        errors.append(send_errors.no_template("TemplateID"))
    if not message.template_language:
        if message.template_error_reporting is not None or message.template_error_deliver:
            errors.append(send_errors.template_error_without_language())
    elif message.template_error_reporting is not None:
        warnings.append(send_errors.errors_are_in_the_answer("TemplateErrorReporting"))


class _Filling:
    """Fills in the texts of one message; what one of them lacks is told for each place once."""

    def __init__(
        self, message: MessageIn, errors: list[SendError], warnings: list[SendWarning]
    ) -> None:
        self._brackets_only = not message.template_language
        self._forgives = message.template_error_deliver is True
        self._errors = errors
        self._warnings = warnings
        self._values: dict[str, str] = {}
        self._compound: set[str] = set()
        for name, value in _flat(message.variables or {}, "", DEPTH_MAX):
            if len(self._values) == VARIABLES_MAX:
                errors.append(send_errors.too_many(VARIABLES_MAX, "Variables"))
                break
            if value is None:
                self._compound.add(name)
            else:
                self._values[name] = value

    def fill(self, text: str, path: str) -> str:
        """Return the text filled in; as it is, if that cannot be done and there are errors."""
        parsed = parse_text(text, is_html=path == "HTMLPart", brackets_only=self._brackets_only)
        if isinstance(parsed, list):
            self._errors += [send_errors.bad_template(fault, path) for fault in parsed]
            return text
        escape = _ESCAPES[path]
        if parsed.characters_escaped(self._values.get, escape) > FILLED_CHARACTERS_MAX:
            self._errors.append(send_errors.payload_too_big(FILLED_CHARACTERS_MAX, "Variables"))
            return text
        if self._tell_missing(parsed, path):
            if not self._forgives:
                return text
            parsed = parsed.forgiving()
        return parsed.with_values(parsed.values(self._values.get, escape))

    def _tell_missing(self, text: Text, path: str) -> bool:
        """Say of each variable of `text` that has neither a value nor a default, where it is."""
        told: set[str] = set()
        for each in text.placeholders:
            name = each.name
            if each.default is None and name not in self._values and name not in told:
                told.add(name)
                if self._forgives:
                    self._warnings.append(send_errors.left_empty(name, path))
                else:
                    is_compound = name in self._compound
                    self._errors.append(
                        send_errors.missing_variable(each, path, is_compound=is_compound)
                    )
        return bool(told)


def _flat(
    variables: Mapping[str, Any], prefix: str, depth: int
) -> Iterator[tuple[str, str | None]]:
    """Give each value under its name, as text, and None for what is none; null is not given."""
    for key, value in variables.items():
        name = f"{prefix}{key}"
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, bool):
            yield name, "true" if value else "false"
        elif isinstance(value, int | float):
            yield name, str(value)
        elif value is not None:
            yield name, None
            if isinstance(value, dict) and depth:
                yield from _flat(value, f"{name}.", depth - 1)
