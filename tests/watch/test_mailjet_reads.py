"""`/v3/REST` as Mailjet's own client reads it."""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import trio
from mailjet_rest import Client
from mailjet_rest.client import DoesNotExistError

from engine.spool.interface import Finish, Quota
from protocols.records import Reason, Status, parts_number
from tests.spool.harness import accept, accept_many, claim, deliver, message, result_of
from tests.watch.looking import API_KEY, SECRET, Look, make_account

T = TypeVar("T")

# As recorded from the real service; StateID is there only for a failure.
ROW_FIELDS = {
    *("ArrivedAt", "AttachmentCount", "AttemptCount", "CampaignID", "ContactAlt", "ContactID"),
    *("Delay", "DestinationID", "FilterTime", "ID", "IsClickTracked", "IsHTMLPartIncluded"),
    *("IsOpenTracked", "IsTextPartIncluded", "IsUnsubTracked", "MessageSize", "SenderID"),
    *("SpamassassinScore", "SpamassRules", "StatePermanent", "Status", "Subject", "UUID"),
}


async def with_client(look: Look, use: Callable[[Any], T]) -> T:
    """Run `use` with the client that people have, in a thread."""

    def run() -> T:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            base = f"http://127.0.0.1:{look.port}/"
            with Client(auth=(API_KEY, SECRET), version="v3", api_url=base) as client:
                return use(client)

    return await trio.to_thread.run_sync(run)


async def rows(look: Look, query: str) -> list[dict[str, Any]]:
    listing = await look.json(f"/v3/REST/message{query}")
    assert listing["Count"] == len(listing["Data"])
    return list(listing["Data"])


async def test_a_message_and_its_history(look: Look) -> None:
    [message_id] = await accept_many(look.spool, look.account, 1, custom_id="c1", subject="Hi")
    [envelope] = await claim(look.spool)
    due = look.clock.now + 1
    await look.spool.settle([result_of(look.spool, envelope, Status.DEFERRED, due_unix_ms=due)])
    look.clock.now = due
    await deliver(look.spool, await claim(look.spool))

    listing = await with_client(look, lambda client: client.message.get(id=message_id).json())
    assert (listing["Count"], listing["Total"]) == (1, 1)
    [row] = listing["Data"]
    assert set(row) == ROW_FIELDS
    assert (row["ID"], row["Status"], row["AttemptCount"]) == (message_id, "sent", 2)
    assert row["ArrivedAt"] == "2026-11-24T09:30:00Z"
    assert (row["ContactAlt"], row["Subject"]) == ("", "")
    history = await with_client(
        look, lambda client: client.messagehistory.get(id=message_id).json()
    )
    assert [each["EventType"] for each in history["Data"]] == ["deferred", "sent"]
    deferred, sent = history["Data"]
    assert set(sent) == {"Comment", "EventAt", "EventType", "State", "Useragent", "UseragentID"}
    assert deferred["Comment"] == "451 4.7.1 Later"
    assert deferred["State"] == "greylisted"
    assert sent["State"] == ""
    assert sent["EventAt"] == look.clock.now // 1000


async def test_a_row_says_what_the_mail_is_made_of(look: Look) -> None:
    for number, parts in enumerate(
        (
            parts_number(has_text=True, has_html=False, attachments=0),
            parts_number(has_text=True, has_html=True, attachments=3),
            0,
        )
    ):
        await accept(look.spool, look.account, message(f"p{number}@in.example", parts=parts))
    assert [
        (each["IsTextPartIncluded"], each["IsHTMLPartIncluded"], each["AttachmentCount"])
        for each in await rows(look, "?Sort=ID+ASC")
    ] == [(True, False, 0), (True, True, 3), (False, False, 0)]


async def test_what_does_not_exist(look: Look) -> None:
    other = await make_account(look.spool, "other")
    [theirs] = await accept_many(look.spool, other, 1)
    for message_id in (999_999, theirs):

        def ask(client: Any, message_id: int = message_id) -> Any:
            with pytest.raises(DoesNotExistError, match="Object not found"):
                client.message.get(id=message_id)
            return client.messagehistory.get(id=message_id).json()

        assert await with_client(look, ask) == {"Count": 0, "Data": [], "Total": 0}
    response = await look.get("/v3/REST/message/999999")
    assert response.status_code == 404
    assert response.json() == {
        "ErrorInfo": "",
        "ErrorMessage": "Object not found",
        "StatusCode": 404,
    }


async def test_wrong_keys_get_an_empty_page(look: Look) -> None:
    response = await look.get("/v3/REST/message", ("key-acme", "wrong"))
    assert response.status_code == 401
    assert response.content == b""
    assert response.headers["Content-Type"] == "text/html"
    challenge = response.headers["WWW-Authenticate"]
    assert challenge.startswith('Basic realm="Provide an apiKey and secretKey"')


