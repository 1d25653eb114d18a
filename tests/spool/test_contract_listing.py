"""Listings under narrow filters: what leads to the mails quickly shows the same as a walk does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.spool import lmdb_listing, lmdb_spool
from engine.spool.interface import Finish, Quota, Spool
from engine.spool.listing_calls import EnvelopeFilter, subject_contains
from protocols.records import Reason, Status
from tests.spool import harness as h
from tests.spool.harness import Harness

WAITING = frozenset({Status.QUEUED, Status.DEFERRED})


async def ids_of(spool: Spool, limit: int, **fields: Any) -> list[int]:
    """Return what all pages of a listing show, in their order."""
    wanted, found, after = replace(EnvelopeFilter(), **fields), list[int](), None
    for _ in range(1000):
        page = await spool.find(wanted, after, limit)
        assert all(wanted.admits(each) for each in page.envelopes)
        found += [each.fixed.envelope_id for each in page.envelopes]
        after = page.after
        if after is None:
            return found
    raise AssertionError("the listing never ends")


async def some_mail(harness: Harness, spool: Spool) -> None:
    """Two accounts, three destinations, two campaigns; delivered, deferred, paused and waiting."""
    accounts = [await h.make_account(spool, name) for name in ("acme", "bolt")]
    for number in range(24):
        harness.clock.now += 7
        await h.accept_many(
            spool,
            accounts[number % 2],
            3,
            at=("one.test", "two.test", "three.test")[number % 3],
            campaign=(None, "spring", "autumn")[number % 5 % 3],
            subject=f"Offer {number}: Grüße",
            lane=number % 2,
            quota=Quota(per_day=30),
        )
    for name, status in (("one.test", Status.DEFERRED), ("two.test", Status.DELIVERED)):
        claimed = await h.claim(spool, name, 10)
        harness.clock.now += 1
        due = harness.clock.now + h.HOUR_MS if status is Status.DEFERRED else 0
        await spool.settle(
            [h.result_of(spool, each, status, due_unix_ms=due) for each in claimed[::2]]
        )
        spool.give_back(each.fixed.envelope_id for each in claimed)


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_every_filter_shows_what_a_walk_over_everything_shows(
    harness: Harness, limit: int
) -> None:
    async with harness.open() as spool:
        await some_mail(harness, spool)
        everything = await h.all_envelopes(spool)
        sizes = set[int]()
        for destination in (None, "one.test", "two.test", "no.test", "einß.test"):
            for statuses in (None, WAITING, *(frozenset({each}) for each in Status)):
                for account_id in (None, 1, 2, 99):
                    for campaign in (None, "", "spring", "winter"):
                        fields = {
                            "destination": destination,
                            "statuses": statuses,
                            "account_id": account_id,
                            "campaign": campaign,
                        }
                        if limit == 1 and account_id:
                            continue
                        wanted = EnvelopeFilter(**fields)  # type: ignore[arg-type]  # by name
                        expected = [
                            each.fixed.envelope_id for each in everything if wanted.admits(each)
                        ]
                        assert await ids_of(spool, limit, **fields) == expected, fields
                        sizes.add(len(expected))
        assert {0, 72} < sizes
        assert len(sizes) > 10


async def test_what_is_purged_or_ends_meanwhile_does_not_confuse_a_listing(
    harness: Harness,
) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 3)
        await h.deliver(spool, await h.claim(spool))
        harness.clock.now += 40 * h.DAY_MS
        await h.sweep_all(spool)
        delivered = frozenset({Status.DELIVERED})
        assert await ids_of(spool, 10, statuses=delivered) == []
        await h.accept_many(spool, account, 4)
        last, *rest = await h.claim(spool)
        await h.deliver(spool, [last])
        spool.give_back(each.fixed.envelope_id for each in rest)
        assert await ids_of(spool, 10, statuses=delivered) == [last.fixed.envelope_id]
        wanted = EnvelopeFilter(destination="one.test", statuses=WAITING)
        first = await spool.find(wanted, None, 1)
        assert first.after is not None
        gone = first.after - 1
        await spool.settle([], [Finish(gone, Status.CANCELLED, harness.clock.now, Reason.OTHER)])
        second = await spool.find(wanted, first.after, 10)
        assert [each.fixed.envelope_id for each in second.envelopes] == [gone - 1]


async def test_a_subject_is_found_by_a_part_of_it_in_any_case(harness: Harness) -> None:
    async with harness.open() as spool:
        await some_mail(harness, spool)
        assert len(await ids_of(spool, 100, subject="offer")) == 72
        assert len(await ids_of(spool, 100, subject="OFFER 3:")) == 3
        assert len(await ids_of(spool, 100, subject="GRÜSSE")) == 0
        assert len(await ids_of(spool, 100, subject="7: GRÜß")) == 6
        assert len(await ids_of(spool, 100, subject="7: gr", account_id=1)) == 0
        assert len(await ids_of(spool, 5, subject="offer", destination="one.test")) == 24
        assert await ids_of(spool, 100, subject="spring") == [], "the campaign is not the subject"


@pytest.mark.parametrize(
    ("subject", "text", "is_in"),
    [
        ("", "", True),
        ("", "x", False),
        ("Ärger", "ä", True),
        ("ärger", "Ä", True),
        ("a\ud800b", "B", True),
        ("100 \u212a", "k", False),
        ("100 k", "\u212a", True),
    ],
)
def test_subjects_are_compared_letter_by_letter(subject: str, text: str, is_in: bool) -> None:
    assert subject_contains(subject, text) is is_in


async def test_a_page_ends_before_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_spool, "FIND_ROWS_MAX", 1000)
    monkeypatch.setattr(lmdb_listing, "QUEUE_ROWS_MAX", 10)
    async with Harness("lmdb", tmp_path).open() as spool:
        account = await h.make_account(spool)
        first = await h.accept_many(spool, account, 1, subject="Needle")
        for _ in range(5):
            await h.accept_many(spool, account, 500, at="two.test", subject="Hay")
        pages, after = 0, None
        while True:
            page = await spool.find(EnvelopeFilter(subject="needle"), after, 10)
            pages += 1
            if page.after is None:
                break
            assert page.envelopes == []
            after = page.after
        assert [each.fixed.envelope_id for each in page.envelopes] == first
        assert pages == 3
        # Queued there, and few: its queue rows are the short way, and one page has it.
        wanted = EnvelopeFilter(destination="one.test", statuses=frozenset({Status.QUEUED}))
        page = await spool.find(wanted, None, 10)
        assert [each.fixed.envelope_id for each in page.envelopes] == first
        assert page.after is None
        # Of what the counters do not have, nothing is looked at.
        for status in (Status.DEFERRED, Status.DELIVERED):
            page = await spool.find(EnvelopeFilter(statuses=frozenset({status})), None, 10)
            assert (page.envelopes, page.after) == ([], None)
        assert len(await ids_of(spool, 100, destination="two.test", statuses=WAITING)) == 2500
