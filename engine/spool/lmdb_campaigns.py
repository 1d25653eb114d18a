"""The campaigns of the `lmdb:` adapter: their rows, and who is in each of them already.

`campaign_recipient` has a row for each address, under the campaign's number and a digest of the
address; its value is the envelope. The number is never given twice, so that forgetting a campaign
is one small commit, after which its recipients' rows lead nowhere and are removed bit by bit.
"""

from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, Final

from engine.spool import campaign_rules
from engine.spool.campaign_calls import NAMES_PASSED_MAX, NamesPage, NewCampaign
from engine.spool.handed_in import AcceptRequest, ContentKind, NewMessage
from engine.spool.interface import SpoolSettings
from engine.spool.invariants import OPEN_INDEXES
from engine.spool.lmdb_changes import Changes
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_layout import (
    META_CAMPAIGN_ID,
    U32,
    U32_U32,
    U64,
    StoredFlow,
    Tables,
    campaign_key,
    campaign_name_key,
    campaign_recipient_key,
    counter_group,
    counter_key,
    flow_name_key,
    split_counter_key,
)
from engine.spool.projections import NO_COUNTS, Projection
from protocols.records import (
    Campaign,
    CampaignState,
    DamagedRecord,
    pack_record,
    suppressed_address,
    unpack_record,
)

if TYPE_CHECKING:
    import lmdb

Counts = tuple[int, ...]

# What one step of the sweeper looks at and removes: campaigns end after months.
SURVEYED_ROWS: Final = 100
REMOVED_ROWS: Final = 500

LAST_ID: Final = 2**32 - 1


class Listed:
    """The recipients of a request that belong to campaigns, asked about before anything changes.

    `repeats` are the places of those that are in their campaign already, or twice in the request.
    Raises CampaignEnded for a campaign that takes nobody.
    """

    def __init__(self, changes: Changes, request: AcceptRequest) -> None:
        self._changes = changes
        self._keys: dict[int, bytes] = {}
        self._campaigns: dict[int, Campaign] = {}
        self.repeats: list[int] = []
        seen: set[bytes] = set()
        place = 0
        for message in request.messages:
            if message.campaign_id:
                self._look_up(request.account.account_id, message, place, seen)
            place += len(message.recipients)

    def _look_up(self, account_id: int, message: NewMessage, place: int, seen: set[bytes]) -> None:
        changes = self._changes
        get, table = changes.txn.get, changes.tables.campaign_recipient
        campaign_id = message.campaign_id
        prefix = campaign_key(account_id, campaign_id)
        if campaign_id not in self._campaigns:
            self._campaigns[campaign_id] = campaign_rules.open_one(read_row(changes, prefix))
        new = 0
        for recipient in message.recipients:
            address = suppressed_address(recipient.recipient, recipient.destination)
            key = campaign_recipient_key(prefix, address)
            if key in seen or get(key, db=table) is not None:
                self.repeats.append(place)
            else:
                seen.add(key)
                self._keys[place] = key
                new += 1
            place += 1
        self._campaigns[campaign_id] = campaign_rules.with_accepted(
            self._campaigns[campaign_id], new, len(message.recipients) - new, changes.now_unix_ms
        )

    def campaign(self, message: NewMessage) -> Campaign:
        return self._campaigns[message.campaign_id]

    def take_in(self, place: int, envelope_id: int) -> None:
        """Note that the recipient at this place is in its campaign from now on."""
        self._changes.put("campaign_recipient", self._keys[place], U64.pack(envelope_id))

    def flush(self) -> None:
        """Store what was counted."""
        for campaign in self._campaigns.values():
            put_row(self._changes, campaign)


def create(changes: Changes, new: NewCampaign) -> tuple[Campaign, bool]:
    """Store a campaign with its template, unless there is one of that name."""
    account_id = new.account.account_id
    name_key = campaign_name_key(account_id, new.name)
    known_id = changes.number("campaign_name", name_key)
    if known_id is not None:
        known = read_row(changes, campaign_key(account_id, known_id))
        if known is not None:
            return known, False
    campaign_rules.check_room(_count_of(changes, account_id))
    campaign_id = (changes.number("meta", META_CAMPAIGN_ID) or 0) + 1
    changes.put("meta", META_CAMPAIGN_ID, pack_record(campaign_id))
    content_id = changes.add_content(
        new.template,
        kind=ContentKind.TEMPLATE.value,
        needs_8bit=new.needs_8bit,
        needs_utf8=new.needs_utf8,
        references=1,
    )
    campaign = Campaign(
        campaign_id,
        account_id,
        new.name,
        CampaignState.OPEN,
        new.digest,
        content_id,
        len(new.template),
        new.reverse_path,
        new.subject,
        new.lane,
        new.needs_8bit,
        new.needs_utf8,
        changes.now_unix_ms,
    )
    put_row(changes, campaign)
    changes.put("campaign_name", name_key, pack_record(campaign_id))
    return campaign, True


