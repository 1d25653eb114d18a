"""Holds: judged when mail is pulled, on every adapter, and never in the way of other mail."""

from functools import partial

import msgspec
import pytest

from engine.spool import lmdb_holds
from engine.spool.hold_calls import NO_END_UNIX_MS, Hold, MailFilter
from engine.spool.holds import (
    HOLDS_FOR_ACCOUNTS,
    HOLDS_MAX,
    HOLDS_OF_ACCOUNT_MAX,
    recorded_waits,
)
from engine.spool.interface import (
    CommitNotice,
    Rest,
    RetryAt,
    Spool,
    SpoolError,
    WindowPosition,
)
from engine.spool.lmdb_spool import LmdbSpool
from engine.spool.lmdb_writer import Turn
from protocols.records import DestinationRecord, FlowWait, Status, pack_record, unpack_record
from tests.spool import harness as h


async def suspend(
    spool: Spool, wanted: MailFilter, *, for_ms: int | None = None, owner_id: int = 0
) -> Hold:
    now_unix_ms = spool.now_unix_ms()
    until = None if for_ms is None else now_unix_ms + for_ms
    return await spool.put_hold(Hold(0, wanted, until, "operator", "why", now_unix_ms, owner_id))


async def pulled(spool: Spool, destination: str = "one.test") -> list[int]:
    """What a window has; given back at once."""
    found = [each.fixed.envelope_id for each in await h.claim(spool, destination)]
    spool.give_back(found)
    return found


async def rest(spool: Spool, destination: str = "one.test", site: str = "") -> tuple[int, str]:
    """Let an actor rest; return its agenda row."""
    await spool.settle([], [Rest(destination, DestinationRecord(site=site))])
    rows = await spool.due_destinations(NO_END_UNIX_MS, 100)
    [row] = [each for each in rows if each.destination == destination]
    return row.wake_unix_ms, row.cause


async def test_each_filter_holds_its_own_and_nothing_else(harness: h.Harness) -> None:
    async with harness.open() as spool:
        acme, bolt = await h.make_account(spool), await h.make_account(spool, "bolt")
        [plain] = await h.accept_many(spool, acme, 1)
        [spring] = await h.accept_many(spool, acme, 1, campaign="spring")
        [other] = await h.accept_many(spool, bolt, 1)
        everything = {plain, spring, other}
        held_by = {
            MailFilter(account_id=bolt.account_id): {other},
            MailFilter(campaign="spring"): {spring},
            MailFilter(account_id=acme.account_id, campaign="spring"): {spring},
            MailFilter(account_id=bolt.account_id, campaign="spring"): set(),
            MailFilter(destination="one.test"): everything,
            MailFilter(destination="two.test"): set(),
            MailFilter(site="mx.one.test"): everything,
            MailFilter(site="mx.two.test"): set(),
            MailFilter(reply="never heard"): set(),
            MailFilter(older_ms=h.HOUR_MS): set(),
            MailFilter(older_ms=0): everything,
            MailFilter(address="r0@one.test"): everything,
            MailFilter(address="R0@one.test"): set(),
            MailFilter(address="r0@one.test", campaign="spring"): {spring},
        }
        await spool.settle([], [Rest("one.test", DestinationRecord(site="mx.one.test"))])
        for wanted, held in held_by.items():
            hold = await suspend(spool, wanted)
            assert set(await pulled(spool)) == everything - held, wanted
            for each in everything:
                found = spool.hold_of(await h.state_of(spool, each), "mx.one.test")
                assert (found == hold) is (each in held), wanted
            await spool.lift_holds([hold.hold_id])
            assert set(await pulled(spool)) == everything
        assert spool.holds() == []