async def test_every_status_has_its_word(look: Look) -> None:
    """Paused is queued, cancelled is blocked, and what was delivered is called sent."""
    await accept_many(look.spool, look.account, 8, quota=Quota(per_day=7))
    first, second, third, fourth, fifth, sixth, _ = await claim(look.spool)
    spool, now = look.spool, look.clock.now
    await spool.settle(
        [
            result_of(spool, first, Status.DELIVERED),
            result_of(spool, second, Status.SOFT_BOUNCED, reason=Reason.MAILBOX_FULL),
            result_of(spool, third, Status.HARD_BOUNCED),
            result_of(spool, fourth, Status.DEFERRED, due_unix_ms=now + 1000),
        ],
        [Finish(fifth.fixed.envelope_id, Status.BLOCKED, now, Reason.SUPPRESSED)],
    )
    spool.give_back([sixth.fixed.envelope_id])
    await spool.settle([], [Finish(sixth.fixed.envelope_id, Status.CANCELLED, now, None)])
    found = {row["ID"]: row for row in await rows(look, "")}
    assert [found[key]["Status"] for key in sorted(found)] == [
        *("sent", "softbounced", "hardbounced", "deferred"),
        *("blocked", "blocked", "queued", "queued"),
    ]
    states = [found[key].get("StateID") for key in sorted(found)]
    assert states[:6] == [None, 3, 1, 13, 14, None]
    permanent = [found[key]["StatePermanent"] for key in sorted(found)]
    assert permanent == [False, False, True, *[False] * 5]
    for number, count in [(0, 8), (1, 2), (2, 1), (3, 0), (5, 2), (8, 2), (9, 1), (10, 1), (11, 1)]:
        assert len(await rows(look, f"?MessageStatus={number}")) == count
    assert len(await rows(look, "?messagestatus=softbounced")) == 1
    # Of no meaning, and longer than any number that Python reads.
    assert len(await rows(look, f"?MessageStatus={'1' * 5000}")) == len(await rows(look, ""))


async def test_names_match_in_any_case_and_strangers_are_ignored(look: Look) -> None:
    await accept_many(look.spool, look.account, 3)
    for path in ("/v3/rest/Message?LIMIT=2", "/v3/REST/message?limit=2&NoSuch=1"):
        assert (await look.json(path))["Count"] == 2


async def test_optional_columns(look: Look) -> None:
    await accept_many(look.spool, look.account, 1, custom_id="c1", subject="Hi")
    [row] = await rows(look, "?ShowSubject=true&ShowContactAlt=1&ShowCustomID=true")
    assert (row["Subject"], row["ContactAlt"], row["CustomID"]) == ("Hi", "r0@one.test", "c1")


async def test_filters_and_pages(look: Look) -> None:
    ids = await accept_many(look.spool, look.account, 25)
    await accept(look.spool, look.account, message("x@two.test", custom_id="c1"))
    found = await with_client(
        look, lambda client: client.message.get(filters={"CustomID": "c1"}).json()
    )
    assert found["Count"] == 1
    assert len(await rows(look, "")) == 10
    assert len(await rows(look, "?Limit=0")) == 26
    ascending = await rows(look, "?Sort=ID%20ASC&Limit=5&Offset=3")
    assert [row["ID"] for row in ascending] == ids[3:8]
    descending = await rows(look, "?Sort=ArrivedAt+DESC&Limit=5&Offset=1")
    assert [row["ID"] for row in descending] == ids[:-6:-1]
    assert await rows(look, "?Offset=26") == []
    assert await rows(look, "?ToTS=1000000000") == []
    assert len(await rows(look, "?FromTS=2026-11-24T09:30:00Z&Limit=100")) == 26
    streamed = await with_client(
        look, lambda client: [row["ID"] for row in client.message.stream(chunk_size=10)]
    )
    assert sorted(set(streamed))[:25] == ids
    assert len(streamed) == 26


async def test_totals_are_counted_only_when_asked_for(look: Look) -> None:
    await accept_many(look.spool, look.account, 4)
    plain = await look.json("/v3/REST/message?Limit=1")
    assert (plain["Count"], plain["Total"]) == (1, 1)
    counted = await look.json("/v3/REST/message?countrecords=1&limit=1")
    assert (counted["Count"], counted["Total"]) == (1, 4)
    only = await look.json("/v3/REST/message?countOnly=1")
    assert (only["Count"], only["Total"], only["Data"]) == (4, 4, [])


@pytest.mark.parametrize(
    "query", ["Limit=1001", "Limit=x", "Offset=-1", "Sort=ID%2BDESC", "Sort=Subject", "FromTS=x"]
)
async def test_faulty_parameters(look: Look, query: str) -> None:
    response = await look.get(f"/v3/REST/message?{query}")
    assert response.status_code == 400
    assert set(response.json()) == {"ErrorInfo", "ErrorMessage", "StatusCode"}
    if query.startswith("Sort"):
        assert "Cannot sort on field" in response.json()["ErrorMessage"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v3/REST/contact", 404),
        ("PUT", "/v3/rest/contact/7?x=/v1/", 404),
        ("POST", "/v3/REST/message", 405),
        ("GET", "/v3", 404),
    ],
)
async def test_what_is_not_there_is_told_in_the_form_of_v3(
    look: Look, method: str, path: str, status: int
) -> None:
    response = await look.ask(method, path, data=b"{}")
    assert response.status_code == status
    told = response.json()
    assert set(told) == {"ErrorInfo", "ErrorMessage", "StatusCode"}
    assert (told["ErrorInfo"], told["StatusCode"]) == ("", status)
    assert status != 404 or told["ErrorMessage"].startswith("Object not found")


async def test_below_v1_the_form_is_that_of_v1(look: Look) -> None:
    assert (await look.get("/v1/nothing")).json()["error"]["code"] == "not_found"
    assert (await look.get("/v3.2/nothing")).json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("octets", [2, 200_000])
async def test_the_send_of_old_names_the_one_that_is_here(look: Look, octets: int) -> None:
    response = await look.ask("POST", "/v3/send", data=b" " * octets)
    assert response.status_code == 404
    assert "POST /v3.1/send" in response.json()["ErrorMessage"]
    assert response.json()["StatusCode"] == 404
