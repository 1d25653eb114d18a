"""Campaigns over HTTP: how far each is, what pauses one, and what ends it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engine.intake.campaign_views import ENGINE, CampaignView
from engine.spool.campaign_calls import NewCampaign
from engine.spool.hold_calls import Hold, MailFilter
from engine.spool.interface import CampaignEnded, Quota, Spool
from engine.spool.listing_calls import EnvelopeFilter
from engine.watch.campaigns import CampaignPage
from engine.watch.cancellations import MARK
from protocols.records import Account, Campaign, CampaignState, Status
from tests.spool import harness as h
from tests.spool.harness import ADAPTERS, Harness
from tests.watch.looking import Look, looking, make_account


async def make(spool: Spool, account: Account, name: str = "spring") -> Campaign:
    new = NewCampaign(account, name, b"template", name.encode(), "a@out.example", "Hello")
    return (await spool.create_campaign(new))[0]


async def take_in(
    spool: Spool, account: Account, campaign: Campaign, *addresses: str, **fields: Any
) -> None:
    part = h.message(
        *addresses, content=b"", campaign=campaign.name, campaign_id=campaign.campaign_id, lane=1
    )
    await h.accept(spool, account, part, **fields)


async def post(look: Look, path: str, who: Any = "acme", expect: int = 200, **more: Any) -> Any:
    response = await look.ask("POST", f"/v1/campaigns/{path}", who, **more)
    assert response.status_code == expect, response.text
    return response.json()


async def show(look: Look, name: str = "spring", who: Any = "acme") -> Any:
    return await look.json(f"/v1/campaigns/{name}", who)


async def until(look: Look, name: str, **wanted: Any) -> Any:
    with trio.fail_after(10):
        while True:
            shown = await show(look, name)
            if all(shown["counts"].get(key, shown.get(key)) == wanted[key] for key in wanted):
                return shown
            await trio.sleep(0.02)


async def no_holds_are_left(look: Look) -> None:
    with trio.fail_after(10):
        while True:
            if not look.spool.holds():
                return
            await trio.sleep(0.02)


async def test_one_is_shown_with_its_counts(look: Look) -> None:
    campaign = await make(look.spool, look.account)
    await look.spool.count_refused(campaign.account_id, campaign.campaign_id, 2)
    empty = await show(look)
    assert (empty["total"], empty["finished"], empty["last_accepted_at"]) == (0, 0.0, None)
    await take_in(
        look.spool,
        look.account,
        campaign,
        *(f"r{number}@one.test" for number in range(4)),
        quota=Quota(per_day=3),
    )
    await h.deliver(look.spool, (await h.claim(look.spool))[:1])
    shown = await show(look)
    view = msgspec.convert(shown, CampaignView)
    assert (view.campaign, view.account, view.state, view.subject) == (
        "spring",
        "acme",
        "open",
        "Hello",
    )
    assert (view.counts.delivered, view.counts.queued, view.counts.paused) == (1, 2, 1)
    assert (view.total, view.finished, view.accepted, view.refused) == (4, 0.25, 4, 2)
    assert (view.last_accepted_at or "") >= (view.created_at or "none")
    assert view.held_by is None


async def test_others_campaigns_are_not_there(look: Look) -> None:
    bolt = await make_account(look.spool, "bolt")
    await make(look.spool, bolt)
    assert (await look.get("/v1/campaigns/spring")).status_code == 404
    for deed in ("pause", "resume", "close", "cancel"):
        await post(look, f"spring/{deed}", expect=404)
        await post(look, f"spring/{deed}?account=bolt", expect=404)
    assert await look.json("/v1/campaigns") == {"campaigns": [], "after": None}
    assert (await look.get("/v1/campaigns?account=bolt")).status_code == 404
    assert (await look.get("/v1/campaigns?acount=bolt")).status_code == 400
    campaign = await look.spool.campaign(bolt.account_id, "spring")
    assert campaign is not None
    assert campaign.state is CampaignState.OPEN
    assert look.spool.holds() == []


async def test_an_operator_names_the_account_or_lists_all(look: Look) -> None:
    operator = look.operator()
    bolt = await make_account(look.spool, "bolt")
    await make(look.spool, bolt)
    await make(look.spool, look.account, "autumn")
    assert (await look.get("/v1/campaigns/spring", operator)).status_code == 400
    assert (await show(look, "spring?account=bolt", operator))["account"] == "bolt"
    listed = await look.json("/v1/campaigns", operator)
    assert [each["campaign"] for each in listed["campaigns"]] == ["autumn", "spring"]
    listed = await look.json("/v1/campaigns?account=bolt", operator)
    assert [each["campaign"] for each in listed["campaigns"]] == ["spring"]
    await make(look.spool, bolt, "autumn")
    named = await look.json("/v1/campaigns?campaign=autumn", operator)
    assert [each["account"] for each in named["campaigns"]] == ["acme", "bolt"]
    assert (await look.json("/v1/campaigns?campaign=winter", operator))["campaigns"] == []


async def test_pages_have_campaigns_newest_first_then_names_alone(look: Look) -> None:
    bolt = await make_account(look.spool, "bolt")
    for number in range(4):
        await make(look.spool, look.account, f"made {number}")
    await make(look.spool, bolt, "another")
    for name in ("beta", "alpha", "made 2", None):
        await h.accept(look.spool, look.account, h.message("a@one.test", campaign=name))
    await h.accept(look.spool, bolt, h.message("a@one.test", campaign="gamma"))
    whole = await look.json("/v1/campaigns")
    msgspec.convert(whole, CampaignPage)
    names = [each["campaign"] for each in whole["campaigns"]]
    assert names == ["made 3", "made 2", "made 1", "made 0", "alpha", "beta"]
    assert [each["state"] for each in whole["campaigns"]] == ["open"] * 4 + [None] * 2
    assert [each["total"] for each in whole["campaigns"]] == [0, 1, 0, 0, 1, 1]
    everybodys = await look.json("/v1/campaigns", look.operator())
    for who, expected in (("acme", whole), (look.operator(), everybodys)):
        paged: list[Any] = []
        after: str | None = ""
        while after is not None:
            part = await look.ask(
                "GET",
                "/v1/campaigns",
                who,
                params={"limit": 1, **({"after": after} if after else {})},
            )
            page = part.json()
            paged += page["campaigns"]
            after = page["after"]
        assert paged == expected["campaigns"]
    for nonsense in ("nonsense", "=x", "=1=", "=1=x", "=1=2=3"):
        answer = await look.ask("GET", "/v1/campaigns", params={"after": nonsense})
        assert answer.status_code == (200 if nonsense == "=1=" else 400), nonsense


async def test_of_many_names_only_those_that_are_shown_are_gone_through(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some senders give each mail a name of its own."""
    for number in range(40):
        part = h.message("a@one.test", campaign=f"single {number:02}")
        await h.accept(look.spool, look.account, part)
    given = list[int]()
    single_names = look.spool.single_names

    async def counted(account_id: int, **named: Any) -> Any:
        found = await single_names(account_id, **named)
        given.append(len(found.names))
        return found

    monkeypatch.setattr(look.spool, "single_names", counted)
    monkeypatch.setattr(look.spool, "statistics", None)
    names: list[str] = []
    page: dict[str, Any] = {"after": ""}
    while page["after"] is not None:
        params = {"limit": 15, **({"after": page["after"]} if page["after"] else {})}
        page = (await look.ask("GET", "/v1/campaigns", params=params)).json()
        names += [each["campaign"] for each in page["campaigns"]]
    assert names == [f"single {number:02}" for number in reversed(range(40))]
    assert given == [15, 15, 10]


