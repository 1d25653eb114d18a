"""What `POST /v3.1/send` says of faults and doubts, as Mailjet's clients know it.

Owns the catalogue and the JSON form of both; decides nothing about when one is due. Texts that
clients look for are kept word for word, and what we know beyond them follows after.
"""

from typing import Final

import msgspec

from protocols.addresses import AddressFault
from protocols.header_fields import FieldFault
from protocols.template_language import Placeholder, TextFault

# An echoed value is a help to find it, not an archive: 64 kB of address would come back otherwise.
SHOWN_CHARACTERS_MAX: Final = 254


class SendError(msgspec.Struct, frozen=True):
    """One thing wrong with a message or a request.

    `related_to` are paths within the message ("To[0].Email") or, for a fault of the request, within
    the request ("Globals.From.Email"). `address_fault` is set for a bad address.
    """

    code: str
    message: str
    related_to: tuple[str, ...] = ()
    status_code: int = 400
    address_fault: AddressFault | None = None

    def below(self, prefix: str) -> "SendError":
        """Return the error with its paths under `prefix`."""
        related_to = tuple(f"{prefix}.{path}" for path in self.related_to)
        return msgspec.structs.replace(self, related_to=related_to)

    def to_json(self, identifier: str) -> dict[str, object]:
        """Return the object clients read. `identifier` is one for the log and the support."""
        found: dict[str, object] = {
            "ErrorIdentifier": identifier,
            "ErrorCode": self.code,
            "StatusCode": self.status_code,
            "ErrorMessage": self.message,
            "ErrorRelatedTo": self.related_to,
        }
        if self.address_fault is not None:
            found["AddressFault"] = self.address_fault
        return found


