"""Throttling steps with undo, pin and unpin; holds with a count before: in both languages."""

from collections.abc import Callable

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from engine.rehearsal.engine_process import EngineProcess
from tests.watch.browser.browsing import (
    call,
    click,
    send,
    sign_in,
    sign_in_as_operator,
    text,
    wait_for,
)

STEPS = {
    "en": ("throttled by a reply", "no limit", "pinned", "taken back", "sent (pending)"),
    "de": (
        "durch eine Antwort gedrosselt",
        "keine Grenze",
        "festgehalten",
        "zurückgenommen",
        "gesendet (ausstehend)",
    ),
}
HOLDS = {
    "en": ("2 waiting mails fit.", "until it is lifted", "on hold", "Nothing is held."),
    "de": (
        "2 wartende Mails passen.",
        "bis es aufgehoben wird",
        "angehalten",
        "Nichts ist angehalten.",
    ),
}


@pytest.mark.parametrize("language", STEPS)
def test_steps_are_shown_with_their_reply_and_overruled(
    browse: Callable[..., webdriver.Chrome], engine: EngineProcess, language: str
) -> None:
    cause, no_limit, pinned, taken_back, pending = STEPS[language]
    browser = browse(language)
    credentials = engine.create_account("shop")
    send(engine, credentials, *(f"u{n}@slow.test" for n in range(9)))
    sign_in_as_operator(browser, engine)
    step = '#throttles tr[data-site="slow.test"]'
    wait_for(browser, "the step", lambda: "<i>too many</i>" in text(browser, step))
    assert cause in text(browser, step)
    assert no_limit in text(browser, f"{step}:last-child")
    wait_for(browser, "throttled", lambda: "slow.test" in text(browser, "#waiting"))

    def deed(name: str) -> str:
        return f'#throttles button[data-deed="{name}"]'

    click(browser, deed("pin"))
    browser.find_element(By.NAME, "rate").send_keys("0.5/s")
    browser.find_element(By.NAME, "connections").send_keys("2")
    browser.find_element(By.ID, "question-yes").click()
    wait_for(browser, "pinned", lambda: pinned in text(browser, step))
    assert "2 " in text(browser, step)
    wait_for(browser, "the way back", lambda: browser.find_elements(By.CSS_SELECTOR, deed("unpin")))
    click(browser, deed("unpin"))
    browser.find_element(By.ID, "question-yes").click()
    wait_for(browser, "unpinned", lambda: browser.find_elements(By.CSS_SELECTOR, deed("pin")))
    click(browser, deed("pin"))
    browser.find_element(By.NAME, "rate").send_keys("fast")
    browser.find_element(By.ID, "question-yes").click()
    wait_for(browser, "the refusal", lambda: "rate" in text(browser, "#throttles-said"))
    click(browser, deed("undo"))
    browser.find_element(By.ID, "question-yes").click()
    wait_for(browser, "undone", lambda: taken_back in text(browser, "#throttles"))
    assert text(browser, '[data-total="pending"] dt') == pending


def test_an_account_sees_no_steps(browser: webdriver.Chrome, engine: EngineProcess) -> None:
    credentials = engine.create_account("shop")
    send(engine, credentials, *(f"u{n}@slow.test" for n in range(9)))
    sign_in(browser, engine, credentials)
    wait_for(browser, "throttled", lambda: "slow.test" in text(browser, "#waiting"))
    assert "is for operators" in text(browser, "#throttles-note")
    assert text(browser, "#throttles") == ""
    assert not browser.find_element(By.ID, "hold-account").is_displayed()


@pytest.mark.parametrize("language", HOLDS)
def test_mail_is_held_after_a_count_and_let_go(
    browse: Callable[..., webdriver.Chrome], engine: EngineProcess, language: str
) -> None:
    counted, forever, on_hold, nothing = HOLDS[language]
    browser = browse(language)
    credentials = engine.create_account("shop")
    send(engine, credentials, "a@down.test", "b@down.test", "c@x.down.test")
    sign_in_as_operator(browser, engine)
    wait_for(browser, "nothing yet", lambda: text(browser, "#holds-note") == nothing)
    assert not browser.find_element(By.ID, "hold-account").is_displayed(), "the form is closed"
    row = '#waiting tr[data-destination="down.test"]'
    wait_for(browser, "the waiting mail", lambda: "down.test" in text(browser, row))
    click(browser, f"{row} button")
    wait_for(browser, "its detail", lambda: "a@down.test" in text(browser, "#detail"))
    browser.find_element(By.CSS_SELECTOR, "#detail-body .choice button:last-child").click()
    assert browser.find_element(By.ID, "hold-account").is_displayed(), "it has everybody's mail"
    field = browser.switch_to.active_element
    assert field.get_attribute("name") == "destination"
    assert field.get_attribute("value") == "down.test"

    browser.find_element(By.CSS_SELECTOR, '#hold-form button[value="count"]').click()
    wait_for(browser, "the count", lambda: text(browser, "#holds-said") == counted)
    assert call(engine, credentials, "GET", "/v1/holds")["holds"] == [], "nothing is held by it"
    browser.find_element(By.CSS_SELECTOR, "#hold-form [name=reason]").send_keys("a <b>list</b>")
    browser.find_element(By.CSS_SELECTOR, '#hold-form button[value="hold"]').click()
    wait_for(browser, "the question", lambda: "2" in text(browser, "#question-text"))
    browser.find_element(By.ID, "question-yes").click()
    wait_for(browser, "the hold", lambda: "a <b>list</b>" in text(browser, "#holds"))
    assert forever in text(browser, "#holds")
    wait_for(browser, "its effect", lambda: on_hold in text(browser, row))
    click(browser, "#holds button")
    browser.find_element(By.ID, "question-yes").click()
    wait_for(browser, "nothing again", lambda: text(browser, "#holds-note") == nothing)
    wait_for(browser, "let go", lambda: on_hold not in text(browser, row))
