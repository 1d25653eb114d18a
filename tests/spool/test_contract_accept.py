"""What `accept` promises: whole or not at all, once, and within the quota."""

from dataclasses import replace

import msgspec
import pytest
import trio

from engine.clock import Clock
from engine.spool.interface import (
    Accepted,
    AcceptRequest,
    ContentKind,
    EventFilter,
    Finish,
    Group,
    Quota,
    QuotaBeyondReach,
    Rest,
    Spool,
    SpoolError,
    WindowPosition,
)
from engine.spool.stamps import envelope_id_min
from protocols.records import DestinationRecord, Reason, Status, Suppression
from tests.spool import harness as h
from tests.spool.harness import Harness


async def test_what_was_accepted_is_there_to_the_last_field(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        part = h.message(
            "Ann@One.Test".lower(),
            "bob@two.test",
            content=b"Subject: x\r\n\r\n\xff.\r\n",
            subject="Grüße",
            campaign="spring",
            custom_id="c-1",
            event_payload="{}",
            lane=0,
            needs_8bit=True,
            needs_utf8=True,
        )
        answer = await h.accept(spool, account, part)
        assert [each.uuid for each in answer.envelopes] == [each.uuid for each in part.recipients]
        ids = [each.envelope_id for each in answer.envelopes]
        assert envelope_id_min(harness.clock.now) <= ids[0] < ids[1] < 2**53
    async with harness.open() as spool:
        first, second = [await h.state_of(spool, each) for each in ids]
        fixed = first.fixed
        assert (fixed.account_id, fixed.account) == (account.account_id, "acme")
        assert (fixed.campaign, fixed.custom_id, fixed.event_payload) == ("spring", "c-1", "{}")
        assert (fixed.reverse_path, fixed.subject) == ("sender@out.example", "Grüße")
        assert (fixed.lane, fixed.needs_8bit, fixed.needs_utf8) == (0, True, True)
        assert (fixed.address, fixed.destination) == ("ann@one.test", "one.test")
        assert (second.fixed.address, second.fixed.destination) == ("bob@two.test", "two.test")
        assert first.fixed.content_id == second.fixed.content_id
        assert fixed.content_size == len(part.content)
        assert first.state.status is Status.QUEUED
        assert first.state.due_unix_ms == fixed.accepted_unix_ms == harness.clock.now
        assert first.state.expires_unix_ms == harness.clock.now + harness.settings.max_age_ms
        content = (await spool.content([fixed.content_id]))[fixed.content_id]
        assert (content.kind, content.octets) == (ContentKind.OCTETS, part.content)


@pytest.mark.parametrize("size", [0, 1, 32_751, 32_752, 32_753, 65_504, 200_001])
async def test_a_content_of_any_size_comes_back_whole(harness: Harness, size: int) -> None:
    octets = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with harness.open() as spool:
        account = await h.make_account(spool)
        answer = await h.accept(
            spool, account, h.message("a@one.test", content=octets, kind=ContentKind.TEMPLATE)
        )
        envelope = await h.state_of(spool, answer.envelopes[0].envelope_id)
        content_id = envelope.fixed.content_id
        content = await spool.content([content_id, content_id + 1000])
        assert list(content) == [content_id]
        assert content[content_id].octets == octets
        assert content[content_id].kind is ContentKind.TEMPLATE


async def test_variables_and_subject_of_each_recipient_are_kept_apart(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        part = h.message("a@one.test", "b@one.test")
        people = [
            replace(each, variables=each.uuid, subject=subject)
            for each, subject in zip(part.recipients, ("Hello a", None), strict=True)
        ]
        part = replace(part, recipients=people, subject="Hello", kind=ContentKind.TEMPLATE)
        await h.accept(spool, account, part)
        claimed = await h.claim(spool)
        assert [each.fixed.variables for each in claimed] == [each.uuid for each in people]
        assert [each.fixed.subject for each in claimed] == ["Hello a", "Hello"]


async def test_a_repeat_gets_the_first_answer_again_for_as_long_as_it_lives(
    harness: Harness,
) -> None:
    digest = b"0123456789abcdef"
    async with harness.open() as spool:
        account = await h.make_account(spool)
        other = await h.make_account(spool, "other")
        first = await h.accept(spool, account, h.message("a@one.test"), digest=digest)
        assert not first.repeated
    async with harness.open() as spool:
        harness.clock.now += h.HOUR_MS
        again = await h.accept(spool, account, h.message("a@one.test"), digest=digest)
        assert again.repeated
        assert list(again.envelopes) == list(first.envelopes)
        # The digest of another body, and the same one of another account, are other requests.
        assert not (
            await h.accept(spool, account, h.message("a@one.test"), digest=b"x" * 16)
        ).repeated
        assert not (await h.accept(spool, other, h.message("a@one.test"), digest=digest)).repeated
        assert len(await h.all_envelopes(spool)) == 3
        harness.clock.now += h.DAY_MS
        late = await h.accept(spool, account, h.message("a@one.test"), digest=digest)
        assert not late.repeated
        assert await spool.check_invariants() == []


async def test_two_equal_requests_at_once_are_one(harness: Harness) -> None:
    digest = b"0123456789abcdef"
    answers: list[Accepted] = []
    async with harness.open() as spool:
        account = await h.make_account(spool)

        async def hand_in() -> None:
            answers.append(await h.accept(spool, account, h.message("a@one.test"), digest=digest))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(hand_in)
        assert sorted(each.repeated for each in answers) == [False] + [True] * 9
        assert len({each.envelopes[0].envelope_id for each in answers}) == 1
        assert len(await h.all_envelopes(spool)) == 1
        same = h.request_of(account, h.message("b@one.test"), digest=b"y" * 16)
        first, second = await spool.accept([same, same])
        assert isinstance(first, Accepted)
        assert isinstance(second, Accepted)
        assert second.repeated
        assert list(second.envelopes) == list(first.envelopes)


async def test_a_repeat_charges_no_quota(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        quota = Quota(per_day=2)
        for _ in range(5):
            await h.accept(
                spool, account, h.message("a@one.test"), quota=quota, digest=b"0123456789abcdef"
            )
        answer = await h.accept(spool, account, h.message("b@one.test"), quota=quota)
        assert answer.envelopes[0].status is Status.QUEUED


async def test_a_refused_request_leaves_nothing_and_spoils_no_other(harness: Harness) -> None:
    quota = Quota(per_day=1)
    addresses = [f"r{number}@one.test" for number in range(62)]
    digest = b"0123456789abcdef"
    async with harness.open() as spool:
        account = await h.make_account(spool)
        refused, fine = await spool.accept(
            [
                h.request_of(account, h.message(*addresses), quota=quota, digest=digest),
                h.request_of(account, h.message("b@two.test"), quota=quota),
            ]
        )
        assert isinstance(refused, QuotaBeyondReach)
        assert isinstance(fine, Accepted)
        assert fine.envelopes[0].status is Status.QUEUED
        assert len(await h.all_envelopes(spool)) == 1
        assert spool.head() == 1
        assert await spool.check_invariants() == []
        # And it may be asked again: a refusal is not remembered as an answer.
        smaller = h.request_of(account, h.message("c@two.test"), quota=quota, digest=digest)
        [answer] = await spool.accept([smaller])
        assert isinstance(answer, Accepted)
        assert not answer.repeated


async def test_quota_is_exact_under_a_thousand_requests_at_once(harness: Harness) -> None:
    quota = Quota(per_day=137)
    answers: list[Accepted] = []
    async with harness.open() as spool:
        account = await h.make_account(spool)

        async def hand_in(number: int) -> None:
            part = h.message(f"r{number}@one.test", content=b"x")
            answers.append(await h.accept(spool, account, part, quota=quota))

        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(hand_in, number)
        days: dict[int, int] = {}
        for answer in answers:
            [envelope] = answer.envelopes
            due = envelope.due_unix_ms if envelope.status is Status.PAUSED else 0
            days[due] = days.get(due, 0) + 1
        midnight = h.START_UNIX_MS - h.START_UNIX_MS % h.DAY_MS
        expected = {0: 137, **{midnight + day * h.DAY_MS: 137 for day in range(1, 7)}}
        assert days == {**expected, midnight + 7 * h.DAY_MS: 1000 - 7 * 137}
        [total] = await spool.statistics(Group.TOTAL)
        assert total.counts[:2] == (137, 863)
        assert await spool.check_invariants() == []


async def test_a_restart_and_a_clock_set_back_refill_no_quota(harness: Harness) -> None:
    quota = Quota(per_day=3)
    async with harness.open() as spool:
        account = await h.make_account(spool)
        for _ in range(3):
            await h.accept(spool, account, h.message("a@one.test"), quota=quota)
    harness.clock.now -= 2 * h.DAY_MS
    async with harness.open() as spool:
        answer = await h.accept(spool, account, h.message("a@one.test"), quota=quota)
        assert answer.envelopes[0].status is Status.PAUSED


async def test_a_request_across_the_limit_is_split_in_its_order(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        answer = await h.accept(
            spool,
            account,
            h.message("a@one.test", "b@two.test"),
            h.message("c@one.test", "d@one.test", "e@one.test"),
            quota=Quota(per_day=2),
        )
        statuses = [each.status for each in answer.envelopes]
        assert statuses == [Status.QUEUED] * 2 + [Status.PAUSED] * 3
        midnight = h.START_UNIX_MS - h.START_UNIX_MS % h.DAY_MS
        dues = [each.due_unix_ms for each in answer.envelopes]
        assert dues == [harness.clock.now] * 2 + [midnight + h.DAY_MS] * 2 + [
            midnight + 2 * h.DAY_MS
        ]
        paused = await h.state_of(spool, answer.envelopes[4].envelope_id)
        assert paused.state.reason is Reason.QUOTA
        assert paused.state.expires_unix_ms == dues[4] + harness.settings.max_age_ms


async def test_paused_mail_is_released_when_its_day_has_come(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 1900, quota=Quota(per_day=1200))
        assert await spool.release(spool.now_unix_ms()) == 0
        midnight = h.START_UNIX_MS - h.START_UNIX_MS % h.DAY_MS + h.DAY_MS
        harness.clock.now = midnight - 1
        assert await spool.release(spool.now_unix_ms()) == 0
        assert len(await h.claim(spool, limit=2000)) == 1200
        told: list[str] = []
        spool.add_listener(lambda notice: told.extend(notice.due_destinations))
        harness.clock.now = midnight + 7
        # Two commits, but one call.
        assert await spool.release(spool.now_unix_ms()) == 700
        assert set(told) == {"one.test"}
        envelope = await h.state_of(spool, ids[1200])
        assert envelope.state.status is Status.QUEUED
        assert envelope.state.reason is None
        assert envelope.state.expires_unix_ms == midnight + 7 + harness.settings.max_age_ms
        story = await spool.events_at(envelope.state.event_seqs)
        assert [(each.status, each.reason) for each in story] == [
            (Status.PAUSED, Reason.QUOTA),
            (Status.QUEUED, None),
        ]
        assert story[0].next_attempt_unix_ms == midnight
        assert len(await h.claim(spool)) == 700
        assert await spool.check_invariants() == []


async def test_a_cancelled_paused_mail_gives_its_place_back(harness: Harness) -> None:
    quota = Quota(per_day=1)
    async with harness.open() as spool:
        account = await h.make_account(spool)
        answer = await h.accept(spool, account, h.message("a@one.test", "b@one.test"), quota=quota)
        paused = answer.envelopes[1]
        cancel = Finish(paused.envelope_id, Status.CANCELLED, spool.now_unix_ms(), None)
        await spool.settle([], [cancel])
        again = await h.accept(spool, account, h.message("c@one.test"), quota=quota)
        assert again.envelopes[0].due_unix_ms == paused.due_unix_ms
        # It is given back once, however often it is cancelled.
        await spool.settle([], [cancel, cancel])
        third = await h.accept(spool, account, h.message("d@one.test"), quota=quota)
        assert third.envelopes[0].due_unix_ms == paused.due_unix_ms + h.DAY_MS
        assert await spool.check_invariants() == []


async def test_ids_and_due_times_never_step_back(harness: Harness) -> None:
    clock: Clock = harness.clock
    dues: list[int] = []
    ids: list[int] = []
    for shift_ms in (0, -2 * h.DAY_MS, 5, -h.HOUR_MS, 3 * h.DAY_MS):
        harness.clock.now += shift_ms
        async with harness.open() as spool:
            account = (await spool.accounts() or [await h.make_account(spool)])[0]
            ids += await h.accept_many(spool, account, 3)
            dues.append((await h.state_of(spool, ids[-1])).state.due_unix_ms)
            # And it is due at once, whatever the clock on the wall says.
            assert len(await h.claim(spool)) == len(ids)
    assert ids == sorted(ids)
    assert dues == sorted(dues)
    assert dues[-1] == clock.now_unix_ms()


async def test_new_mail_does_not_wake_a_destination_that_backs_off(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 1)
        until = spool.now_unix_ms() + h.HOUR_MS
        record = DestinationRecord(until, "destination_unreachable", spool.now_unix_ms(), 1)
        await spool.settle([], [Rest("one.test", record)])
        await h.accept_many(spool, account, 5)
        assert await spool.due_destinations(until - 1, 10) == []
        [row] = await spool.due_destinations(until, 10)
        assert (row.wake_unix_ms, row.cause) == (until, "destination_unreachable")
        assert await spool.check_invariants() == []


async def test_accounts_are_kept_and_names_are_taken_once(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool, "acme", "Europe/Berlin")
        other = await h.make_account(spool, "other")
        assert acme.account_id != other.account_id
        with pytest.raises(SpoolError, match="acme"):
            await h.make_account(spool, "acme")
        with pytest.raises(SpoolError, match="unknown time zone 'Mars/Olympus'"):
            await h.make_account(spool, "marvin", "Mars/Olympus")
    async with harness.open() as spool:
        assert [each.name for each in await spool.accounts()] == ["acme", "other"]
        found = await spool.api_key("key-acme")
        assert found is not None
        assert found[0].account_id == acme.account_id
        assert found[1] == acme
        assert await spool.api_key("key-nobody") is None
        assert spool.start_count == 2


async def test_stream_id_outlives_a_restart_and_start_count_grows(harness: Harness) -> None:
    seen = []
    for _ in range(3):
        async with harness.open() as spool:
            seen.append((spool.stream_id, spool.start_count))
            if not await spool.accounts():
                await h.make_account(spool)
            await h.accept_many(spool, (await spool.accounts())[0], 1)
            [last] = (await spool.events(spool.head() - 1, EventFilter(), 10)).events
            assert last.start_count == spool.start_count
    assert len({stream_id for stream_id, _ in seen}) == 1
    assert seen[0][0]
    assert [count for _, count in seen] == [1, 2, 3]


async def test_a_listener_hears_of_a_commit_once_and_after_it(harness: Harness) -> None:
    heard: list[tuple[list[int], list[str], int]] = []
    async with harness.open() as spool:
        account = await h.make_account(spool)
        spool.add_listener(
            lambda notice: heard.append(
                (
                    [each.seq for each in notice.events],
                    sorted(notice.due_destinations),
                    spool.head(),
                )
            )
        )
        await h.accept(spool, account, h.message("a@one.test", "b@two.test"))
        assert heard == [([1, 2], ["one.test", "two.test"], 2)]
        window = await spool.window("one.test", WindowPosition(), 9, spool.now_unix_ms())
        await h.deliver(spool, window.envelopes)
        assert heard[1] == ([3], [], 3)


async def test_new_mail_is_no_news_about_a_destination_that_backs_off(harness: Harness) -> None:
    heard: list[list[str]] = []
    async with harness.open() as spool:
        account = await h.make_account(spool)
        spool.add_listener(lambda notice: heard.append(sorted(notice.due_destinations)))
        until_unix_ms = spool.now_unix_ms() + 60_000
        dead = DestinationRecord(until_unix_ms, "destination_unreachable", failures=1)
        slow = DestinationRecord(until_unix_ms, "rate_limit")
        await spool.settle([], [Rest("one.test", dead), Rest("two.test", slow)])
        heard.clear()
        both = h.message("a@one.test", "b@two.test")
        await h.accept(spool, account, both)
        # In the commit after it, too, and not any more once its time is over.
        await h.accept(spool, account, both)
        harness.clock.now = until_unix_ms
        await h.accept(spool, account, both)
        assert heard == [["two.test"], ["two.test"], ["one.test", "two.test"]]
        # An operator wants it tried again: the back-off ends in the commit that moves the mail.
        longer = msgspec.structs.replace(dead, not_before_unix_ms=2**50)
        await spool.settle([], [Rest("one.test", longer)])
        heard.clear()
        await h.accept(spool, account, h.message("c@one.test"))
        await spool.settle([], [Rest("one.test", DestinationRecord())])
        await h.accept(spool, account, h.message("d@one.test"))
        assert [each for each in heard if each] == [["one.test"]]


async def test_an_empty_call_changes_nothing(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        assert await spool.accept([]) == []
        empty = await spool.accept([AcceptRequest(account, [])])
        assert isinstance(empty[0], Accepted)
        assert list(empty[0].envelopes) == []
        await spool.settle([])
        assert spool.head() == 0
        assert await spool.next_wake_unix_ms() is None


async def test_messages_that_are_taken_one_by_one_find_room_each_for_itself(
    harness: Harness,
) -> None:
    quota = Quota(per_day=1)  # today and on sixty days
    digest = b"0123456789abcdef"
    messages = [
        h.message(*(f"r{number}@d{size}.test" for number in range(size)))
        for size in (50, 6, 6, 11, 1)
    ]
    # What is one with another is taken with it, or refused with it.
    messages[2] = replace(messages[2], with_last=True)

    async def asked(spool: Spool, allowed: Quota) -> Accepted:
        request = h.request_of(account, *messages, quota=allowed, digest=digest)
        [answer] = await spool.accept([replace(request, one_by_one=True)])
        assert isinstance(answer, Accepted)
        return answer

    async with harness.open() as spool:
        account = await h.make_account(spool)
        listed = Suppression("r0@d1.test", h.START_UNIX_MS, 0, text="asked")
        await spool.suppress(account.account_id, listed)
        first = await asked(spool, quota)
        assert first.refused == tuple(range(50, 62))
        assert [each.status for each in first.envelopes] == [
            Status.QUEUED,
            *[Status.PAUSED] * 60,
            Status.BLOCKED,
        ]
        again = await asked(spool, quota)
        assert (again.envelopes, again.refused) == (first.envelopes, first.refused)
        assert len(await h.all_envelopes(spool)) == 62
        whole = await asked(spool, Quota())
        assert whole.refused == ()
        assert [*whole.envelopes[:50], *whole.envelopes[62:]] == first.envelopes
        assert {each.status for each in whole.envelopes[50:62]} == {Status.QUEUED}
        last = await asked(spool, Quota())
        assert (last.repeated, last.envelopes) == (True, whole.envelopes)
        assert len(await h.all_envelopes(spool)) == 74
        assert await spool.check_invariants() == []
