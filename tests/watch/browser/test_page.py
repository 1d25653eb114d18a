"""The live page, in a real browser, over a real engine that is killed and started again."""

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from engine.rehearsal.engine_process import EngineProcess
from tests.watch.browser.browsing import (
    complaints,
    requested_urls,
    send,
    sign_in,
    sign_in_as_operator,
    text,
    total,
    wait_for,
    wait_until_live,
)


def test_the_page_shows_what_waits_and_why_and_survives_kill_9(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    credentials = engine.create_account("shop")
    sign_in(browser, engine, credentials)

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
    wait_until_live(browser)
    wait_for(browser, "delivered 2", lambda: total(browser, "delivered") == "2")
    wait_for(browser, "missed event", lambda: "while-away@good.test" in text(browser, "#events"))
    shown = browser.execute_script(
        "return [...document.querySelectorAll('#events li')].map((line) => line.textContent)"
    )
    assert sum("ann@good.test" in line for line in shown) == 2, "queued and delivered, once each"
    assert not browser.find_element(By.ID, "gap").is_displayed()


def test_a_page_that_has_just_been_opened_shows_what_happened_before(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    credentials = engine.create_account("shop")
    send(engine, credentials, "nobody@good.test", "ann@good.test")
    sign_in(browser, engine, credentials)
    wait_for(browser, "the past", lambda: "550 5.1.1 no such user" in text(browser, "#events"))
    wait_for(browser, "the newest mails", lambda: "ann@good.test" in text(browser, "#found"))
    send(engine, credentials, "bob@good.test")
    wait_for(browser, "the present", lambda: "bob@good.test" in text(browser, "#events"))
    shown = browser.execute_script(
        "return [...document.querySelectorAll('#events li')].map((line) => line.textContent)"
    )
    assert sum("nobody@good.test" in line for line in shown) == 2, "queued and bounced, once each"


def test_wrong_credentials_show_nothing(browser: webdriver.Chrome, engine: EngineProcess) -> None:
    browser.get(engine.url)
    browser.find_element(By.NAME, "key").send_keys("nobody")
    browser.find_element(By.NAME, "secret").send_keys("nothing", Keys.ENTER)
    wait_for(browser, "refusal", lambda: "do not belong together" in text(browser, "main"))
    assert not browser.find_element(By.ID, "board").is_displayed()
    assert text(browser, "footer a") == "help@out.example", "who can help is said to everybody"


def test_another_account_sees_nothing_and_the_operator_sees_all(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    ours, theirs = engine.create_account("ours"), engine.create_account("theirs")
    send(engine, ours, "later@full.test")
    sign_in(browser, engine, theirs)
    wait_for(browser, "empty books", lambda: total(browser, "pending") == "0")
    assert "full.test" not in text(browser, "#waiting")
    assert "full.test" not in text(browser, "#events")
    assert "full.test" not in text(browser, "#found")

    browser.get("about:blank")
    sign_in_as_operator(browser, engine)
    wait_for(browser, "operator's view", lambda: total(browser, "pending") == "1")
    assert "token" not in browser.current_url, "the one-time token leaves the address bar"
    assert text(browser, "#who") == "Operator: all accounts"


def test_signing_out_leaves_nothing_behind(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    credentials = engine.create_account("shop")
    send(engine, credentials, "later@full.test")
    sign_in(browser, engine, credentials)
    wait_for(browser, "the waiting mail", lambda: "full.test" in text(browser, "#waiting"))
    wait_for(browser, "the event", lambda: "full.test" in text(browser, "#events"))
    browser.find_element(By.ID, "sign-out").click()
    assert browser.find_element(By.NAME, "key").is_displayed()
    assert "full.test" not in text(browser, "body")
    assert browser.execute_script("return sessionStorage.length") == 0
    # The same holds after the next person signs in, and after a reload.
    sign_in(browser, engine, engine.create_account("next"))
    wait_for(browser, "empty books", lambda: total(browser, "pending") == "0")
    assert "full.test" not in text(browser, "body")


def test_no_other_host_is_asked_and_the_policy_holds(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    sign_in(browser, engine, engine.create_account("shop"))
    asked = list(requested_urls(browser))
    assert any("/assets/dashboard.js" in url for url in asked)
    assert all(url.startswith((engine.url, "data:", "chrome")) for url in asked), asked
    assert complaints(browser) == []


def test_a_token_serves_once(browser: webdriver.Chrome, engine: EngineProcess) -> None:
    link = engine.operator_url()
    sign_in_as_operator(browser, engine)
    browser.find_element(By.ID, "sign-out").click()
    browser.get("about:blank")
    browser.get(link)
    wait_for(browser, "refusal", lambda: "was used before" in text(browser, "#sign-in-error"))
