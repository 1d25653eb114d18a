"""From a stored content to the octets that go to one envelope's server.

Owns what an envelope cannot be sent for although it is due (it is too old, or damaged), and
the templates that are ready to be filled in: parsed once, kept while there is room, filled in anew
for each envelope. A mail that is tried again gets the same octets, since nothing goes into them but
the content and what was settled at acceptance.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from engine.spool.interface import Content, ContentKind, Finish
from protocols.addresses import Address
from protocols.commands import is_wire_address
from protocols.header_fields import format_date
from protocols.records import Envelope, EnvelopeFixed, Reason, Status
from protocols.templates import DamagedTemplate, FillError, Template, for_field, read_template
from protocols.variables import DamagedVariables, unpack_variables

# Few campaigns run at a time. In memory a template takes some five times its stored form.
TEMPLATES_MAX: Final = 100
TEMPLATE_BYTES_MAX: Final = 4 * 1024 * 1024
# Header, structure and transfer encoding that a filled template has beyond its stored form.
FILLED_BYTES_MORE: Final = 1024


class Sendable(NamedTuple):
    """The whole mail of an envelope and what its server must be able to do.

    `is_own`: it was made for this envelope alone, and no other may share its transaction.
    """

    octets: bytes
    needs_8bit: bool
    needs_utf8: bool
    is_own: bool = False


class Unsendable(NamedTuple):
    """Why an envelope cannot be sent to anybody, in the form of a reply."""

    reply: str


def ended_unsent(envelope: Envelope, at_unix_ms: int, reply: str) -> Finish:
    """Return the decision that ends what cannot be sent; `reply` is that of an `Unsendable`."""
    envelope_id = envelope.fixed.envelope_id
    return Finish(envelope_id, Status.SOFT_BOUNCED, at_unix_ms, Reason.OTHER, reply)


def ended_by_age(envelope: Envelope, at_unix_ms: int) -> Finish:
    """Return the decision that ends what became too old, with the last reply heard."""
    envelope_id, reply = envelope.fixed.envelope_id, envelope.state.reply
    return Finish(envelope_id, Status.SOFT_BOUNCED, at_unix_ms, Reason.EXPIRED, reply)


def size_in_memory(fixed: EnvelopeFixed) -> int:
    """Return about how many octets an envelope's content has in memory, filled in if it will be."""
    if fixed.variables is None:
        return fixed.content_size
    return fixed.content_size + len(fixed.variables) + FILLED_BYTES_MORE


def address_fault(fixed: EnvelopeFixed) -> Unsendable | None:
    """Return why an envelope's addresses cannot stand in a command, or None.

    Intake accepts no such mail. But whoever wrote it, one bad record must not end the process each
    time its turn comes.
    """
    if not is_wire_address(fixed.recipient, utf8=True):
        return Unsendable("553 5.1.3 (the stored recipient is no address)")
    if fixed.reverse_path and not is_wire_address(fixed.reverse_path, utf8=True):
        return Unsendable("553 5.1.7 (the stored reverse path is no address)")
    return None


class Templates:
    """The templates that are ready, the last used ones if there are many."""

    def __init__(self) -> None:
        self._ready: OrderedDict[int, tuple[Template, int]] = OrderedDict()
        self._octets = 0

    def sendable(self, fixed: EnvelopeFixed, content: Content | None) -> Sendable | Unsendable:
        """Return the mail of an envelope, filled in if its content is a template."""
        if content is None:
            return Unsendable("554 5.3.0 (the stored content is damaged)")
        if content.kind is ContentKind.OCTETS:
            return Sendable(content.octets, fixed.needs_8bit, fixed.needs_utf8)
        try:
            return self._fill(fixed, content.octets)
        except DamagedTemplate as error:
            return _unsendable("5.3.0 (the stored template is damaged", error)
        except DamagedVariables as error:
            return _unsendable("5.3.0 (the stored variables are damaged", error)
        except FillError as error:
            return _unsendable("5.6.0 (the template cannot be filled in", error)

    def _fill(self, fixed: EnvelopeFixed, stored: bytes) -> Sendable:
        local, _, domain = fixed.recipient.rpartition("@")
        filled = self._template(fixed.content_id, stored).fill(
            {} if fixed.variables is None else unpack_variables(fixed.variables),
            recipient=Address(local, domain, fixed.address, needs_utf8=not local.isascii()),
            identifier=fixed.uuid.hex(),
            date=format_date(fixed.accepted_unix_ms / 1000),
        )
        needs_utf8 = filled.needs_utf8 or not fixed.reverse_path.isascii()
        return Sendable(filled.octets, fixed.needs_8bit, needs_utf8 or fixed.needs_utf8, True)

    def _template(self, content_id: int, stored: bytes) -> Template:
        known = self._ready.get(content_id)
        if known is not None:
            self._ready.move_to_end(content_id)
            return known[0]
        template = read_template(stored)
        self._ready[content_id] = (template, len(stored))
        self._octets += len(stored)
        while len(self._ready) > TEMPLATES_MAX or (
            self._octets > TEMPLATE_BYTES_MAX and len(self._ready) > 1
        ):
            _, (_, octets) = self._ready.popitem(last=False)
            self._octets -= octets
        return template


def _unsendable(what: str, error: Exception) -> Unsendable:
    # A reply is one line, whatever the damage.
    return Unsendable(for_field(f"554 {what}: {error})"))
