"""Driving the page as a person would, with Debian's Chromium."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from engine.rehearsal.engine_process import Credentials, EngineProcess, HttpClient

PATIENCE_S = 30


class Receiver:
    """Takes everybody but `later...@` and `grey...@`, who have to wait, and `nobody@`, who is none.

    At `slow.test` it wants less after the first few.
    """

    def __init__(self) -> None:
        self.slow = 0

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, rcpt_options: list[str]
    ) -> str:
        if address.startswith("later"):
            return "452 4.2.2 <b>mailbox</b> full"
        if address.startswith("grey"):
            return "450 4.7.1 Greylisted, come back"
        if address.startswith("nobody@"):
            return "550 5.1.1 no such user"
        if address.endswith("@slow.test"):
            self.slow += 1
            if self.slow > 3:
                return "421 4.7.0 slow.test: <i>too many</i> messages, slow down"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"


def send(
    engine: EngineProcess, credentials: Credentials, *addresses: str, **fields: Any
) -> list[int]:
    """Send a mail to each address through the public API; return their ids."""
    ids: list[int] = []
    for start in range(0, len(addresses), 50):
        messages = [
            {
                "From": {"Email": "shop@sender.test"},
                "To": [{"Email": address}],
                "Subject": "hello",
                "TextPart": "hello",
                **fields,
            }
            for address in addresses[start : start + 50]
        ]
        answer = call(engine, credentials, "POST", "/v3.1/send", {"Messages": messages})
        ids += [message["To"][0]["MessageID"] for message in answer["Messages"]]
    return ids


def call(
    engine: EngineProcess,
    credentials: Credentials,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
) -> Any:
    client = HttpClient(engine.port, credentials)
    octets = b"" if body is None else json.dumps(body).encode()
    status, answer = client.request(method, path, octets)
    client.close()
    assert status in (200, 201), answer
    return answer


def wait_for(browser: webdriver.Chrome, what: str, met: Callable[[], object]) -> None:
    WebDriverWait(browser, PATIENCE_S, 0.1).until(lambda _: met(), f"waited for: {what}")


def text(browser: webdriver.Chrome, css: str) -> str:
    # One script instead of two calls: the page may replace the element between them.
    found: str = browser.execute_script(
        "return document.querySelector(arguments[0])?.textContent ?? ''", css
    )
    return found


def total(browser: webdriver.Chrome, name: str) -> str:
    return text(browser, f'[data-total="{name}"] dd')


def click(browser: webdriver.Chrome, css: str) -> None:
    """Click by script what a table may draw anew between being found and being clicked."""
    assert browser.execute_script(
        "const found = document.querySelector(arguments[0]); found?.click(); return !!found", css
    ), f"nothing to click at {css}"


def sign_in(browser: webdriver.Chrome, engine: EngineProcess, credentials: Credentials) -> None:
    """Sign in and wait until the page is live, in whichever language it is."""
    browser.get(engine.url)
    browser.find_element(By.NAME, "key").send_keys(credentials.api_key)
    browser.find_element(By.NAME, "secret").send_keys(credentials.secret_key, Keys.ENTER)
    wait_until_live(browser)


def sign_in_as_operator(browser: webdriver.Chrome, engine: EngineProcess) -> None:
    browser.get(engine.operator_url())
    wait_until_live(browser)


def wait_until_live(browser: webdriver.Chrome) -> None:
    wait_for(browser, "live", lambda: text(browser, "#connection") == "Live")


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the browser's console says of scripts and of the policy since it was last asked."""
    return [
        f"{line['source']}: {line['message']}"
        for line in browser.get_log("browser")
        # A failed answer is the engine's; what is looked for is what ran or was kept from it.
        if line["level"] == "SEVERE" and line["source"] != "network"
    ]


def requested_urls(browser: webdriver.Chrome) -> Iterator[str]:
    for line in browser.get_log("performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            yield message["params"]["request"]["url"]