def _count_of(changes: Changes, account_id: int) -> int:
    prefix, count = U32.pack(account_id), 0
    with changes.txn.cursor(changes.tables.campaign) as cursor:
        is_there = cursor.set_range(prefix)
        while is_there and cursor.key().startswith(prefix):
            count += 1
            is_there = cursor.next()
    return count


def end(changes: Changes, account_id: int, campaign_id: int, state: CampaignState) -> Campaign:
    """See `CampaignCalls.end_campaign`. The template is let go of with the first end."""
    campaign = read_row(changes, campaign_key(account_id, campaign_id))
    if campaign is None:
        return campaign_rules.open_one(None)
    ended = campaign_rules.ended(campaign, state, changes.now_unix_ms)
    if campaign.state is CampaignState.OPEN:
        changes.refer(campaign.content_id, -1)
    if ended is not campaign:
        put_row(changes, ended)
    return ended


def count_refused(changes: Changes, account_id: int, campaign_id: int, count: int) -> None:
    campaign = read_row(changes, campaign_key(account_id, campaign_id))
    if campaign is not None:
        put_row(changes, campaign_rules.with_refused(campaign, count))


def put_row(changes: Changes, campaign: Campaign) -> None:
    key = campaign_key(campaign.account_id, campaign.campaign_id)
    changes.put("campaign", key, pack_record(campaign))


def read_row(changes: Changes, key: bytes) -> Campaign | None:
    stored = changes.txn.get(key, db=changes.tables.campaign)
    if stored is None:
        return None
    try:
        return unpack_record(stored, Campaign)
    except DamagedRecord:
        changes.note_damage("campaign", key, stored)
        return None


# The read side.


def read_campaign(store: Store, account_id: int, name: str) -> Campaign | None:
    with store.environment.begin() as txn:
        stored = txn.get(campaign_name_key(account_id, name), db=store.tables.campaign_name)
        try:
            if stored is None:
                return None
            key = campaign_key(account_id, unpack_record(stored, int))
            row = txn.get(key, db=store.tables.campaign)
            return None if row is None else unpack_record(row, Campaign)
        except DamagedRecord:
            return None


def read_campaigns(
    store: Store, account_id: int | None, before: int | None, limit: int
) -> list[Campaign]:
    """Return campaigns, newest first: at the cost of a look for each account and each row."""
    found: list[Campaign] = []
    end_id = LAST_ID if before is None else min(before, LAST_ID)
    with store.environment.begin() as txn, txn.cursor(store.tables.campaign) as cursor:
        owners = _owners(cursor) if account_id is None else [account_id]
        # The newest one of each account that was not taken yet.
        rows = [row for each in owners if (row := _newest_before(cursor, each, end_id)) is not None]
        heapify(rows)
        while rows and len(found) < limit:
            newest_id, owner, stored = -rows[0][0], *rows[0][1:]
            if (campaign := _whole(stored)) is not None:
                found.append(campaign)
            if (row := _newest_before(cursor, owner, newest_id)) is not None:
                heapreplace(rows, row)
            else:
                heappop(rows)
    return found


def _owners(cursor: "lmdb.Cursor[bytes]") -> list[int]:
    """Return the accounts that have campaigns."""
    owners: list[int] = []
    is_there = cursor.first()
    while is_there:
        owners.append(U32_U32.unpack(cursor.key())[0])
        is_there = cursor.set_range(campaign_key(owners[-1] + 1, 0))
    return owners


def _newest_before(
    cursor: "lmdb.Cursor[bytes]", account_id: int, end_id: int
) -> tuple[int, int, bytes] | None:
    """Return an account's newest campaign with an id below `end_id`: its id below zero, so that it
    sorts first, the account and the record."""
    is_row = cursor.prev() if cursor.set_range(campaign_key(account_id, end_id)) else cursor.last()
    if not is_row or not cursor.key().startswith(U32.pack(account_id)):
        return None
    return -U32_U32.unpack(cursor.key())[1], account_id, cursor.value()


def _whole(stored: bytes) -> Campaign | None:
    try:
        return unpack_record(stored, Campaign)
    except DamagedRecord:
        # Said by the sweeper.
        return None


def read_single_names(store: Store, account_id: int, before: int | None, limit: int) -> NamesPage:
    """See `CampaignCalls.single_names`: backwards over the counters, by number of their flow."""
    prefix = counter_group(Projection.CAMPAIGN, account_id)
    end_flow = LAST_ID if before is None else min(before, LAST_ID)
    names: list[str] = []
    flow = end_flow
    with store.environment.begin() as txn, txn.cursor(store.tables.counter) as cursor:
        end_key = counter_key(Projection.CAMPAIGN, account_id, 0, end_flow, "")
        is_there = cursor.prev() if cursor.set_range(end_key) else cursor.last()
        for _ in range(limit + NAMES_PASSED_MAX):
            if not (is_there and cursor.key().startswith(prefix)):
                return NamesPage(names)
            if len(names) == limit:
                break
            flow = split_counter_key(cursor.key())[3]
            name = _name_of_flow(txn, store.tables, flow)
            key = campaign_name_key(account_id, name)
            if name and txn.get(key, db=store.tables.campaign_name) is None:
                names.append(name)
            is_there = cursor.prev()
    return NamesPage(names, flow)