async def test_a_cancellation_ends_although_a_record_is_lost(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what was put aside as damaged the log may know nothing: it is counted as open for ever."""
    campaign = await make(look.spool, look.account)
    await take_in(look.spool, look.account, campaign, "a@one.test", "b@one.test")
    counts_of = look.spool.campaign_counts

    async def with_one_lost(*arguments: Any) -> list[tuple[int, ...]]:
        return [(queued + 1, *rest) for queued, *rest in await counts_of(*arguments)]

    monkeypatch.setattr(look.spool, "campaign_counts", with_one_lost)
    assert (await post(look, "spring/cancel"))["counts"]["cancelled"] == 2
    await no_holds_are_left(look)


async def test_a_pause_is_a_hold_that_resume_lifts(look: Look) -> None:
    campaign = await make(look.spool, look.account)
    await take_in(look.spool, look.account, campaign, "a@one.test")
    await h.accept(look.spool, look.account, h.message("b@one.test"))
    paused = await post(look, "spring/pause", json={"reason": "a wrong link"})
    assert (paused["state"], paused["accepts_recipients"]) == ("paused", True)
    assert paused["held_by"]["reason"] == "a wrong link"
    assert paused["held_by"]["who"] == "acme"
    assert await post(look, "spring/pause") == paused
    assert len(look.spool.holds()) == 1
    [free] = await h.claim(look.spool)
    assert free.fixed.address == "b@one.test"
    [held] = await h.all_envelopes(look.spool, EnvelopeFilter(campaign="spring"))
    explained = await look.json(f"/v1/messages/{held.fixed.envelope_id}/explain")
    assert explained["held_by"]["code"] == "hold"
    assert (explained["held_by"]["scope"], explained["held_by"]["key"]) == ("campaign", "spring")
    resumed = await post(look, "spring/resume")
    assert (resumed["state"], resumed["held_by"]) == ("open", None)
    assert await post(look, "spring/resume") == resumed
    assert len(await h.claim(look.spool)) == 1


async def test_whoever_lifts_the_hold_resumes_the_campaign(look: Look) -> None:
    await make(look.spool, look.account)
    paused = await post(look, "spring/pause")
    hold_id = paused["held_by"]["hold_id"]
    assert (await look.ask("DELETE", f"/v1/holds/{hold_id}")).status_code == 200
    assert (await show(look))["state"] == "open"


async def test_what_an_operator_paused_operators_resume(look: Look) -> None:
    operator = look.operator()
    await make(look.spool, look.account)
    await post(look, "spring/pause?account=acme", operator)
    refused = await post(look, "spring/resume", expect=409)
    assert refused["error"]["code"] == "paused_by_operator"
    assert (await show(look))["held_by"]["who"] == "operator"
    resumed = await post(look, "spring/resume?account=acme", operator)
    assert resumed["state"] == "open"


async def test_a_closed_one_takes_nobody_and_its_mail_goes_on(look: Look) -> None:
    campaign = await make(look.spool, look.account)
    await take_in(look.spool, look.account, campaign, "a@one.test")
    closed = await post(look, "spring/close")
    assert (closed["state"], closed["accepts_recipients"]) == ("closed", False)
    assert closed["ended_at"] is not None
    assert await post(look, "spring/close") == closed
    with pytest.raises(CampaignEnded):
        await take_in(look.spool, look.account, campaign, "b@one.test")
    assert (await post(look, "spring/pause"))["state"] == "paused"
    assert (await post(look, "spring/resume"))["state"] == "closed"
    assert len(await h.claim(look.spool)) == 1


async def test_a_cancelled_one_has_nothing_open_and_no_way_back(look: Look) -> None:
    campaign = await make(look.spool, look.account)
    quota = Quota(per_day=3)
    people = [f"r{number}@one.test" for number in range(5)]
    await take_in(look.spool, look.account, campaign, *people, quota=quota)
    await h.accept(look.spool, look.account, h.message("other@two.test"))
    await h.deliver(look.spool, (await h.claim(look.spool, limit=1)))
    await post(look, "spring/pause")
    cancelled = await post(look, "spring/cancel")
    assert cancelled["state"] == "cancelled"
    assert (cancelled["counts"]["cancelled"], cancelled["counts"]["delivered"]) == (4, 1)
    assert cancelled["finished"] == 1.0
    assert await post(look, "spring/cancel") == cancelled
    with pytest.raises(CampaignEnded):
        await take_in(look.spool, look.account, campaign, "new@one.test")
    for deed in ("pause", "resume", "close"):
        refused = await post(look, f"spring/{deed}", expect=409)
        assert refused["error"]["code"] == "campaign_cancelled"
    assert [each.who for each in look.spool.holds()] == ["acme"], "the cancellation's own is gone"
    assert len(await h.claim(look.spool, "two.test")) == 1
    assert await look.spool.check_invariants() == []


async def test_what_is_with_a_server_is_cancelled_when_it_comes_back(look: Look) -> None:
    campaign = await make(look.spool, look.account)
    await take_in(look.spool, look.account, campaign, "a@one.test", "b@one.test")
    envelopes = await h.claim(look.spool)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(post, look, "spring/cancel")
        await until(look, "spring", state="cancelled")
        later = look.spool.now_unix_ms() + h.HOUR_MS
        back, good = envelopes
        await look.spool.settle(
            [
                h.result_of(look.spool, back, Status.DEFERRED, due_unix_ms=later),
                h.result_of(look.spool, good),
            ]
        )
    shown = await until(look, "spring", cancelled=1, delivered=1)
    assert shown["finished"] == 1.0
    await no_holds_are_left(look)


async def test_names_of_single_mails_can_be_paused_and_cancelled(look: Look) -> None:
    await h.accept(look.spool, look.account, h.message("a@one.test", campaign="receipts"))
    assert (await show(look, "receipts"))["state"] is None
    assert (await post(look, "receipts/pause"))["state"] == "paused"
    assert (await post(look, "receipts/resume"))["state"] is None
    assert (await post(look, "receipts/close", expect=409))["error"]["code"] == "no_template"
    assert (await post(look, "receipts/cancel"))["counts"]["cancelled"] == 1
    await h.accept(look.spool, look.account, h.message("b@one.test", campaign="receipts"))
    assert len(await h.claim(look.spool)) == 1


async def test_a_name_with_odd_characters_is_found_by_its_path(look: Look) -> None:
    name = "50% Früh/ling?"
    await make(look.spool, look.account, name)
    path = "50%25%20Fr%C3%BCh%2Fling%3F"
    assert (await show(look, path))["campaign"] == name
    assert (await post(look, f"{path}/pause"))["state"] == "paused"


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_restart_goes_on_with_a_cancellation(adapter: str, tmp_path: Path) -> None:
    harness = Harness(adapter, tmp_path)
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make(spool, account)
        await take_in(spool, account, campaign, "a@one.test", "b@two.test")
        # As a crash leaves it between the first step and the second.
        wanted = MailFilter(account_id=account.account_id, campaign="spring")
        await spool.put_hold(Hold(0, wanted, None, ENGINE, MARK, spool.now_unix_ms()))
    async with looking(harness) as look:
        operator = look.operator()
        await no_holds_are_left(look)
        shown = await show(look, f"spring?account={account.name}", operator)
    assert (shown["state"], shown["counts"]["cancelled"]) == ("cancelled", 2)