async def test_a_flow_that_waits_is_passed_over_and_wakes_its_destination(
    harness: h.Harness,
) -> None:
    async with harness.open() as spool:
        acme, bolt = await h.make_account(spool), await h.make_account(spool, "bolt")
        [plain] = await h.accept_many(spool, acme, 1)
        [spring] = await h.accept_many(spool, acme, 1, campaign="spring")
        [other] = await h.accept_many(spool, bolt, 1)
        now = spool.now_unix_ms()
        until = now + h.HOUR_MS
        of_acme = FlowWait(acme.account_id, "acme", None, until)
        of_spring = FlowWait(acme.account_id, "acme", "spring", until + 1)
        of_bolt = FlowWait(bolt.account_id, "bolt", None, until + 2)
        passed = {(): {plain, spring, other}, (of_acme,): {other}, (of_spring,): {plain, other}}
        for waits, going in passed.items():
            position = WindowPosition(waits=recorded_waits(waits, now))
            window = await spool.window("one.test", position, 10, now)
            found = {each.fixed.envelope_id for each in window.envelopes}
            spool.give_back(found)
            assert found == going
            assert window.next_due_unix_ms == (waits[0].until_unix_ms if waits else None)
        ahead = await spool.ahead(
            await h.state_of(spool, other), WindowPosition(waits=recorded_waits([of_acme], now)), 10
        )
        assert ahead.count == 0
        # At rest the earliest of them counts, and who has no wait is due at once.
        everybody = (of_acme, of_bolt)
        await spool.settle([], [Rest("one.test", DestinationRecord(waits=everybody))])
        [row] = await spool.due_destinations(NO_END_UNIX_MS, 10)
        assert (row.wake_unix_ms, row.cause) == (until, "rate_limit")
        assert await spool.check_invariants() == []
        await h.accept_many(spool, bolt, 1)
        assert (await spool.next_wake_unix_ms() or 0) <= spool.now_unix_ms()
        await spool.settle([], [Rest("one.test", DestinationRecord(waits=(of_acme,)))])
        assert (await spool.next_wake_unix_ms() or 0) <= spool.now_unix_ms()
        assert await spool.check_invariants() == []
        harness.clock.now = until
        await spool.settle([], [Rest("one.test", DestinationRecord(waits=everybody))])
        assert (await spool.next_wake_unix_ms() or 0) <= until