def _name_of_flow(txn: "lmdb.Transaction[bytes]", tables: Tables, flow: int) -> str:
    """Return "" for mail without a campaign, and where nobody can say."""
    stored = txn.get(U32.pack(flow), db=tables.flow)
    try:
        return "" if stored is None else unpack_record(stored, StoredFlow).campaign or ""
    except DamagedRecord:
        return ""


def read_counts(store: Store, account_id: int, names: list[str]) -> list[Counts]:
    with store.environment.begin() as txn:
        return [_counts_of(txn, store.tables, account_id, name) for name in names]


def _counts_of(
    txn: "lmdb.Transaction[bytes]", tables: Tables, account_id: int, name: str
) -> Counts:
    flow = 0
    try:
        if name:
            numbered = txn.get(flow_name_key(account_id, name), db=tables.flow_name)
            if numbered is None:
                return NO_COUNTS
            flow = unpack_record(numbered, int)
        row = txn.get(counter_key(Projection.CAMPAIGN, account_id, 0, flow, ""), db=tables.counter)
        return NO_COUNTS if row is None else unpack_record(row, Counts)
    except DamagedRecord:
        return NO_COUNTS


# Forgetting, by the sweeper.


@dataclass(slots=True)
class Survey:
    """What one step found: campaigns that are over or damaged, and recipients without a campaign.

    `cursors` are where the next step goes on, b"" at the beginning.
    """

    over: list[bytes] = field(default_factory=list)
    damaged: list[bytes] = field(default_factory=list)
    nameless: list[bytes] = field(default_factory=list)
    cursors: tuple[bytes, bytes] = (b"", b"")

    def has_work(self) -> bool:
        return bool(self.over or self.nameless)


def survey(
    store: Store, cursors: tuple[bytes, bytes], now_unix_ms: int, settings: SpoolSettings
) -> Survey:
    """Look at the next campaigns, and at the next ones that recipients name."""
    found = Survey()
    with store.environment.begin() as txn:
        found.cursors = (
            _survey_rows(txn, store.tables, found, cursors[0], now_unix_ms, settings),
            _survey_recipients(txn, store.tables, found, cursors[1]),
        )
    return found


def _survey_rows(
    txn: "lmdb.Transaction[bytes]",
    tables: Tables,
    found: Survey,
    after: bytes,
    now_unix_ms: int,
    settings: SpoolSettings,
) -> bytes:
    with txn.cursor(tables.campaign) as cursor:
        is_there = cursor.set_range(after) if after else cursor.first()
        for _ in range(SURVEYED_ROWS):
            if not is_there:
                return b""
            key, stored = cursor.item()
            try:
                if campaign_rules.is_over(unpack_record(stored, Campaign), now_unix_ms, settings):
                    found.over.append(key)
            except DamagedRecord:
                found.damaged.append(key)
            is_there = cursor.next()
        return cursor.key() if is_there else b""


def _survey_recipients(
    txn: "lmdb.Transaction[bytes]", tables: Tables, found: Survey, start: bytes
) -> bytes:
    """Find recipients whose campaign is not there: one look for each that is."""
    with txn.cursor(tables.campaign_recipient) as cursor:
        is_there = cursor.set_range(start) if start else cursor.first()
        for _ in range(SURVEYED_ROWS):
            if not is_there:
                return b""
            campaign = cursor.key()[: U32_U32.size]
            if txn.get(campaign, db=tables.campaign) is not None:
                account_id, campaign_id = U32_U32.unpack(campaign)
                is_there = cursor.set_range(campaign_key(account_id, campaign_id + 1))
                continue
            while is_there and cursor.key().startswith(campaign):
                if len(found.nameless) == REMOVED_ROWS:
                    return campaign
                found.nameless.append(cursor.key())
                is_there = cursor.next()
        return cursor.key() if is_there else b""


def forget(changes: Changes, found: Survey, now_unix_ms: int, settings: SpoolSettings) -> int:
    """Remove what a survey found, unless it has changed since; return how many rows."""
    removed = 0
    for key in found.over:
        campaign = read_row(changes, key)
        if campaign is None or not campaign_rules.is_over(campaign, now_unix_ms, settings):
            continue
        if _has_open_mail(changes, campaign):
            continue
        if campaign.state is CampaignState.OPEN:
            changes.refer(campaign.content_id, -1)
        changes.txn.delete(key, db=changes.tables.campaign)
        name_key = campaign_name_key(campaign.account_id, campaign.name)
        changes.txn.delete(name_key, db=changes.tables.campaign_name)
        removed += 1
    for key in found.nameless:
        removed += changes.txn.delete(key, db=changes.tables.campaign_recipient)
    return removed


def _has_open_mail(changes: Changes, campaign: Campaign) -> bool:
    counts = _counts_of(changes.txn, changes.tables, campaign.account_id, campaign.name)
    return any(counts[index] for index in OPEN_INDEXES)
