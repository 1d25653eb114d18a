"""What mails, receivers and strangers' pages bring along is shown or refused, and never run."""

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from engine.rehearsal.engine_process import Credentials, EngineProcess
from tests.watch.browser.browsing import (
    call,
    click,
    complaints,
    send,
    sign_in,
    sign_in_as_operator,
    text,
    wait_for,
)

RUNS = "document.title='run'"
MARKUP = f'<img src=x onerror="{RUNS}"><script>{RUNS}</script>'
# What an address may have in it at all, of what HTML gives a meaning.
ADDRESS = "later&lt'/onload='x`{alert}@full.test"


def test_nothing_that_comes_in_a_mail_is_run(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    credentials = engine.create_account("shop")
    send(
        engine,
        credentials,
        *("later@full.test", ADDRESS, *(f"u{n}@slow.test" for n in range(8))),
        Subject=MARKUP,
        CustomCampaign=f"spring {MARKUP}",
        CustomID=MARKUP,
    )
    hold = {"destination": "held.test", "reply": MARKUP, "reason": MARKUP}
    call(engine, credentials, "POST", "/v1/holds", hold)
    for is_operator in (False, True):
        browser.get("about:blank")
        if is_operator:
            sign_in_as_operator(browser, engine)
        else:
            sign_in(browser, engine, credentials)
        _look_everywhere(browser)
        assert browser.title == "Eilpost"
        assert complaints(browser) == []
        injected = "#board img, #detail img, main script, #detail script, #board b, #detail svg"
        assert browser.find_elements(By.CSS_SELECTOR, injected) == []
        click(browser, "#sign-out")


def _look_everywhere(browser: webdriver.Chrome) -> None:
    wait_for(browser, "the reply", lambda: "<b>mailbox</b> full" in text(browser, "#events"))
    wait_for(browser, "the hold", lambda: MARKUP in text(browser, "#holds"))
    wait_for(browser, "the newest", lambda: MARKUP in text(browser, "#found"))
    full = '#waiting tr[data-destination="full.test"] button'
    wait_for(browser, "the table", lambda: "full.test" in text(browser, full))
    click(browser, full)
    wait_for(browser, "its mails", lambda: MARKUP in text(browser, "#detail .mails"))
    box = browser.find_element(By.NAME, "query")
    for query in ("later@full.test", ADDRESS):
        box.clear()
        box.send_keys(query, Keys.ENTER)
        wait_for(browser, "the story", lambda: MARKUP in text(browser, "#story-title"))
        wait_for(browser, "its facts", lambda: MARKUP in text(browser, "#story-facts"))


class Stranger(http.server.BaseHTTPRequestHandler):
    """A page of another origin that wants to cancel all mail with the visitor's key."""

    target = ""
    form = (
        '<form method="post" enctype="text/plain" action="{target}">'
        '<input name=\'{{"destination":"down.test","reason":"\' value=\'"}}\'></form>'
        "<script>document.forms[0].submit()</script>"
    )

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.form.format(target=self.target).encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[http.server.HTTPServer]:
    # One thread would wait for a connection that the browser opens in advance and never uses.
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_strangers_page_cannot_cancel_mail_with_a_key_that_the_browser_remembers(
    browser: webdriver.Chrome, engine: EngineProcess, stranger: http.server.HTTPServer
) -> None:
    credentials = engine.create_account("shop")
    [message_id] = send(engine, credentials, "x@down.test")
    # Typed into the browser's own box, or written into a link: from now on it goes along.
    with_key = engine.url.replace("//", f"//{credentials.api_key}:{credentials.secret_key}@")
    browser.get(f"{with_key}/v1/messages")
    assert "x@down.test" in browser.page_source
    browser.get(f"{engine.url}/v1/messages")
    assert "x@down.test" in browser.page_source, "the browser remembers"

    Stranger.target = f"{engine.url}/v1/cancel"
    browser.get(f"http://127.0.0.1:{stranger.server_port}/")
    wait_for(browser, "the refusal", lambda: "foreign_origin" in browser.page_source)
    assert status_of(engine, credentials, message_id) in ("queued", "deferred")
    # The control: the same form body would have done it.
    told = call(engine, credentials, "POST", "/v1/cancel", {"destination": "down.test"})
    assert told["changed"] == 1


def status_of(engine: EngineProcess, credentials: Credentials, message_id: int) -> str:
    told = call(engine, credentials, "GET", f"/v1/messages/{message_id}")
    return str(told["status"])
