"""Agenda and windows: who is due, whose turn it is, and what a rest leaves behind."""

from collections import Counter

import trio

from engine.spool.interface import Rest, WindowPosition
from protocols.records import DestinationRecord, Reason, Status
from tests.spool import harness as h
from tests.spool.harness import Harness


async def test_the_agenda_names_each_destination_once_earliest_first(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        wakes = {}
        for at in ("b.test", "a.test", "c.test"):
            await h.accept_many(spool, account, 3, at=at)
            await h.accept_many(spool, account, 2, at=at, lane=0, campaign="x")
            wakes[at] = harness.clock.now
            harness.clock.now += 10
        rows = await spool.due_destinations(spool.now_unix_ms(), 10)
        assert {row.destination: row.wake_unix_ms for row in rows} == wakes
        assert [row.destination for row in rows] == ["b.test", "a.test", "c.test"]
        assert await spool.due_destinations(wakes["a.test"], 10) == rows[:2]
        assert await spool.due_destinations(spool.now_unix_ms(), 1) == rows[:1]
        assert await spool.next_wake_unix_ms() == wakes["b.test"]


async def test_a_row_goes_with_the_last_mail_of_its_destination(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 2)
        await h.accept_many(spool, account, 1, at="one.test.example")
        first, second = await h.claim(spool)
        await h.deliver(spool, [first])
        assert len(await spool.due_destinations(2**60, 10)) == 2
        await h.deliver(spool, [second])
        [row] = await spool.due_destinations(2**60, 10)
        assert row.destination == "one.test.example"
        await spool.settle([], [Rest("one.test", DestinationRecord(site="mx.test"))])
        assert len(await spool.due_destinations(2**60, 10)) == 1
        record = await spool.destination("one.test")
        assert record is not None
        assert record.site == "mx.test"


async def test_a_record_is_nobodys_but_the_spools(harness: Harness) -> None:
    """Actors write into the record that they were given, long before they hand it in."""
    async with harness.open() as spool:
        record = DestinationRecord(site="mx.test")
        await spool.settle([], [Rest("one.test", record)])
        record.site = "later"
        found = await spool.destination("one.test")
        assert found is not None
        assert found.site == "mx.test"
        found.site = "later"
        assert await spool.destination("one.test") == DestinationRecord(site="mx.test")


async def test_a_rest_writes_the_true_minimum(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 3)
        envelopes = await h.claim(spool)
        now = spool.now_unix_ms()
        await spool.settle(
            [
                h.result_of(spool, envelope, Status.DEFERRED, due_unix_ms=now + shift)
                for envelope, shift in zip(envelopes, (9000, 5000, 7000), strict=True)
            ]
        )
        # Too early is allowed until then: nobody has looked.
        assert (await spool.next_wake_unix_ms() or 0) <= now + 5000
        await spool.settle([], [Rest("one.test", DestinationRecord())])
        [row] = await spool.due_destinations(2**60, 10)
        assert (row.wake_unix_ms, row.cause) == (now + 5000, "")


async def test_a_back_off_is_one_write_and_holds_the_whole_destination(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 50)
        envelopes = await h.claim(spool)
        spool.give_back(each.fixed.envelope_id for each in envelopes)
        now = spool.now_unix_ms()
        record = DestinationRecord(
            now + 300_000,
            "destination_unreachable",
            now,
            1,
            "connection refused",
            Reason.CONNECTION,
            3.5,
            now,
            "mx.one.test",
            b"learned",
        )
        head = spool.head()
        await spool.settle([], [Rest("one.test", record)])
        assert spool.head() == head
    async with harness.open() as spool:
        assert await spool.destination("one.test") == record
        [row] = await spool.due_destinations(2**60, 10)
        assert (row.wake_unix_ms, row.cause) == (now + 300_000, "destination_unreachable")
        assert await spool.due_destinations(now + 299_999, 10) == []
        assert all(each.state.attempts == 0 for each in await h.all_envelopes(spool))
        [shown] = await spool.destinations()
        assert (shown.destination, shown.record) == ("one.test", record)
        assert shown.wake_unix_ms == now + 300_000
        # Reachable again: the next rest tells the truth about the mail.
        await spool.settle([], [Rest("one.test", DestinationRecord())])
        assert await spool.next_wake_unix_ms() == envelopes[0].state.due_unix_ms
        assert await spool.check_invariants() == []


async def test_a_window_says_what_comes_after_it(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 10)
        now = spool.now_unix_ms()
        first = await spool.window("one.test", WindowPosition(), 4, now)
        assert (len(first.envelopes), first.more, first.next_due_unix_ms) == (4, True, None)
        second = await spool.window("one.test", WindowPosition(), 6, now)
        assert (len(second.envelopes), second.more, second.next_due_unix_ms) == (6, False, None)
        deferrals = [
            h.result_of(spool, each, Status.DEFERRED, due_unix_ms=now + 1000 + index)
            for index, each in enumerate(second.envelopes)
        ]
        await spool.settle(deferrals)
        third = await spool.window("one.test", WindowPosition(), 4, now)
        assert (list(third.envelopes), third.more) == ([], False)
        assert third.next_due_unix_ms == now + 1000
        nothing = await spool.window("nobody.test", WindowPosition(), 4, now)
        assert (list(nothing.envelopes), nothing.more, nothing.next_due_unix_ms) == (
            [],
            False,
            None,
        )


async def test_windows_at_once_never_share_an_envelope(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 300)
        seen: Counter[int] = Counter()

        async def pull() -> None:
            window = await spool.window("one.test", WindowPosition(), 30, spool.now_unix_ms())
            seen.update(each.fixed.envelope_id for each in window.envelopes)

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(pull)
        assert len(seen) == 300
        assert set(seen.values()) == {1}
        assert spool.spool_statistics().in_flight == 300


async def test_what_is_given_back_comes_again_in_its_old_place(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 10)
        envelopes = await h.claim(spool)
        spool.give_back(each.fixed.envelope_id for each in envelopes[2:5])
        spool.give_back([999])
        again = await h.claim(spool)
        assert [each.fixed.envelope_id for each in again] == ids[2:5]


async def test_lanes_and_flows_keep_their_shares_in_the_queue(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        other = await h.make_account(spool, "other")
        await h.accept_many(spool, account, 600, campaign="huge", lane=1)
        await h.accept_many(spool, account, 40, campaign="small", lane=1)
        await h.accept_many(spool, other, 40, lane=1)
        await h.accept_many(spool, account, 80, lane=0)
        window = await spool.window("one.test", WindowPosition(), 80, spool.now_unix_ms())
        lanes = [each.fixed.lane for each in window.envelopes]
        assert lanes == [0, 0, 0, 0, 0, 0, 0, 1] * 10
        window = await spool.window("one.test", WindowPosition(), 130, spool.now_unix_ms())
        flows = Counter(
            (each.fixed.account, each.fixed.campaign)
            for each in window.envelopes
            if each.fixed.lane == 1
        )
        # Ten of lane 0 are left; the flows of lane 1 share the rest by turns of a quantum.
        assert flows["acme", "small"] == flows["other", None] == 32
        assert flows["acme", "huge"] == 130 - 10 - 64


async def test_destinations_with_like_names_are_kept_apart(harness: Harness) -> None:
    names = ("a.test", "a.test.b", "aa.test", "a", "a.tes", "a-b.test")
    async with harness.open() as spool:
        account = await h.make_account(spool)
        for at in names:
            await h.accept_many(spool, account, 2, at=at)
        for at in names:
            envelopes = await h.claim(spool, at)
            assert [each.fixed.destination for each in envelopes] == [at] * 2
            await h.deliver(spool, envelopes)
            assert await spool.check_invariants() == []


async def test_the_longest_possible_name_is_kept(harness: Harness) -> None:
    label = "x" * 63
    at = f"{label}.{label}.{label}.{'y' * 61}"
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 1, at=at, campaign="c" * 3000)
        [row] = await spool.due_destinations(spool.now_unix_ms(), 1)
        assert row.destination == at
        await h.deliver(spool, await h.claim(spool, at))
        assert await spool.check_invariants() == []
