"""The help page, sentence by sentence: many mails at once, and the status page."""

import email
import email.policy
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from urllib.request import Request, urlopen

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from engine.rehearsal.engine_process import EngineProcess
from tests.article.provider import Provider, provider
from tests.scenarios.stepping_clock import SteppingClock
from tests.watch.browser.browsing import complaints, text, wait_for

MAILS = 20_000
TEMPLATE = """
account = "customer"
campaign = "spring"
from = "Shop <shop@sender.test>"
subject = "Spring, {{name}}"
text = "Dear {{name}}, your discount is {{percent}} percent."
"""
READER = "reader@shop.test"
# Before the hour at which digests go, on a day that is no Monday.
EARLY = datetime(2031, 2, 4, 1, tzinfo=UTC)


def test_tens_of_thousands_of_mails_can_be_created_and_sent_in_a_very_short_time(
    our_provider: Provider, tmp_path: Path
) -> None:
    template, customers = tmp_path / "spring.toml", tmp_path / "customers.csv"
    template.write_text(TEMPLATE)
    with customers.open("w", encoding="utf-8") as file:
        file.write("email,name,percent\n")
        for number in range(MAILS):
            file.write(f"c{number}@d{number % 50}.test,Customer {number},{number % 90}\n")
    began_s = time.monotonic()
    said = our_provider.eilpost("send", "--template", str(template), "--no-wait", str(customers))
    accepted_s = time.monotonic() - began_s
    assert f"{MAILS:,}" in said
    our_provider.wait_until(
        "all are delivered", lambda: our_provider.counts() == {"delivered": MAILS}
    )
    sent_s = time.monotonic() - began_s
    # For `pytest -s`; how fast this is on a quiet machine, `python -m bench campaign` says.
    print(f"{MAILS} mails: accepted in {accepted_s:.1f} s, delivered in {sent_s:.1f} s")  # noqa: T201  # pytest -s
    assert len({to for to, _, _ in our_provider.receivers.taken}) == MAILS
    assert len(our_provider.receivers.taken) == MAILS, "each got one"
    for to, content, _ in our_provider.receivers.taken[:: MAILS // 100]:
        number = int(to[1:].partition("@")[0])
        told = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(told, EmailMessage)
        assert told["Subject"] == f"Spring, Customer {number}"
        wanted = f"Dear Customer {number}, your discount is {number % 90} percent."
        assert told.get_content().strip() == wanted
    again = our_provider.eilpost("send", "--template", str(template), "--no-wait", str(customers))
    assert f"{MAILS:,} already there" in again
    assert our_provider.counts() == {"delivered": MAILS}


def test_look_at_the_status_page_for_updates_and_announcements(
    our_provider: Provider, browse: Callable[..., webdriver.Chrome]
) -> None:
    our_provider.eilpost(
        *("status", "announce", "--title-en", "Faster since today", "--en", "Twice as fast."),
        *("--title-de", "Ab heute schneller", "--de", "Doppelt so schnell."),
    )
    opened = json.loads(
        our_provider.eilpost(
            *("status", "open", "--json", "--title-en", "Slow deliveries", "--en", "We look."),
            *("--title-de", "Langsame Zustellung", "--de", "Wir sehen nach."),
            *("--impact", "major", "--component", "delivery=degraded_performance"),
        )
    )
    entry = str(opened["id"])
    our_provider.eilpost("status", "update", entry, "--en", "Found it.", "--de", "Gefunden.")
    for languages, words in (
        ("en-US,en", ("Faster since today", "Slow deliveries", "Found it.")),
        ("de-DE,de", ("Ab heute schneller", "Langsame Zustellung", "Gefunden.")),
    ):
        page = browse(languages)
        page.get(f"{our_provider.engine.url}/status")
        shown = page.find_element(By.TAG_NAME, "body").text
        assert [word for word in words if word not in shown] == []
        assert complaints(page) == []
    our_provider.eilpost("status", "resolve", entry)
    with urlopen(f"{our_provider.engine.url}/history.rss") as feed:
        assert b"Slow deliveries" in feed.read()


def mails_to(ours: Provider, address: str) -> list[EmailMessage]:
    found = [
        email.message_from_bytes(content, policy=email.policy.default)
        for to, content, _ in ours.receivers.taken
        if to == address
    ]
    assert all(isinstance(each, EmailMessage) for each in found)
    return found


def subscribe(ours: Provider, page: webdriver.Chrome, frequency: str) -> None:
    """Fill in the form, and press the button behind the link in the mail that comes."""
    page.get(f"{ours.engine.url}/status")
    page.find_element(By.CSS_SELECTOR, f'input[value="{frequency}"]').click()
    page.find_element(By.NAME, "address").send_keys(READER, Keys.ENTER)
    ours.wait_until("the link has come", lambda: mails_to(ours, READER))
    [asking] = mails_to(ours, READER)
    body = asking.get_body(("plain",))
    assert body is not None
    found = re.search(r"https?://\S+", body.get_content())
    assert found is not None, asking
    page.get(found[0])
    assert subscribers(ours.engine) == [], "opening a link is not a yes"
    page.find_element(By.CSS_SELECTOR, "main button").click()
    wait_for(page, "the yes", lambda: subscribers(ours.engine))


def subscribers(engine: EngineProcess) -> list[dict[str, str]]:
    listed = engine.run("status", "subscribers", "--json").splitlines()
    return [json.loads(line) for line in listed]


def test_subscribe_to_them_by_email(our_provider: Provider, browser: webdriver.Chrome) -> None:
    ours = our_provider
    subscribe(ours, browser, "each")
    ours.eilpost("status", "open", "--title-en", "Slow deliveries", "--en", "We look.")
    ours.wait_until("it is told", lambda: len(mails_to(ours, READER)) == 2)
    told = mails_to(ours, READER)[1]
    assert "Slow deliveries" in told["Subject"] + str(told.get_body(("plain",)))
    assert told["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    one_click = Request(
        told["List-Unsubscribe"].strip("<>"), b"List-Unsubscribe=One-Click", method="POST"
    )
    with urlopen(one_click) as answer:
        assert answer.status == 200
    assert subscribers(ours.engine) == []


def test_regularly_too(tmp_path: Path, browser: webdriver.Chrome) -> None:
    clock = SteppingClock(tmp_path / "clock")
    clock.step(round((EARLY.timestamp() - time.time()) * 1000))
    with provider(tmp_path, command=clock.command()) as ours:
        subscribe(ours, browser, "daily")
        ours.eilpost("status", "announce", "--title-en", "Faster since today", "--en", "Twice.")
        assert len(mails_to(ours, READER)) == 1, "not at once"
        tomorrow = EARLY + timedelta(days=1)
        clock.step(round((tomorrow.timestamp() - time.time()) * 1000))
        ours.wait_until("the day's digest", lambda: len(mails_to(ours, READER)) == 2)
        digest = mails_to(ours, READER)[1].get_body(("plain",))
        assert digest is not None
        assert "Faster since today" in digest.get_content()
        assert text(browser, "h1")
