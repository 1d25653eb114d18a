"""How much of a destination's mail is held, by which holds and until when, on every adapter."""

from engine.spool.hold_calls import NO_END_UNIX_MS, Hold, MailFilter
from engine.spool.interface import DestinationRow, Quota, Rest, Spool
from protocols.records import DestinationRecord, Status
from tests.spool import harness as h


async def suspend(spool: Spool, wanted: MailFilter, for_ms: int | None = None) -> Hold:
    now_unix_ms = spool.now_unix_ms()
    until = None if for_ms is None else now_unix_ms + for_ms
    return await spool.put_hold(Hold(0, wanted, until, "operator", "why", now_unix_ms))


def held_in(row: DestinationRow) -> tuple[int, dict[int, int]]:
    """How many in all, and how many by each hold."""
    if row.held is None:
        return 0, {}
    return row.held.mails, {part.hold.hold_id: part.mails for part in row.held.parts}


async def test_each_mail_counts_once_and_each_hold_has_its_own(harness: h.Harness) -> None:
    async with harness.open() as spool:
        acme, bolt = await h.make_account(spool), await h.make_account(spool, "bolt")
        await h.accept_many(spool, acme, 7)
        await h.accept_many(spool, acme, 5, campaign="spring")
        await h.accept_many(spool, acme, 1, campaign="autumn", at="two.test")
        await h.accept_many(spool, bolt, 3, campaign="spring")
        await h.accept_many(spool, bolt, 2)
        one, two = await spool.destinations()
        assert (one.held, two.held) == (None, None)
        everybodys = await suspend(spool, MailFilter(campaign="spring"))
        own = await suspend(spool, MailFilter(account_id=acme.account_id), h.HOUR_MS)
        other = await suspend(spool, MailFilter(campaign="no such"))
        one, two = await spool.destinations()
        assert held_in(one) == (15, {own.hold_id: 12, everybodys.hold_id: 8})
        assert held_in(two) == (1, {own.hold_id: 1})
        assert one.held is not None
        # The five are held by both, and the seven by the one that ends.
        assert one.held.until_unix_ms == own.until_unix_ms
        assert [part.account for part in one.held.parts] == ["acme", None]
        [mine, _] = await spool.destinations(account_id=acme.account_id)
        assert held_in(mine) == (12, {own.hold_id: 12, everybodys.hold_id: 5})
        [theirs] = await spool.destinations(account_id=bolt.account_id)
        assert held_in(theirs) == (3, {everybodys.hold_id: 3})
        assert theirs.held is not None
        assert theirs.held.until_unix_ms == NO_END_UNIX_MS
        [of_spring] = await spool.destinations(campaign="spring")
        assert held_in(of_spring) == (8, {everybodys.hold_id: 8, own.hold_id: 5})
        await spool.lift_holds([everybodys.hold_id, other.hold_id])
        one, _ = await spool.destinations()
        assert held_in(one) == (12, {own.hold_id: 12})
        harness.clock.now += h.HOUR_MS
        one, two = await spool.destinations()
        assert (one.held, two.held) == (None, None)


async def test_a_place_is_held_as_a_whole_and_only_there(harness: h.Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        await h.accept_many(spool, acme, 2, campaign="spring")
        await h.accept_many(spool, acme, 4, at="two.test")
        await spool.settle([], [Rest("two.test", DestinationRecord(site="mx.two.test"))])
        here = await suspend(spool, MailFilter(destination="one.test"))
        there = await suspend(spool, MailFilter(site="mx.two.test"), h.HOUR_MS)
        both = await suspend(spool, MailFilter(destination="one.test", campaign="spring"))
        one, two = await spool.destinations()
        assert held_in(one) == (2, {here.hold_id: 2, both.hold_id: 2})
        assert held_in(two) == (4, {there.hold_id: 4})
        [of_spring] = await spool.destinations(campaign="spring")
        assert held_in(of_spring) == held_in(one)


async def test_only_what_waits_is_held(harness: h.Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        hold = await suspend(spool, MailFilter(account_id=acme.account_id))
        await h.accept_many(spool, acme, 6, campaign="spring", quota=Quota(per_day=4))
        await spool.lift_holds([hold.hold_id])
        done, later, *_ = await h.claim(spool)
        due = spool.now_unix_ms() + h.HOUR_MS
        deferred = h.result_of(spool, later, Status.DEFERRED, due_unix_ms=due)
        await spool.settle([h.result_of(spool, done), deferred])
        hold = await suspend(spool, MailFilter(campaign="spring"))
        [row] = await spool.destinations()
        assert held_in(row) == (5, {hold.hold_id: 5})
        # Of single mails it cannot be read off the counters.
        await spool.lift_holds([hold.hold_id])
        await suspend(spool, MailFilter(reply="later"))
        [row] = await spool.destinations()
        assert row.held is None
