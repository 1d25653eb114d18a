"""The help page, sentence by sentence: what the words mean, and where to look."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium import webdriver

from engine.rehearsal.engine_process import COMMAND
from tests.article.provider import SETTINGS, Provider, provider
from tests.watch.browser.browsing import complaints, sign_in, text, total, wait_for

SHORT_LIFE = SETTINGS + "max_age_s = 4\n"


def test_delivered_means_that_the_receiving_server_accepted_it(our_provider: Provider) -> None:
    our_provider.receivers.may_answer.clear()
    [message_id] = our_provider.send("ann@shop.test")
    our_provider.wait_until(
        "the server has the mail and has said nothing",
        lambda: (our_provider.explain(message_id)["held_by"] or {}).get("code") == "in_flight",
    )
    assert our_provider.message(message_id)["status"] == "queued"
    our_provider.receivers.may_answer.set()
    delivered = our_provider.wait_for_status(message_id, "delivered")
    assert delivered["reply"] == "250 2.0.0 taken"
    assert our_provider.receivers.got("ann@shop.test")


def test_meanwhile_the_status_is_pending_sent(
    our_provider: Provider, browse: Callable[..., webdriver.Chrome]
) -> None:
    our_provider.send("ann@shop.test", "bob@unreachable.test")
    our_provider.wait_until("one is delivered", lambda: our_provider.counts().get("delivered") == 1)
    for languages, live, pending, delivered in (
        ("en-US,en", "Live", "sent (pending)", "delivered"),
        ("de-DE,de", "Live", "gesendet (ausstehend)", "zugestellt"),
    ):
        page = browse(languages)
        sign_in(page, our_provider.engine, our_provider.customer)
        wait_for(page, "pending", lambda page=page: total(page, "pending") == "1")  # type: ignore[misc]  # bound now
        assert text(page, "#connection") == live
        assert text(page, '[data-total="pending"] dt') == pending
        assert text(page, '[data-total="delivered"] dt') == delivered
        assert total(page, "delivered") == "1"
        assert complaints(page) == []


def test_look_on_the_statistics_page_for_groups_of_similar_addresses(
    our_provider: Provider, browser: webdriver.Chrome
) -> None:
    """If all @unreachable.test wait, that server may be unreachable: the page says so."""
    our_provider.send(
        "ann@shop.test", *(f"customer{number}@unreachable.test" for number in range(60))
    )
    sign_in(browser, our_provider.engine, our_provider.customer)
    group = '#waiting tr[data-destination="unreachable.test"]'
    wait_for(browser, "the group", lambda: "60" in text(browser, group))
    wait_for(browser, "its cause", lambda: "unreachable" in text(browser, group).lower())
    assert "connection refused" in text(browser, group).lower(), "the last thing heard"
    assert "shop.test" not in text(browser, "#waiting").replace("unreachable.test", "")
    told = our_provider.get("/v1/destinations/unreachable.test/explain")
    assert told["held_by"]["code"] == "destination_unreachable"
    assert (told["queued"], told["deferred"]) == (60, 0)
    assert "unreachable.test" in our_provider.eilpost("explain", "unreachable.test")


def test_it_is_tried_again_later_by_itself(our_provider: Provider) -> None:
    ids = our_provider.send(*(f"customer{number}@unreachable.test" for number in range(5)))
    our_provider.wait_until(
        "it is known to be unreachable",
        lambda: (
            (our_provider.explain(ids[0])["held_by"] or {}).get("code") == "destination_unreachable"
        ),
    )
    assert our_provider.message(ids[0])["next_attempt_at"] is not None
    with our_provider.unreachable_server_comes_back():
        for message_id in ids:
            our_provider.wait_for_status(message_id, "delivered")


def test_if_that_fails_the_mail_becomes_soft_bounced(tmp_path: Path) -> None:
    with provider(tmp_path, SHORT_LIFE) as ours:
        [message_id] = ours.send("ann@unreachable.test")
        bounced = ours.wait_for_status(message_id, "soft_bounced")
        assert bounced["reason"] == "expired"
        assert "connection refused" in bounced["reply"]
        assert bounced["next_attempt_at"] is None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("452 4.2.2 mailbox full", "mailbox_full"),
        ("450 4.2.1 mailbox temporarily disabled", "other"),
    ],
)
def test_a_single_waiting_mail_may_mean_a_full_or_unreachable_mailbox_also_retried(
    our_provider: Provider, reply: str, reason: str
) -> None:
    our_provider.receivers.refusals["ann@shop.test"] = reply
    ann, bob = our_provider.send("ann@shop.test", "bob@shop.test")
    waiting = our_provider.wait_for_status(ann, "deferred")
    our_provider.wait_for_status(bob, "delivered")
    assert (waiting["reply"], waiting["reason"]) == (reply, reason)
    held = our_provider.explain(ann)["held_by"]
    assert (held["code"], held["scope"], held["reply"]) == ("retry_wait", "envelope", reply)
    del our_provider.receivers.refusals["ann@shop.test"]
    delivered = our_provider.wait_for_status(ann, "delivered")
    replies = [step["reply"] for step in delivered["history"] if step["attempt"]]
    assert replies[0] == reply
    assert replies[-1] == "250 2.0.0 taken"


def test_look_for_typing_errors(our_provider: Provider, tmp_path: Path) -> None:
    """`Tom@@ beispiel.de`: the fault, its place, and what was probably meant."""
    wrong = {
        "From": {"Email": "shop@sender.test"},
        "To": [{"Email": "Tom@@ beispiel.de"}],
        "TextPart": "Hello",
    }
    status, answer = our_provider.call("POST", "/v3.1/send", {"Messages": [wrong]})
    assert status == 400
    [error] = answer["Messages"][0]["Errors"]
    assert error["ErrorRelatedTo"] == ["To[0].Email"]
    assert "tom@beispiel.de" in error["ErrorMessage"]
    status, checked = our_provider.call(
        "POST", "/v1/check", {"addresses": ["Tom@@ beispiel.de", "ann@gmial.com"]}
    )
    assert status == 200, checked
    [fault] = checked["faults"]
    assert (fault["address"], fault["suggestion"]) == ("Tom@@ beispiel.de", "tom@beispiel.de")
    [suggestion] = checked["suggestions"]
    assert suggestion["suggestion"] == "ann@gmail.com"
    customers = tmp_path / "customers.csv"
    customers.write_text(
        "name,email\nTom,Tom@@ beispiel.de\nAnn,ann@gmial.com\nBob,bob@shop.test\n"
    )
    said = subprocess.run(
        [*COMMAND, "check", str(customers)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 1, "some are to be refused"
    assert f"{customers}:2: Tom@@ beispiel.de: " in said.stdout
    assert "did you mean tom@beispiel.de?" in said.stdout
    assert "did you mean ann@gmail.com?" in said.stdout
    assert our_provider.counts() == {}, "a guess sends nothing"


def test_a_word_of_caution_a_guess_never_blocks(our_provider: Provider) -> None:
    status, answer = our_provider.call(
        "POST",
        "/v3.1/send",
        {
            "Messages": [
                {
                    "From": {"Email": "shop@sender.test"},
                    "To": [{"Email": "ann@gmial.com"}],
                    "TextPart": "Hello",
                }
            ]
        },
    )
    assert status == 200
    assert "ann@gmail.com" in json.dumps(answer["Messages"][0]["Warnings"])
