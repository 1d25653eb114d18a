"""The read side of the `memory:` adapter: listings and statistics, by looking at everything."""

from collections.abc import Iterator

from engine.spool import projections
from engine.spool.held_counts import HeldMail, HeldPart
from engine.spool.interface import DestinationRow, Group, StatisticsRow
from engine.spool.listing_calls import EnvelopeFilter
from engine.spool.memory_data import MemoryData
from engine.spool.projections import DAY_MS, HOUR_MS, CounterKey
from protocols.records import FINAL_STATUSES, DestinationRecord, Envelope


def matching(data: MemoryData, wanted: EnvelopeFilter) -> Iterator[Envelope]:
    """Yield the envelopes that a filter admits, newest first."""
    return (each for each in reversed(data.envelopes()) if wanted.admits(each))


def counted(
    data: MemoryData,
    group: Group,
    account_id: int | None,
    from_unix_ms: int | None,
    to_unix_ms: int | None,
) -> list[StatisticsRow]:
    """Return counts by status, sorted by key; see `Spool.statistics` for the range."""
    has_range = from_unix_ms is not None or to_unix_ms is not None
    projection, period_ms = projections.source_of(group, has_range=has_range)
    rows = {"total": projections.NO_COUNTS} if group is Group.TOTAL else {}
    for key, counts in data.counters.items():
        if key.projection != projection or account_id not in (None, key.account_id):
            continue
        if period_ms and not projections.overlaps(
            key.period * period_ms, period_ms, from_unix_ms, to_unix_ms
        ):
            continue
        text = _key_text(data, group, key)
        rows[text] = projections.add_counts(rows.get(text, projections.NO_COUNTS), counts)
    return [StatisticsRow(text, rows[text]) for text in sorted(rows)]


def destination_rows(
    data: MemoryData,
    account_id: int | None,
    campaign: str | None,
    after: str,
    limit: int,
    now_unix_ms: int,
) -> list[DestinationRow]:
    """Return destinations by name; with a campaign, those and the counts that are its own."""
    if campaign is None:
        rows = counted(data, Group.DESTINATION, account_id, None, None)
    else:
        sums: dict[str, tuple[int, ...]] = {}
        for key, counts in data.counters.items():
            if (key.projection, key.campaign) == (
                projections.Projection.CAMPAIGN_DESTINATION,
                campaign,
            ) and account_id in (None, key.account_id):
                known = sums.get(key.destination, projections.NO_COUNTS)
                sums[key.destination] = projections.add_counts(known, counts)
        rows = [StatisticsRow(name, sums[name]) for name in sorted(sums)]
    return [
        DestinationRow(
            row.key,
            row.counts,
            data.destinations.get(row.key, DestinationRecord()),
            data.agenda[row.key].wake_unix_ms if row.key in data.agenda else None,
            _held_at(data, account_id, campaign, row.key, now_unix_ms),
        )
        for row in rows
        if row.key > after
    ][:limit]


def _held_at(
    data: MemoryData,
    account_id: int | None,
    campaign: str | None,
    destination: str,
    now_unix_ms: int,
) -> HeldMail | None:
    """Return what holds of whole flows keep back, by looking at each mail."""
    holds = [each for each in data.holds.at(now_unix_ms) if each.wanted.is_of_flow]
    if not holds:
        return None
    site = data.site_of(destination)
    mails = [
        each
        for each in data.envelopes(lambda state: state.status not in FINAL_STATUSES)
        if each.fixed.destination == destination
        and account_id in (None, each.fixed.account_id)
        and campaign in (None, each.fixed.campaign)
    ]
    ends: list[int] = []
    parts: list[HeldPart] = []
    for hold in holds:
        count = sum(hold.wanted.fits(each, site, now_unix_ms) for each in mails)
        owner_id = hold.wanted.account_id
        if count:
            name = None if owner_id is None else data.account_name(owner_id)
            parts.append(HeldPart(hold, name, count))
    for each in mails:
        fitting = [hold for hold in holds if hold.wanted.fits(each, site, now_unix_ms)]
        ends += [max(hold.end_unix_ms for hold in fitting)] if fitting else []
    if not ends:
        return None
    parts.sort(key=lambda part: (-part.mails, -part.hold.end_unix_ms))
    return HeldMail(len(ends), min(ends), parts)


def _key_text(data: MemoryData, group: Group, key: CounterKey) -> str:
    match group:
        case Group.TOTAL:
            return "total"
        case Group.DESTINATION:
            return key.destination
        case Group.ACCOUNT:
            return data.account_name(key.account_id)
        case Group.CAMPAIGN:
            return key.campaign
        case Group.HOUR:
            return projections.hour_text(key.period)
        case Group.DAY:
            return projections.day_text(key.period * HOUR_MS // DAY_MS)
