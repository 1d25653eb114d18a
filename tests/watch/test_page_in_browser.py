"""The live page, in a real browser, over a real engine that is killed and started again."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from engine.rehearsal.engine_process import Credentials, EngineProcess, HttpClient, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="needs Debian packages chromium and chromium-driver",
    ),
]

PATIENCE_S = 30
SCRIPT_SUBJECT = '<img src=x onerror="document.title=1337"><script>document.title=1337</script>'


class Receiver:
    """Takes everybody but `later@`, who has to wait, and `nobody@`, who is not there."""

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, rcpt_options: list[str]
    ) -> str:
        if address.startswith("later@"):
            return "452 4.2.2 <b>mailbox</b> full"
        if address.startswith("nobody@"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    receiver = Controller(Receiver(), hostname="127.0.0.1", port=free_port())
    receiver.start()
    dead_port = free_port()
    process = EngineProcess(
        tmp_path,
        f"""
        [[route]]
        domain = "down.test"
        next_hop = "127.0.0.1:{dead_port}"
        [[route]]
        domain = "*.test"
        next_hop = "127.0.0.1:{receiver.port}"
        """,
    )
    process.start()
    try:
        process.wait_until_ready()
        yield process
    finally:
        process.stop()
        receiver.stop()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--lang=en-US",
        "--window-size=1200,1400",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


def send(engine: EngineProcess, credentials: Credentials, *addresses: str) -> list[int]:
    messages = [
        {
            "From": {"Email": "shop@sender.test"},
            "To": [{"Email": address}],
            "Subject": SCRIPT_SUBJECT,
            "TextPart": "hello",
        }
        for address in addresses
    ]
    client = HttpClient(engine.port, credentials)
    status, answer = client.request(
        "POST", "/v3.1/send", json.dumps({"Messages": messages}).encode()
    )
    client.close()
    assert status == 200, answer
    assert isinstance(answer, dict)
    return [message["To"][0]["MessageID"] for message in answer["Messages"]]


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


def sign_in(browser: webdriver.Chrome, engine: EngineProcess, key: str, secret: str) -> None:
    browser.get(engine.url)
    browser.find_element(By.NAME, "key").send_keys(key)
    browser.find_element(By.NAME, "secret").send_keys(secret, Keys.ENTER)


def test_the_page_shows_what_waits_and_why_and_survives_kill_9(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    credentials = engine.create_account("shop")
    sign_in(browser, engine, credentials.api_key, credentials.secret_key)
    wait_for(browser, "live", lambda: text(browser, "#connection") == "Live")

    send(engine, credentials, "ann@good.test", "later@full.test", "nobody@good.test", "x@down.test")
    wait_for(browser, "delivered 1", lambda: total(browser, "delivered") == "1")
    wait_for(browser, "bounced 1", lambda: total(browser, "bounced") == "1")
    wait_for(browser, "pending 2", lambda: total(browser, "pending") == "2")
    down = '#waiting tr[data-destination="down.test"]'
    wait_for(browser, "unreachable", lambda: "unreachable" in text(browser, down))
    full = '#waiting tr[data-destination="full.test"]'
    wait_for(browser, "the waiting mail", lambda: "full.test" in text(browser, full))
    assert "good.test" not in text(browser, "#waiting"), "only waiting mail is listed"
    wait_for(browser, "the reply", lambda: "<b>mailbox</b> full" in text(browser, "#events"))

    engine.kill()
    wait_for(browser, "lost", lambda: "lost" in text(browser, "#connection"))
    engine.start()
    engine.wait_until_ready()
    # Sent before the page is back: it has to go on from its cursor to show it.
    send(engine, credentials, "while-away@good.test")
    wait_for(browser, "live again", lambda: text(browser, "#connection") == "Live")
    wait_for(browser, "delivered 2", lambda: total(browser, "delivered") == "2")
    wait_for(browser, "missed event", lambda: "while-away@good.test" in text(browser, "#events"))
    shown = browser.execute_script(
        "return [...document.querySelectorAll('#events li')].map((line) => line.textContent)"
    )
    assert sum("ann@good.test" in line for line in shown) == 2, "queued and delivered, once each"
    assert not browser.find_element(By.ID, "gap").is_displayed()
    assert browser.title == "Eilpost", "nothing that came in a mail was run"


def test_one_mail_is_found_and_its_story_told(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    credentials = engine.create_account("shop")
    [message_id] = send(engine, credentials, "later@full.test")
    sign_in(browser, engine, credentials.api_key, credentials.secret_key)
    wait_for(browser, "live", lambda: text(browser, "#connection") == "Live")
    box = browser.find_element(By.NAME, "query")
    box.send_keys("later@full.test", Keys.ENTER)
    wait_for(browser, "story", lambda: "mailbox full" in text(browser, "#story-events"))
    assert SCRIPT_SUBJECT in text(browser, "#story-title")
    assert "The last attempt failed (mailbox full)" in text(browser, "#story-why")
    assert "Ask the recipient to make room" in text(browser, "#story-advice")
    assert "<b>mailbox</b> full" in text(browser, "#story-facts")
    box.clear()
    box.send_keys(str(message_id), Keys.ENTER)
    wait_for(browser, "found by id", lambda: "later@full.test" in text(browser, "#found"))
    browser.find_element(By.ID, "language").click()
    wait_for(browser, "German", lambda: "Postfach voll" in text(browser, "#story-events"))
    wait_for(browser, "German cause", lambda: "ist gescheitert" in text(browser, "#story-why"))
    assert "Platz zu schaffen" in text(browser, "#story-advice")
    pending = '[data-total="pending"] dt'
    wait_for(browser, "German totals", lambda: text(browser, pending) == "gesendet (ausstehend)")
    assert browser.title == "Eilpost"


def test_wrong_credentials_show_nothing(browser: webdriver.Chrome, engine: EngineProcess) -> None:
    sign_in(browser, engine, "nobody", "nothing")
    wait_for(browser, "refusal", lambda: "do not belong together" in text(browser, "main"))
    assert not browser.find_element(By.ID, "board").is_displayed()


def test_another_account_sees_nothing_and_the_operator_sees_all(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    ours, theirs = engine.create_account("ours"), engine.create_account("theirs")
    send(engine, ours, "later@full.test")
    sign_in(browser, engine, theirs.api_key, theirs.secret_key)
    wait_for(browser, "live", lambda: text(browser, "#connection") == "Live")
    wait_for(browser, "empty books", lambda: total(browser, "pending") == "0")
    assert "full.test" not in text(browser, "#waiting")

    link = next(
        word for word in engine.output_path.read_text().split() if word.startswith(engine.url)
    )
    browser.get("about:blank")
    browser.get(link)
    wait_for(browser, "operator's view", lambda: total(browser, "pending") == "1")
    assert "token" not in browser.current_url, "the one-time token leaves the address bar"


def test_no_other_host_is_asked_and_the_policy_holds(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    credentials = engine.create_account("shop")
    sign_in(browser, engine, credentials.api_key, credentials.secret_key)
    wait_for(browser, "live", lambda: text(browser, "#connection") == "Live")
    asked = [
        entry["message"]["params"]["request"]["url"]
        for entry in map(json.loads, (line["message"] for line in browser.get_log("performance")))
        if entry["message"]["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert all(url.startswith((engine.url, "data:", "chrome")) for url in asked), asked
    complaints = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert not [each for each in complaints if "favicon" not in each["message"]], complaints