class SendWarning(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """Something to be told beside a yes. `property` is a path within the message.

    `suggestion` is the address that was probably meant.
    """

    property: str
    message: str
    suggestion: str | None = None


# The whole request, when no part of it can be read.
MALFORMED_JSON: Final = SendError(
    "mj-0002", "Malformed JSON, please review the syntax and properties types."
)
# Recorded: without a code.
UNAUTHORISED_TEXT: Final = (
    "API key authentication/authorization failure. You may be unauthorized to access the API or "
    "your API key may be expired. Visit API keys management section to check your keys."
)
SUSPENDED_TEXT: Final = "The account of this API key is suspended. It takes no mail at present."
NO_CONTENT: Final = SendError(
    "send-0003",
    'At least "HTMLPart", "TextPart" or "TemplateID" must be provided.',
    ("TextPart", "HTMLPart", "TemplateID"),
)


def missing(*paths: str) -> SendError:
    return SendError("mj-0003", "Missing mandatory property.", paths)


def wrong_type(expected: str, path: str) -> SendError:
    return SendError("mj-0004", f'Type mismatch. Expected type "{expected}".', (path,))


def unknown_property(path: str) -> SendError:
    # A misspelt property that is ignored is a mail without its text; Mailjet's own word for this is
    # that of malformed JSON.
    return SendError("mj-0002", f"Unknown property {_shown(path)}.", (path,))


def not_allowed(value: object, allowed: str, path: str) -> SendError:
    return SendError(
        "mj-0005", f"Value {_shown(value)} is invalid. Allowed values are: {allowed}.", (path,)
    )


def not_available(path: str, what: str) -> SendError:
    return SendError("mj-0005", f"{what} is not available on this server.", (path,))


def too_long(characters_max: int, path: str) -> SendError:
    return SendError(
        "mj-0006",
        f"Characters limit exceeded for the property. Max allowed - {characters_max}.",
        (path,),
    )


def empty_array(path: str) -> SendError:
    return SendError("mj-0007", "The array must not be empty.", (path,))


def too_many(items_max: int, path: str) -> SendError:
    return SendError("mj-0008", f"Too many elements. Max allowed - {items_max}.", (path,))


def payload_too_big(octets_max: int, *paths: str) -> SendError:
    megabytes = octets_max // (1024 * 1024)
    return SendError("mj-0011", f"Input payload must be less than {megabytes}MB.", paths)


def empty_string(path: str) -> SendError:
    return SendError("mj-0012", "The value must not be empty.", (path,))


def bad_address(given: str, fault: AddressFault, path: str) -> SendError:
    """The text begins with the words clients look for and goes on with the place and the repair."""
    suggestion = f"; did you mean {fault.suggestion}?" if fault.suggestion else "."
    return SendError(
        "mj-0013",
        f"{_shown(given)} is an invalid email address. "
        f"At position {fault.position}: {fault.text}{suggestion}",
        (path,),
        address_fault=fault,
    )


def bad_text(fault: FieldFault, path: str) -> SendError:
    """A character that may not stand in a header, such as a line break."""
    return SendError(
        "mj-0005", f"Value is invalid. At position {fault.position}: {fault.text}.", (path,)
    )


def probable_typo(given: str, suggestion: str, path: str) -> SendWarning:
    """A recipient who was accepted as given, although another was probably meant."""
    return SendWarning(
        path, f"{_shown(given)} was accepted; did you mean {suggestion}?", suggestion
    )


def not_tracked(path: str) -> SendWarning:
    return SendWarning(path, "Accepted without effect: nothing is tracked here.")


def no_template(path: str) -> SendError:
    return SendError(
        "send-0010",
        "There is no such template for this API key: none are stored on this server. The texts of "
        'the message are filled in with "TemplateLanguage" and "Variables".',
        (path,),
    )


def bad_template(fault: TextFault, path: str) -> SendError:
    """A placeholder that cannot be read, with its line and column."""
    return SendError(
        "mj-0005",
        f"Value is invalid. At line {fault.line}, column {fault.column}: {fault.text}.",
        (path,),
    )


def missing_variable(placeholder: Placeholder, path: str, *, is_compound: bool) -> SendError:
    """A placeholder without a default for which there is no value that could be written."""
    name = placeholder.name
    what = "is an array or an object" if is_compound else "is missing"
    return SendError(
        "mj-0003",
        f"Missing mandatory property. In {path}, at line {placeholder.line}, column "
        f'{placeholder.column}, the variable "{name}" has no default, and in Variables it {what}.',
        (f"Variables.{name}", path),
    )


def left_empty(name: str, path: str) -> SendWarning:
    return SendWarning(
        path, f'The variable "{name}" has no value and no default: nothing stands in its place.'
    )


def errors_are_in_the_answer(path: str) -> SendWarning:
    return SendWarning(
        path, "Accepted without effect: a message with an error in it is refused in this answer."
    )


def forbidden_header(name: str, why: str) -> SendError:
    return SendError("send-0011", f"Header {_shown(name)} {why}.", (header_path(name),))


def header_path(name: str) -> str:
    return f"Headers[{_shown(name)}]"


def dedup_without_campaign() -> SendError:
    return SendError(
        "send-0012",
        '"DeduplicateCampaign" needs "CustomCampaign".',
        ("CustomCampaign", "DeduplicateCampaign"),
    )


def unknown_monitoring_category(value: str) -> SendError:
    return SendError(
        "send-0013", f"Monitoring category {_shown(value)} is unknown.", ("MonitoringCategory",)
    )


def too_many_recipients(recipients_max: int) -> SendError:
    return SendError(
        "send-0015",
        f"Too many recipients. Max allowed in To, Cc and Bcc together - {recipients_max}.",
        ("To", "Cc", "Bcc"),
    )


def template_error_without_language() -> SendError:
    return SendError(
        "send-0016",
        '"TemplateErrorReporting" and "TemplateErrorDeliver" need "TemplateLanguage".',
        ("TemplateLanguage",),
    )


def _shown(value: object) -> str:
    text = str(value)
    if len(text) > SHOWN_CHARACTERS_MAX:
        text = text[:SHOWN_CHARACTERS_MAX] + "…"
    return f'"{text}"'
