"""Campaigns: how far each is, and pausing, resuming and cancelling it, in both languages."""

from collections.abc import Callable
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from engine.rehearsal.engine_process import Credentials, EngineProcess
from tests.watch.browser.browsing import (
    call,
    click,
    send,
    sign_in,
    sign_in_as_operator,
    text,
    wait_for,
)

WORDS = {
    "en": (
        "2 of 4 through, 1 delivered",
        "50%",
        "paused",
        "Its waiting mail is never sent.",
        "through",
    ),
    "de": (
        "2 von 4 fertig, 1 zugestellt",
        "50 %",
        "pausiert",
        "Ihre wartende Mail wird nie gesendet.",
        "fertig",
    ),
}
ROW = "#campaigns tr"


def deed(name: str) -> str:
    return f'{ROW} button[data-deed="{name}"]'


def is_shown(browser: webdriver.Chrome, css: str) -> bool:
    found = browser.find_elements(By.CSS_SELECTOR, css)
    return bool(found) and found[0].is_displayed()


def send_spring(engine: EngineProcess, credentials: Credentials) -> None:
    addresses = ("ann@good.test", "nobody@good.test", "a@down.test", "later@full.test")
    send(engine, credentials, *addresses, CustomCampaign="spring & more/2026?")


@pytest.mark.parametrize("language", WORDS)
def test_a_campaign_is_followed_paused_resumed_and_cancelled(
    browse: Callable[..., webdriver.Chrome], engine: EngineProcess, language: str
) -> None:
    progress, share, paused, never, through = WORDS[language]
    browser = browse(language)
    credentials = engine.create_account("shop")
    send_spring(engine, credentials)
    sign_in(browser, engine, credentials)
    wait_for(browser, "the progress", lambda: progress in text(browser, ROW))
    assert "spring & more/2026?" in text(browser, ROW)
    assert share in text(browser, ROW).replace("\xa0", " ")
    bar = browser.find_element(By.CSS_SELECTOR, f"{ROW} progress")
    assert float(bar.get_attribute("value") or 0) == 0.5
    assert "spring & more/2026?" in (bar.accessible_name or "")

    click(browser, deed("pause"))
    browser.find_element(By.ID, "question-no").click()
    click(browser, deed("pause"))
    browser.find_element(By.ID, "question-yes").click()
    wait_for(browser, "paused", lambda: text(browser, f"{ROW} .badge") == paused)
    assert is_shown(browser, deed("resume"))
    assert not is_shown(browser, deed("pause"))
    assert len(holds(engine, credentials)) == 1
    wait_for(browser, "the hold", lambda: "spring & more/2026?" in text(browser, "#holds"))
    click(browser, deed("resume"))
    browser.find_element(By.ID, "question-yes").click()
    wait_for(browser, "resumed", lambda: is_shown(browser, deed("pause")))
    assert holds(engine, credentials) == []

    click(browser, deed("cancel"))
    assert never in text(browser, "#question-text")
    assert browser.switch_to.active_element.get_attribute("id") == "question-no"
    browser.find_element(By.ID, "question-yes").click()
    wait_for(browser, "through", lambda: text(browser, f"{ROW} td:nth-of-type(4)") == through)
    assert not is_shown(browser, deed("cancel"))
    wait_for(browser, "cancelled", lambda: text(browser, '[data-total="blocked"] dd') == "2")


def holds(engine: EngineProcess, credentials: Credentials) -> list[Any]:
    found: list[Any] = call(engine, credentials, "GET", "/v1/holds")["holds"]
    return found


def test_an_operator_pauses_the_right_accounts_campaign(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    first, second = engine.create_account("first"), engine.create_account("second")
    for credentials in (first, second):
        send_spring(engine, credentials)
    sign_in_as_operator(browser, engine)
    wait_for(browser, "both", lambda: "first" in text(browser, "#campaigns"))
    wait_for(browser, "both", lambda: "second" in text(browser, "#campaigns"))
    row = next(
        each
        for each in browser.find_elements(By.CSS_SELECTOR, "#campaigns tr")
        if "second" in each.text
    )
    row.find_element(By.CSS_SELECTOR, '[data-deed="pause"]').click()
    browser.find_element(By.ID, "question-yes").click()
    wait_for(browser, "paused", lambda: text(browser, "#campaigns .state-throttled") == "paused")
    assert call(engine, second, "GET", "/v1/campaigns")["campaigns"][0]["state"] == "paused"
    assert call(engine, first, "GET", "/v1/campaigns")["campaigns"][0]["state"] is None


def test_a_forecast_is_shown_while_mail_flows(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    credentials = engine.create_account("shop")
    send(engine, credentials, *(f"u{n}@down.test" for n in range(3)), CustomCampaign="spring")
    sign_in(browser, engine, credentials)
    wait_for(browser, "honesty", lambda: "nobody can tell for 3" in text(browser, ROW))
    click(browser, f"{ROW} th button")
    wait_for(browser, "where", lambda: "down.test" in text(browser, "#detail .mails"))
    assert text(browser, "#detail-title") == "Campaign spring"
    assert text(browser, "#campaign-forecast")
    assert "unreachable3" in text(browser, "#detail .facts")
    click(browser, "#detail .mails button")
    wait_for(browser, "why", lambda: "cannot be reached" in text(browser, "#destination-why"))
    browser.find_element(By.ID, "detail-back").click()
    wait_for(browser, "back", lambda: text(browser, "#detail-title") == "Campaign spring")
