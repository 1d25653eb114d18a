"""Addresses where nobody is: suppressed by a hard bounce, for their account, for ninety days."""

from typing import Any

import pytest

from engine.spool.interface import Finish, Group, Quota, Spool
from protocols.records import Account, Envelope, Reason, Status, Suppression
from tests.spool import harness as h
from tests.spool.harness import Harness

GONE = "gone@one.test"


async def bounce(spool: Spool, account: Account, address: str = GONE, **fields: Any) -> Envelope:
    """Have a mail to an address hard-bounced, or what `fields` say."""
    await h.accept(spool, account, h.message(address))
    [envelope] = await h.claim(spool, address.rpartition("@")[2])
    status = fields.pop("status", Status.HARD_BOUNCED)
    await spool.settle([h.result_of(spool, envelope, status, **fields)])
    return envelope


async def test_mail_to_a_suppressed_address_is_blocked_at_once(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        bounced = await bounce(spool, acme)
        [found] = await spool.suppressions(acme.account_id)
        assert found == Suppression(
            GONE,
            h.START_UNIX_MS,
            h.START_UNIX_MS + 90 * h.DAY_MS,
            "550 5.1.1 No",
            bounced.fixed.envelope_id,
        )
        heard: list[int] = []
        spool.add_listener(lambda notice: heard.extend(each.seq for each in notice.events))
        answer = await h.accept(spool, acme, h.message("here@one.test", GONE, "too@one.test"))
        assert [(each.status, each.due_unix_ms) for each in answer.envelopes] == [
            (Status.QUEUED, h.START_UNIX_MS),
            (Status.BLOCKED, 0),
            (Status.QUEUED, h.START_UNIX_MS),
        ]
        blocked = await h.state_of(spool, answer.envelopes[1].envelope_id)
        assert (blocked.state.reason, blocked.state.reply) == (Reason.SUPPRESSED, "550 5.1.1 No")
        assert (blocked.state.attempts, blocked.state.finished_unix_ms) == (0, h.START_UNIX_MS)
        [event] = await spool.events_at(blocked.state.event_seqs)
        assert (event.status, event.reason, event.attempt) == (
            Status.BLOCKED,
            Reason.SUPPRESSED,
            0,
        )
        assert event.seq in heard
        window = await h.claim(spool)
        assert [each.fixed.address for each in window] == ["here@one.test", "too@one.test"]
        [total] = await spool.statistics(Group.TOTAL)
        assert sum(total.counts) == 4
        assert await spool.check_invariants() == []


async def test_a_message_to_suppressed_addresses_only_leaves_nothing_to_do(
    harness: Harness,
) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        await bounce(spool, acme)
        answer = await h.accept(spool, acme, h.message(GONE), digest=b"d" * 16)
        [blocked] = answer.envelopes
        again = await h.accept(spool, acme, h.message(GONE), digest=b"d" * 16)
        assert (again.repeated, list(again.envelopes)) == (True, [blocked])
        assert await spool.next_wake_unix_ms() is None
        assert spool.spool_statistics().envelopes_open == 0
        content_id = (await h.state_of(spool, blocked.envelope_id)).fixed.content_id
        assert await spool.content([content_id]) == {}
        harness.clock.now += 40 * h.DAY_MS
        await h.sweep_all(spool)
        assert await h.all_envelopes(spool) == []
        assert await spool.check_invariants() == []


async def test_a_suppressed_recipient_takes_no_part_of_a_quota(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        await bounce(spool, acme)
        day = Quota(per_day=3)
        # The bounced one was attempted without a quota, but it was a mail of today.
        answer = await h.accept(spool, acme, h.message(GONE, "a@one.test", GONE), quota=day)
        assert [each.status for each in answer.envelopes] == [
            Status.BLOCKED,
            Status.QUEUED,
            Status.BLOCKED,
        ]
        answer = await h.accept(spool, acme, h.message(GONE, "b@one.test"), quota=day)
        assert [each.status for each in answer.envelopes] == [Status.BLOCKED, Status.QUEUED]
        answer = await h.accept(spool, acme, h.message(GONE, "c@one.test"), quota=day)
        assert [(each.status, each.due_unix_ms) for each in answer.envelopes] == [
            (Status.BLOCKED, 0),
            (Status.PAUSED, h.START_UNIX_MS - h.START_UNIX_MS % h.DAY_MS + h.DAY_MS),
        ]
        assert await spool.check_invariants() == []


async def test_other_accounts_and_other_addresses_are_not_concerned(harness: Harness) -> None:
    async with harness.open() as spool:
        acme, other = await h.make_account(spool), await h.make_account(spool, "other")
        await bounce(spool, acme)
        assert await spool.suppressions(other.account_id) == []
        for account, address in [
            (other, GONE),
            (acme, "Gone@one.test"),
            (acme, "gone@two.test"),
            (acme, "gone@one.test.test"),
        ]:
            answer = await h.accept(spool, account, h.message(address))
            assert [each.status for each in answer.envelopes] == [Status.QUEUED], address


@pytest.mark.parametrize(
    "fields",
    [
        {"status": Status.SOFT_BOUNCED, "reason": Reason.POLICY, "reply": "550 5.7.1 No"},
        {"status": Status.SOFT_BOUNCED, "reason": Reason.SPAM, "reply": "550 5.7.1 Spam"},
        {"status": Status.DEFERRED, "due_unix_ms": h.START_UNIX_MS + h.HOUR_MS},
        {"status": Status.DELIVERED},
    ],
)
async def test_nothing_but_a_hard_bounce_suppresses(
    harness: Harness, fields: dict[str, Any]
) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        await bounce(spool, acme, **fields)
        assert await spool.suppressions(acme.account_id) == []


async def test_a_domain_that_is_not_there_suppresses_too(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        [envelope_id] = await h.accept_many(spool, acme, 1)
        now_unix_ms = spool.now_unix_ms()
        reason = Reason.NO_SUCH_DOMAIN
        finish = Finish(envelope_id, Status.HARD_BOUNCED, now_unix_ms, reason, "550 5.1.2 no")
        await spool.settle([], [finish])
        [found] = await spool.suppressions(acme.account_id)
        assert (found.address, found.reply) == ("r0@one.test", "550 5.1.2 no")


async def test_it_ends_after_ninety_days_and_the_sweeper_forgets_it(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        await bounce(spool, acme)
        harness.clock.now += 90 * h.DAY_MS - 1
        await h.sweep_all(spool)
        assert [e.status for e in (await h.accept(spool, acme, h.message(GONE))).envelopes] == [
            Status.BLOCKED
        ]
    async with harness.open() as spool:
        harness.clock.now += 1
        assert await spool.suppression(acme.account_id, GONE) is None
        assert await spool.suppressions(acme.account_id) == []
        answer = await h.accept(spool, acme, h.message(GONE))
        assert [each.status for each in answer.envelopes] == [Status.QUEUED]
        await h.sweep_all(spool)
        assert not await spool.lift_suppression(acme.account_id, GONE)
        assert await spool.check_invariants() == []


async def test_it_is_put_there_and_lifted_by_hand(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        by_hand = Suppression("ann@one.test", h.START_UNIX_MS, 0, text="asked us to stop")
        await spool.suppress(acme.account_id, by_hand)
        harness.clock.now += 1000 * h.DAY_MS
        await h.sweep_all(spool)
        assert await spool.suppression(acme.account_id, "ann@one.test") == by_hand
        answer = await h.accept(spool, acme, h.message("ann@one.test"))
        assert [each.status for each in answer.envelopes] == [Status.BLOCKED]
        assert await spool.lift_suppression(acme.account_id, "ann@one.test")
        assert not await spool.lift_suppression(acme.account_id, "ann@one.test")
        answer = await h.accept(spool, acme, h.message("ann@one.test"))
        assert [each.status for each in answer.envelopes] == [Status.QUEUED]


async def test_a_bounce_does_not_shorten_what_a_person_has_put_there(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        await h.accept(spool, acme, h.message(GONE))
        by_hand = Suppression(GONE, h.START_UNIX_MS, 0, text="asked us to stop")
        await spool.suppress(acme.account_id, by_hand)
        [envelope] = await h.claim(spool)
        await spool.settle([h.result_of(spool, envelope, Status.HARD_BOUNCED)])
        assert await spool.suppressions(acme.account_id) == [by_hand]


async def test_they_are_listed_by_address_in_pages(harness: Harness) -> None:
    async with harness.open() as spool:
        acme, other = await h.make_account(spool), await h.make_account(spool, "other")
        names = sorted(f"{name}@one.test" for name in ("b", "ä", "a", "z", "aa", "日本"))
        for account in (acme, other):
            for name in reversed(names):
                await spool.suppress(account.account_id, Suppression(name, h.START_UNIX_MS, 0))
        listed: list[str] = []
        while page := await spool.suppressions(
            acme.account_id, after=listed[-1] if listed else "", limit=2
        ):
            listed += [each.address for each in page]
        assert listed == names


async def test_an_address_too_long_to_be_one_is_never_suppressed(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        long = "日" * 200 + "@one.test"
        await bounce(spool, acme, long)
        await bounce(spool, acme, GONE)
        assert [each.address for each in await spool.suppressions(acme.account_id)] == [GONE]
        answer = await h.accept(spool, acme, h.message(long))
        assert [each.status for each in answer.envelopes] == [Status.QUEUED]