async def test_a_reply_is_held_in_any_case_and_an_age_comes_with_time(harness: h.Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        deferred, fresh = await h.accept_many(spool, account, 2)
        envelopes = {each.fixed.envelope_id: each for each in await h.claim(spool)}
        result = h.result_of(
            spool, envelopes[deferred], Status.DEFERRED, due_unix_ms=spool.now_unix_ms()
        )
        await spool.settle([result])
        spool.give_back([fresh])
        assert set(await pulled(spool)) == {deferred, fresh}
        hold = await suspend(spool, MailFilter(reply="4.7.1 LATER"))
        assert await pulled(spool) == [fresh]
        await spool.lift_holds([hold.hold_id])
        await suspend(spool, MailFilter(older_ms=h.HOUR_MS))
        assert set(await pulled(spool)) == {deferred, fresh}
        harness.clock.now += h.HOUR_MS
        assert await pulled(spool) == []


async def test_a_hold_outlives_a_restart_and_ends_by_itself(harness: h.Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 3)
        hold = await suspend(spool, MailFilter(destination="one.test"), for_ms=h.HOUR_MS)
        assert await rest(spool) == (hold.until_unix_ms, "hold")
    async with harness.open() as spool:
        assert spool.holds() == [hold]
        assert spool.next_hold_end_unix_ms() == hold.until_unix_ms
        assert await pulled(spool) == []
        assert await spool.check_invariants() == []
        harness.clock.now += h.HOUR_MS
        assert spool.holds() == []
        assert sorted(await pulled(spool)) == ids
        await h.sweep_all(spool)
        assert await spool.check_invariants() == []
        later = await suspend(spool, MailFilter(destination="two.test"))
        assert later.hold_id > hold.hold_id


async def test_lifting_wakes_what_was_held_and_only_that(harness: h.Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        held = await h.accept_many(spool, account, 2, at="one.test", campaign="spring")
        await h.accept_many(spool, account, 1, at="two.test")
        hold = await suspend(spool, MailFilter(destination="one.test"))
        assert await rest(spool) == (NO_END_UNIX_MS, "hold")
        two = await rest(spool, "two.test")
        told: list[CommitNotice] = []
        spool.add_listener(told.append)
        # New mail for what is held wakes nobody.
        held += await h.accept_many(spool, account, 1, at="one.test")
        assert not any("one.test" in each.due_destinations for each in told)
        await spool.lift_holds([hold.hold_id, 999])
        assert any("one.test" in each.due_destinations for each in told)
        assert not any("two.test" in each.due_destinations for each in told)
        assert not any(each.holds_changed for each in told)
        await suspend(spool, MailFilter(destination="two.test"))
        assert told[-1].holds_changed
        [one, *_] = await spool.due_destinations(spool.now_unix_ms(), 10)
        assert (one.destination, one.cause) == ("one.test", "")
        assert two != await rest(spool, "two.test")
        assert sorted(await pulled(spool)) == held
        assert await spool.check_invariants() == []


async def test_of_two_holds_the_last_to_end_counts(harness: h.Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 1)
        short = await suspend(spool, MailFilter(destination="one.test"), for_ms=h.HOUR_MS)
        long = await suspend(spool, MailFilter(account_id=1), for_ms=h.DAY_MS)
        assert await rest(spool) == (long.until_unix_ms, "hold")
        assert spool.hold_of_destination("one.test", "") == short
        await spool.lift_holds([long.hold_id])
        assert await rest(spool) == (short.until_unix_ms, "hold")


async def test_an_unheld_flow_goes_on_and_the_held_one_does_not_wake_it(
    harness: h.Harness,
) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 5, campaign="spring")
        hold = await suspend(spool, MailFilter(campaign="spring"), for_ms=h.HOUR_MS)
        [free] = await h.accept_many(spool, account, 1)
        due_unix_ms = spool.now_unix_ms() + 60 * h.SECOND_MS
        await spool.settle([], [RetryAt(free, due_unix_ms)])
        now_unix_ms = spool.now_unix_ms()
        window = await spool.window("one.test", WindowPosition(), 10, now_unix_ms)
        assert (list(window.envelopes), window.more) == ([], False)
        assert window.next_due_unix_ms == due_unix_ms
        assert await rest(spool) == (due_unix_ms, "")
        await spool.settle([], [RetryAt(free, spool.now_unix_ms() + h.DAY_MS)])
        window = await spool.window("one.test", WindowPosition(), 10, now_unix_ms)
        assert window.next_due_unix_ms == hold.until_unix_ms
        assert await rest(spool) == (hold.until_unix_ms, "hold")


async def test_held_mail_expires_like_any_other(harness: h.Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        [held] = await h.accept_many(spool, account, 1)
        await suspend(spool, MailFilter(destination="one.test"))
        await rest(spool)
        harness.clock.now += 4 * h.DAY_MS
        await h.sweep_all(spool)
        assert (await h.state_of(spool, held)).state.status is Status.SOFT_BOUNCED
        assert await spool.check_invariants() == []


@pytest.mark.slow
async def test_windows_look_into_a_bounded_number_of_held_mails(harness: h.Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        for _ in range(5):
            await h.accept_many(spool, account, 500)
        harness.clock.now += h.HOUR_MS
        fresh = await h.accept_many(spool, account, 3)
        await suspend(spool, MailFilter(older_ms=h.HOUR_MS))
        position, found, windows = WindowPosition(), [], 0
        more = True
        while more:
            window = await spool.window("one.test", position, 10, spool.now_unix_ms())
            found += [each.fixed.envelope_id for each in window.envelopes]
            more, windows = window.more, windows + 1
        assert found == fresh
        assert windows == 3
        # What is given back behind others that are held is seen again by who says so.
        spool.give_back(found[:1])
        position.look_again()
        again: list[int] = []
        for _ in range(windows):
            window = await spool.window("one.test", position, 10, spool.now_unix_ms())
            again += [each.fixed.envelope_id for each in window.envelopes]
        assert again == found[:1]
        assert await spool.check_invariants() == []


async def test_a_retry_leaves_what_is_in_flight_alone_if_asked(harness: h.Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 2)
        [claimed] = await h.claim(spool, limit=1)
        claimed_id = claimed.fixed.envelope_id
        assert spool.in_flight(ids) == {claimed_id}
        later_unix_ms = spool.now_unix_ms() + h.HOUR_MS
        await spool.settle([], [RetryAt(each, later_unix_ms, True) for each in ids])
        assert spool.in_flight(ids) == {claimed_id}
        assert await pulled(spool) == []
        for each in ids:
            moved = (await h.state_of(spool, each)).state.due_unix_ms == later_unix_ms
            assert moved is (each != claimed_id)


async def test_there_is_an_end_to_how_many_holds_there_may_be(harness: h.Harness) -> None:
    async with harness.open() as spool:
        for _ in range(HOLDS_MAX):
            await suspend(spool, MailFilter(destination="one.test"))
        with pytest.raises(SpoolError, match="holds already"):
            await suspend(spool, MailFilter(destination="one.test"))
        await spool.lift_holds([each.hold_id for each in spool.holds()[:1]])
        await suspend(spool, MailFilter(destination="one.test"))


async def test_an_account_leaves_room_for_the_holds_of_others(harness: h.Harness) -> None:
    wanted = MailFilter(destination="one.test")
    async with harness.open() as spool:
        for owner_id in range(1, 6):
            for _ in range(HOLDS_OF_ACCOUNT_MAX):
                if len(spool.holds()) < HOLDS_FOR_ACCOUNTS:
                    await suspend(spool, wanted, owner_id=owner_id)
            with pytest.raises(SpoolError, match="holds already"):
                await suspend(spool, wanted, owner_id=owner_id)
        assert len(spool.holds()) == HOLDS_FOR_ACCOUNTS
        # One that is lifted makes room for its owner, and operators have some left in any case.
        await suspend(spool, wanted)
        await spool.lift_holds([each.hold_id for each in spool.holds()[:2]])
        await suspend(spool, wanted, owner_id=1)


async def test_a_crash_in_the_middle_of_a_lift_loses_no_mail(harness: h.Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 2)
        hold = await suspend(spool, MailFilter(destination="one.test"))
        await rest(spool)
        if harness.adapter == "lmdb":
            assert isinstance(spool, LmdbSpool)
            # Its first step is durable, the others never come.
            await spool.writer.do(
                Turn.HOUSEKEEPING, partial(lmdb_holds.mark_lifted, hold_ids=[hold.hold_id])
            )
        else:
            await spool.lift_holds([hold.hold_id])
    async with harness.open() as spool:
        assert spool.holds() == []
        await h.sweep_all(spool)
        [row] = await spool.due_destinations(spool.now_unix_ms(), 10)
        assert row.destination == "one.test"
        assert await pulled(spool) == ids
        assert await spool.check_invariants() == []


def test_a_kept_record_stays_readable() -> None:
    kept = bytes.fromhex(
        "0198079601a6737072696e67a86f6e652e74657374ab6d782e6f6e652e74657374a5342e372e31ce0036ee80"
        "cf000001a20d1af440a461636d65a8626164206c696e6bcf000001a20ce405c001c2d2972fc8"
    )
    with_address = bytes.fromhex(
        "0198079701a6737072696e67a86f6e652e74657374ab6d782e6f6e652e74657374a5342e372e31ce0036ee80"
        "ac616e6e406f6e652e74657374cf000001a20d1af440a461636d65a8626164206c696e6bcf000001a20ce405"
        "c001c28f64d06d"
    )
    wanted = MailFilter(1, "spring", "one.test", "mx.one.test", "4.7.1", h.HOUR_MS)
    hold = Hold(7, wanted, 1_795_516_200_000, "acme", "bad link", 1_795_512_600_000, owner_id=1)
    assert unpack_record(kept, Hold) == hold
    of_one = msgspec.structs.replace(wanted, address="ann@one.test")
    assert pack_record(msgspec.structs.replace(hold, wanted=of_one)) == with_address
