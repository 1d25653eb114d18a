"""`kill -9` after a mail's last dot: what is sent once more is the same mail, filled in again."""

import email
import email.policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller

from tests.delivery.test_connection_peers import free_port
from tests.delivery.test_filling import Cutting
from tests.scenarios.scene import scene

pytestmark = pytest.mark.slow

TEMPLATE = """
account = "shop"
campaign = "herbst"
from = "Müllers Laden <laden@sender.test>"
subject = "Grüße, {{name}}!"
text = "Hallo {{name}}, Ihr Code ist {{code}}."
html = '<p>Hallo {{var:name:"du"}}, <a href="https://sender.test/?c={{url:code}}">{{code}}</a>'
"""
LIST = """email,name,code
anna@letters.test,Anna Müller,A&B 1
bob@letters.test,"Bob ""<b>"" & Söhne",B2
"""
HTML = {
    "anna@letters.test": (
        '<p>Hallo Anna Müller, <a href="https://sender.test/?c=A%26B%201">A&amp;B 1</a>'
    ),
    "bob@letters.test": (
        '<p>Hallo Bob &quot;&lt;b&gt;&quot; &amp; Söhne, <a href="https://sender.test/?c=B2">B2</a>'
    ),
}


def test_a_letter_that_is_sent_again_after_a_crash_is_the_same(tmp_path: Path) -> None:
    box = Cutting({"bob@letters.test"})
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    settings = (
        "[delivery]\nretry_s = [5]\n"
        f'[[route]]\ndomain = "letters.test"\nnext_hop = "127.0.0.1:{controller.port}"\n'
    )
    (tmp_path / "herbst.toml").write_text(TEMPLATE)
    (tmp_path / "list.csv").write_text(LIST)
    try:
        with scene(tmp_path, settings) as world:
            template, people = tmp_path / "herbst.toml", tmp_path / "list.csv"
            world.engine.run("send", "--template", str(template), "--no-wait", str(people))
            world.wait_for("the copy whose reply is lost", lambda: not box.cut)
            world.engine.kill()
            assert copies_to_bob(box) == 1, "it was killed too late"
            world.engine.start()
            world.engine.wait_until_ready()
            assert world.wait_until_final() == {"delivered": 2}
            found = world.get("/v1/messages")["messages"]
    finally:
        controller.stop()
    assert {each["address"]: each["subject"] for each in found} == {
        "anna@letters.test": "Grüße, Anna Müller!",
        "bob@letters.test": 'Grüße, Bob "<b>" & Söhne!',
    }
    letters = dict(box.taken)
    assert copies_to_bob(box) == 2
    assert set(box.taken) == set(letters.items())
    assert {recipient: html_of(octets) for recipient, octets in letters.items()} == HTML


def copies_to_bob(box: Cutting) -> int:
    return [recipient for recipient, _ in box.taken].count("bob@letters.test")


def html_of(octets: bytes) -> str:
    parsed = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    html = parsed.get_body(("html",))
    assert html is not None
    text: str = html.get_content()
    return text.rstrip("\n")
