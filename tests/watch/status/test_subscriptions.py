"""Subscribing by mail, with a real engine process, a real receiver, and curl."""

import email
import email.policy
import html
import json
import re
import subprocess
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from aiosmtpd.controller import Controller

from engine.rehearsal.engine_process import EngineProcess, free_port
from engine.watch.status.links import Links, Wish
from engine.watch.status.subscribers import Frequency

pytestmark = pytest.mark.slow

PATIENCE_S = 20
TEXTS = ("--title-de", "Störung", "--title-en", "Trouble & strife", "--de", "Weg.", "--en", "Gone.")


class Mailboxes:
    """A receiver that is not ours; `gone@` has no mailbox."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, EmailMessage]] = []

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, rcpt_options: list[str]
    ) -> str:
        if address.startswith("gone@"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        self.taken += [(address, parsed) for address in envelope.rcpt_tos]
        return "250 2.0.0 ok"

    def wait_for(self, count: int, address: str) -> list[EmailMessage]:
        """Return the mails to `address` once there are so many."""

        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            found = [mail for to, mail in self.taken if to == address]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline_s, (address, len(found))
            time.sleep(0.05)


@pytest.fixture
def mailboxes() -> Iterator[Mailboxes]:
    handler = Mailboxes()
    controller = Controller(handler, hostname="127.0.0.1", port=free_port())
    controller.start()
    handler.port = controller.port  # type: ignore[attr-defined]  # told to whoever needs it
    yield handler
    controller.stop()


@pytest.fixture
def engine(tmp_path: Path, mailboxes: Any) -> Iterator[EngineProcess]:
    process = EngineProcess(
        tmp_path,
        f"""
        [delivery]
        ehlo_name = "out.example"
        [status]
        name = "Post & Co"
        [[route]]
        domain = "*.test"
        next_hop = "127.0.0.1:{mailboxes.port}"
        """,
    )
    process.start()
    try:
        process.wait_until_ready()
        yield process
    finally:
        process.stop()


def ask(engine: EngineProcess, address: str, **fields: str) -> requests.Response:
    data = {"address": address, **fields}
    return requests.post(engine.url + "/status/subscriptions", data=data, timeout=PATIENCE_S)


def part(mail: EmailMessage, kind: str) -> str:
    body = mail.get_body((kind,))
    assert body is not None
    return str(body.get_content())


def link_in(text: str, path: str) -> str:
    [link] = re.findall(rf"https?://\S*{re.escape(path)}\?token=[\w.~-]+", text)
    return str(link)


def curl(*arguments: str) -> str:
    done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, check=True)
    return done.stdout.decode()


def subscribed(engine: EngineProcess) -> list[dict[str, Any]]:
    lines = engine.run("status", "subscribers", "--json").splitlines()
    return [json.loads(line) for line in lines]


def subscribe(
    engine: EngineProcess, mailboxes: Mailboxes, address: str, **fields: str
) -> EmailMessage:
    before = sum(to == address for to, _ in mailboxes.taken)
    assert ask(engine, address, **fields).status_code == 202
    mail = mailboxes.wait_for(before + 1, address)[-1]
    link = link_in(part(mail, "plain"), "/status/subscriptions/confirm")
    assert requests.post(link, timeout=PATIENCE_S).status_code == 200
    return mail


def test_from_the_form_to_the_last_mail(engine: EngineProcess, mailboxes: Mailboxes) -> None:
    page = requests.get(engine.url + "/status?lang=de", timeout=PATIENCE_S).text
    assert '<form method="post" action="/status/subscriptions?lang=de">' in page
    answer = ask(engine, "ann@mail.test", language="de", frequency="each")
    assert answer.status_code == 202
    [asked] = mailboxes.wait_for(1, "ann@mail.test")
    assert asked["From"] == "Post & Co <status@out.example>"
    assert asked["Subject"] == "[Post & Co] Bitte bestätigen Sie Ihr Abonnement"
    link = link_in(part(asked, "plain"), "/status/subscriptions/confirm")
    assert link in html.unescape(part(asked, "html"))

    # Whatever opens all links in a mail confirms nothing.
    shown = curl(link)
    assert shown == curl(link)
    assert "Abonnement bestätigen" in shown
    assert requests.head(link, timeout=PATIENCE_S).status_code == 200
    assert subscribed(engine) == []
    [action] = re.findall(r'<form method="post" action="([^"]+)">', shown)
    for _ in range(2):
        assert "Sie haben abonniert" in curl("-X", "POST", engine.url + html.unescape(action))
    [subscriber] = subscribed(engine)
    assert (subscriber["address"], subscriber["language"]) == ("ann@mail.test", "de")

    engine.run("status", "open", *TEXTS)
    mail = mailboxes.wait_for(2, "ann@mail.test")[1]
    assert mail["Subject"] == "[Post & Co] Wird untersucht: Störung"
    assert "Weg." in part(mail, "plain")
    assert "<h2>Störung</h2>" in part(mail, "html")
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["List-Id"] == "<status.out.example>"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    leave = mail["List-Unsubscribe"].strip("<>")
    assert leave == link_in(part(mail, "plain"), "/status/unsubscribe")

    # Opening it ends nothing either; one click as a mail program does it, does.
    assert "Möchten Sie keine mehr?" in curl(leave)
    assert len(subscribed(engine)) == 1
    for _ in range(2):
        left = curl("-d", "List-Unsubscribe=One-Click", leave)
        assert "ann@mail.test bekommt keine Mails mehr" in left
    assert subscribed(engine) == []
    as_form = curl("-F", "List-Unsubscribe=One-Click", leave)
    assert "Sie haben abbestellt" in as_form


def test_one_click_is_durable_with_its_answer(engine: EngineProcess, mailboxes: Mailboxes) -> None:
    subscribe(engine, mailboxes, "ann@mail.test")
    subscribe(engine, mailboxes, "bob@mail.test", frequency="weekly")
    engine.run("status", "announce", *TEXTS)
    mail = mailboxes.wait_for(2, "ann@mail.test")[1]
    leave = mail["List-Unsubscribe"].strip("<>")
    assert requests.post(leave, data="List-Unsubscribe=One-Click", timeout=PATIENCE_S).ok
    engine.kill()
    engine.start()
    engine.wait_until_ready()
    assert [each["address"] for each in subscribed(engine)] == ["bob@mail.test"]
    # Links outlive the process that made them.
    assert requests.post(leave, data="List-Unsubscribe=One-Click", timeout=PATIENCE_S).ok
    assert engine.run("status", "unsubscribe", "bob@mail.test").startswith("bob@mail.test")
    assert subscribed(engine) == []


def test_each_is_told_once_whatever_dies(engine: EngineProcess, mailboxes: Mailboxes) -> None:
    names = [f"r{number}@mail.test" for number in range(5)]
    for name in names:
        subscribe(engine, mailboxes, name, language="en")
    for number in range(3):
        engine.run("status", "announce", "--title-en", f"News {number}", "--en", "Something new.")
        engine.kill()
        engine.start()
        engine.wait_until_ready()
    engine.run("status", "announce", "--title-en", "The last", "--en", "That was all.")
    for name in names:
        mailboxes.wait_for(5, name)
    engine.stop()
    for name in names:
        subjects = [str(mail["Subject"]) for to, mail in mailboxes.taken if to == name]
        told = [each for each in subjects if "Announcement" in each]
        # At most one of each kill was handed over twice by SMTP; nothing was accepted twice.
        assert {each.rpartition(": ")[2] for each in told} == {
            *("News 0", "News 1", "News 2"),
            "The last",
        }


def test_the_account_is_nobodys(engine: EngineProcess, mailboxes: Mailboxes) -> None:
    subscribe(engine, mailboxes, "ann@mail.test")
    [account] = [json.loads(line) for line in engine.run("account", "list", "--json").splitlines()]
    assert (account["account"], account["internal"], account["keys"]) == ("status", True, [])
    assert "the engine's own" in engine.run("account", "list")
    for command in ("rotate", "disable", "enable"):
        with pytest.raises(Exception, match="the engine's own account"):
            engine.run("account", command, "status")
    for key in ("internal-status", "status"):
        for secret in ("", "0" * 64, "\0" * 32):
            answer = requests.get(
                engine.url + "/v1/messages", auth=(key, secret), timeout=PATIENCE_S
            )
            assert answer.status_code == 401


def test_a_hard_bounce_ends_a_subscription(engine: EngineProcess, mailboxes: Mailboxes) -> None:
    # Confirmed before the mailbox went: the link is what a confirmation would have had.
    key = (engine.directory / "data" / "status.key").read_bytes()
    wish = Wish("gone@mail.test", "en", Frequency.EACH, 2**53)
    link = Links(key, engine.url).confirmation(wish)
    assert requests.post(link, timeout=PATIENCE_S).ok
    assert (engine.directory / "data" / "status.key").stat().st_mode & 0o777 == 0o600
    subscribe(engine, mailboxes, "ann@mail.test")
    assert len(subscribed(engine)) == 2
    engine.run("status", "announce", *TEXTS)
    mailboxes.wait_for(2, "ann@mail.test")

    deadline_s = time.monotonic() + PATIENCE_S
    while "gone@mail.test" not in engine.run("account", "suppressions", "status"):
        assert time.monotonic() < deadline_s
    engine.run("status", "announce", *TEXTS)
    mailboxes.wait_for(3, "ann@mail.test")
    assert [each["address"] for each in subscribed(engine)] == ["ann@mail.test"]


def test_links_are_where_the_configuration_says(
    engine: EngineProcess, mailboxes: Mailboxes
) -> None:
    mail = subscribe(engine, mailboxes, "ann@mail.test")
    link = link_in(part(mail, "plain"), "/status/subscriptions/confirm")
    assert urlsplit(link).netloc == urlsplit(engine.url).netloc
