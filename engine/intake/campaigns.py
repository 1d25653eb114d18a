"""A template with its recipients, on the way in: definitions read, lists taken in piece by piece.

A list is never whole in memory. Its lines are checked as they come, and what is good is accepted
some hundred at a time; while one batch is being stored the next one is checked and nothing more is
read, so that a list comes in no faster than the spool takes it. A line with a fault is named and
costs only itself.

Each address is in a campaign once (`engine.spool.campaign_calls`), which makes handing in the whole
list again the way on after any break.
"""

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import Final, Literal

import msgspec

from engine.http_server import HttpError
from engine.intake.accounts import no_room_text
from engine.intake.address_check import (
    RecipientFault,
    SuggestionRow,
    fault_row,
    shown,
    suggestion_for,
)
from engine.intake.campaign_views import LANES
from engine.intake.send_build import uuid4
from engine.intake.send_check import CAMPAIGN_CHARACTERS_MAX
from engine.spool.campaign_calls import NewCampaign
from engine.spool.interface import (
    Accepted,
    AcceptRequest,
    CampaignEnded,
    NewMessage,
    NewRecipient,
    Quota,
    QuotaBeyondReach,
    Spool,
    SpoolError,
    SpoolFull,
)
from protocols.address_lists import ListRefused
from protocols.address_suggestions import DomainTypos
from protocols.address_texts import fault_text
from protocols.addresses import Address, parse_address
from protocols.header_fields import Mailbox, text_fault
from protocols.languages import Language
from protocols.recipient_lists import LineFault, ListedRecipient, RecipientList
from protocols.records import Account, Campaign, Status
from protocols.templates import (
    Template,
    TemplateError,
    TemplateFault,
    TemplateSource,
    compile_template,
)
from protocols.variables import VariablesError

# One commit of the spool takes so many: more would be two, and hold up results of attempts.
BATCH: Final = 500
# What is filled in for one recipient may have 64 kB; a batch of those is several commits' worth.
BATCH_OCTETS: Final = 1024 * 1024
# Whoever has more faults than this has one cause for them, and finds it in these.
FINDINGS_SHOWN_MAX: Final = 1_000
RETRY_AFTER_S: Final = "60"
RESUME_TEXT: Final = "What was taken stays; the same list once more takes in the rest."


class MailboxBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    email: str
    name: str = ""


class CampaignBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A template and the name its mail goes under.

    Placeholders in names, subject, texts and headers: `{{name}}` or `{{var:name}}` is the value of
    a column, `{{name:"default"}}` stands in for an empty one, `{{url:name}}` is for a part of a
    link, `{{address}}` is the recipient's; `{{"{{"}}` is two braces. A value is escaped in the HTML
    and percent-encoded in `List-` headers. A recipient without a value for a placeholder without a
    default is refused.
    """

    campaign: str
    from_: MailboxBody = msgspec.field(name="from")
    subject: str
    text: str | None = None
    html: str | None = None
    reply_to: MailboxBody | None = None
    headers: dict[str, str] = {}
    lane: Literal["bulk", "transactional"] = "bulk"


class ListAnswer(msgspec.Struct, frozen=True):
    """What became of a list: its lines are accepted, repeated or refused.

    The address of a `repeated` line is in the campaign by another line, of this list or of one
    before it. Of the accepted ones, `paused` wait for a day with room in the quota and `blocked`
    ones are suppressed. Of the refused ones `faults` names the first thousand; of the others
    `suggested` look mistyped, and `suggestions` names the first thousand of those: they are taken
    as they are. `complete` says that the list was read to its end.
    """

    campaign: str
    state: str
    accepted: int
    repeated: int
    refused: int
    paused: int
    blocked: int
    suggested: int
    complete: bool
    faults: list[RecipientFault]
    suggestions: list[SuggestionRow]


def new_campaign(account: Account, body: CampaignBody, *, host: str) -> NewCampaign:
    """Return the campaign that a sender wants, checked. Raises HttpError 400, saying where."""
    name = body.campaign
    if not 0 < len(name) <= CAMPAIGN_CHARACTERS_MAX or text_fault(name) is not None:
        text = f"A name has 1 to {CAMPAIGN_CHARACTERS_MAX} characters, and no control characters."
        raise HttpError(400, "bad_campaign", text, "campaign")
    from_ = _mailbox(body.from_, "from")
    source = TemplateSource(
        from_=from_,
        subject=body.subject,
        reply_to=None if body.reply_to is None else _mailbox(body.reply_to, "reply_to"),
        text=body.text or "",
        html=body.html or "",
        headers=tuple(body.headers.items()),
    )
    try:
        template = compile_template(source, host=host)
    except TemplateError as error:
        raise _bad_template(error.faults) from error
    needs_utf8 = from_.address.needs_utf8 or (
        source.reply_to is not None and source.reply_to.address.needs_utf8
    )
    return NewCampaign(
        account,
        name,
        template,
        # Over what was said, not over what became of it: that may change with the program.
        blake2b(msgspec.json.encode(body), digest_size=16).digest(),
        from_.address.wire,
        body.subject,
        LANES.index(body.lane),
        needs_utf8=needs_utf8,
    )


def _mailbox(body: MailboxBody, where: str) -> Mailbox:
    address = parse_address(body.email)
    if not isinstance(address, Address):
        text = f"{where}.email: at position {address.position}: {address.text}."
        raise HttpError(400, "bad_address", text, f"{where}.email")
    return Mailbox(address, body.name)


def _bad_template(faults: tuple[TemplateFault, ...]) -> HttpError:
    text = "; ".join(map(str, faults[:10]))
    return HttpError(400, "bad_template", f"The template cannot be sent: {text}.", faults[0].part)


class ListIntake:
    """One list on its way into a campaign. `random_octets` is a seam."""

    def __init__(
        self,
        spool: Spool,
        account: Account,
        campaign: Campaign,
        template: Template,
        *,
        quota_of: Callable[[Account], Quota],
        typos: DomainTypos,
        language: Language,
        random_octets: Callable[[int], bytes],
    ) -> None:
        self._spool = spool
        self._account = account
        self._campaign = campaign
        self._template = template
        self._quota_of = quota_of
        self._accounts_version = spool.accounts_version
        self._typos = typos
        self._language: Language = language
        self._random_octets = random_octets
        self._has_columns = False
        self._batch: list[NewRecipient] = []
        self._international: list[NewRecipient] = []
        self._batch_octets = 0
        self._uuid_octets = b""
        self._uuids_used = 0
        self._faults: list[RecipientFault] = []
        self._suggestions: list[SuggestionRow] = []
        self._suggested = 0
        self._accepted = self._repeated = self._refused = self._paused = self._blocked = 0

    def take_from(self, entries: RecipientList, entries_max: int) -> bool:
        """Check up to so many entries of those that are there; say whether there may be more.

        Raises HttpError for a list that can be none for this template.
        """
        for _ in range(entries_max):
            if self.is_full:
                return True
            try:
                entry = entries.take()
            except ListRefused as error:
                text = f"The list cannot be read: {error}."
                raise HttpError(400, "bad_list", text) from error
            if not self._has_columns and entries.columns is not None:
                self._has_columns = True
                if faults := self._template.column_faults(entries.columns):
                    raise _missing_columns(faults)
            if entry is None:
                return False
            if isinstance(entry, LineFault):
                text = fault_text(entry.text, self._language)
                self._refuse(entry.line, entry.where, entry.code, text, entry.shown, entry.position)
            else:
                self._check(entry)
        return True

    @property
    def is_full(self) -> bool:
        """Whether what was checked has to be stored before more is."""
        count = len(self._batch) + len(self._international)
        return count >= BATCH or self._batch_octets >= BATCH_OCTETS

    def _check(self, entry: ListedRecipient) -> None:
        line, given, variables = entry
        address = self._typos.parse(given)
        if not isinstance(address, Address):
            found = fault_row(line, given, address, self._language)
            self._refuse(
                line, "email", found.code, found.text, given, found.position, found.suggestion
            )
            return
        template = self._template
        if fault := template.check(variables, address):
            self._refuse(line, "variables", "bad_variables", fault, given)
            return
        try:
            packed = template.pack_variables(variables)
        except VariablesError as error:
            self._refuse(line, "variables", "bad_variables", str(error), given)
            return
        if doubt := suggestion_for(line, given, address, self._typos):
            self._suggested += 1
            if len(self._suggestions) < FINDINGS_SHOWN_MAX:
                self._suggestions.append(doubt)
        recipient = NewRecipient(
            self._new_uuid(),
            address.wire,
            given,
            address.domain,
            packed,
            template.subject(variables, address),
        )
        (self._international if address.needs_utf8 else self._batch).append(recipient)
        self._batch_octets += len(packed)

    def _new_uuid(self) -> bytes:
        # A call to the system for each recipient costs as much as all else about them.
        at = self._uuids_used * 16
        if at == len(self._uuid_octets):
            self._uuid_octets, at = self._random_octets(16 * BATCH), 0
        self._uuids_used = at // 16 + 1
        return uuid4(self._uuid_octets[at : at + 16])

    def _refuse(
        self,
        line: int,
        where: str,
        code: str,
        text: str,
        given: str,
        position: int | None = None,
        suggestion: str | None = None,
    ) -> None:
        self._refused += 1
        if len(self._faults) < FINDINGS_SHOWN_MAX:
            self._faults.append(
                RecipientFault(line, where, code, text, shown(given), position, suggestion)
            )

    def batch(self) -> list[NewMessage]:
        """Return what was checked since the last batch, for `store`; it is full no more."""
        campaign = self._campaign
        messages = [
            NewMessage(
                b"",
                people,
                campaign.reverse_path,
                campaign.subject,
                campaign.name,
                lane=campaign.lane,
                needs_8bit=campaign.needs_8bit,
                needs_utf8=needs_utf8,
                campaign_id=campaign.campaign_id,
                parts=self._template.parts,
            )
            for people, needs_utf8 in (
                (self._batch, campaign.needs_utf8),
                (self._international, True),
            )
            if people
        ]
        self._batch, self._international, self._batch_octets = [], [], 0
        return messages

    async def store(self, batch: list[NewMessage]) -> HttpError | None:
        """Have a batch stored; return why it was not taken, None if it was.

        Where the quota has no room for all of it, as many are taken as it has room for.
        """
        try:
            if self._accounts_version != self._spool.accounts_version:
                await self._look_again()
            if self._account.disabled:
                return HttpError(403, "account_suspended", "This account is suspended.")
            quota = self._quota_of(self._account)
            [answer] = await self._spool.accept([AcceptRequest(self._account, batch, quota)])
        except SpoolError as error:
            return refusal_of(error)
        if isinstance(answer, QuotaBeyondReach):
            halves = _halves(batch)
            if halves is None:
                return HttpError(403, "quota", f"{no_room_text(quota)} {RESUME_TEXT}")
            return await self.store(halves[0]) or await self.store(halves[1])
        if not isinstance(answer, Accepted):
            return refusal_of(answer)
        self._accepted += len(answer.envelopes)
        self._repeated += len(answer.repeats)
        for each in answer.envelopes:
            self._paused += each.status is Status.PAUSED
            self._blocked += each.status is Status.BLOCKED
        return None

    async def _look_again(self) -> None:
        """Take the account as it is now: a list may come in for hours, and plans change."""
        self._accounts_version = self._spool.accounts_version
        for account in await self._spool.accounts():
            if account.account_id == self._account.account_id:
                self._account = account

    async def note_refused(self) -> None:
        """Count the refused lines into the campaign, at the end of the list."""
        if self._refused:
            campaign = self._campaign
            await self._spool.count_refused(
                campaign.account_id, campaign.campaign_id, self._refused
            )

    def answer(self, state: str, *, is_complete: bool) -> ListAnswer:
        """Return what became of the list so far."""
        return ListAnswer(
            self._campaign.name,
            state,
            self._accepted,
            self._repeated,
            self._refused,
            self._paused,
            self._blocked,
            self._suggested,
            is_complete,
            self._faults,
            self._suggestions,
        )


def _halves(batch: list[NewMessage]) -> tuple[list[NewMessage], list[NewMessage]] | None:
    """Cut a batch in two; None if it is for one recipient."""
    if len(batch) > 1:
        return batch[:1], batch[1:]
    [message] = batch
    people = message.recipients
    middle = len(people) // 2
    if middle == 0:
        return None
    first, second = replace(message, recipients=people[:middle]), people[middle:]
    return [first], [replace(message, recipients=second)]


def _missing_columns(faults: list[TemplateFault]) -> HttpError:
    text = "; ".join(map(str, faults[:10]))
    return HttpError(400, "missing_columns", f"The template needs more: {text}.", faults[0].part)


def refusal_of(error: SpoolError) -> HttpError:
    """Give a refusal of the spool its form."""
    if isinstance(error, CampaignEnded):
        return HttpError(409, "campaign_ended", f"No more recipients: {error}.", "campaign")
    code = "spool_full" if isinstance(error, SpoolFull) else "spool_failed"
    text = "The spool cannot take mail at the moment; try again later with the whole list."
    return HttpError(503, code, text, headers=(("retry-after", RETRY_AFTER_S),))
