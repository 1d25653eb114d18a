"""Finding a mail, and what its story says, in both languages; what waits at one destination."""

from collections.abc import Callable
from functools import partial

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from engine.rehearsal.engine_process import Credentials, EngineProcess
from tests.watch.browser.browsing import call, click, complaints, send, sign_in, text, wait_for

WORDS = {
    "en-US,en": {
        "pending": "sent (pending)",
        "delivered": "delivered",
        "why": "The last attempt failed (mailbox full)",
        "advice": "Ask the recipient to make room",
        "reason": "mailbox full",
        "nothing": "No mail matches.",
        "waits": "Your account",
    },
    "de-AT,de": {
        "pending": "gesendet (ausstehend)",
        "delivered": "zugestellt",
        "why": "ist gescheitert",
        "advice": "Platz zu schaffen",
        "reason": "Postfach voll",
        "nothing": "Keine Mail passt.",
        "waits": "Ihr Konto",
    },
}


def search(browser: webdriver.Chrome, query: str) -> None:
    box = browser.find_element(By.NAME, "query")
    box.clear()
    box.send_keys(query, Keys.ENTER)


@pytest.mark.parametrize("languages", WORDS)
def test_one_mail_is_found_and_its_story_told(
    browse: Callable[..., webdriver.Chrome], engine: EngineProcess, languages: str
) -> None:
    words, browser = WORDS[languages], browse(languages)
    credentials = engine.create_account("shop")
    [message_id] = send(engine, credentials, "later@full.test", Subject="Order 4711 & <more>")
    sign_in(browser, engine, credentials)
    wait_for(browser, "totals", lambda: text(browser, '[data-total="pending"] dt'))
    assert text(browser, '[data-total="pending"] dt') == words["pending"]
    assert text(browser, '[data-total="delivered"] dt') == words["delivered"]
    assert text(browser, "#who") == words["waits"]

    search(browser, "later@full.test")
    wait_for(browser, "story", lambda: words["reason"] in text(browser, "#story-events"))
    assert text(browser, "#story-title") == "Order 4711 & <more>"
    assert words["pending"] in text(browser, "#story-now")
    assert words["why"] in text(browser, "#story-why")
    assert words["advice"] in text(browser, "#story-advice")
    assert "<b>mailbox</b> full" in text(browser, "#story-facts")
    assert browser.switch_to.active_element.get_attribute("id") == "detail-title"
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not browser.find_element(By.ID, "detail").is_displayed()
    assert browser.switch_to.active_element.get_attribute("name") == "query", "the focus is back"

    search(browser, str(message_id))
    wait_for(browser, "the id", lambda: browser.find_element(By.ID, "detail").is_displayed())
    assert "later@full.test" in text(browser, "#found")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    search(browser, "nobody@else.test")
    wait_for(browser, "nothing", lambda: text(browser, "#search-note") == words["nothing"])
    search(browser, "Order 4711 & <more>")
    wait_for(browser, "the subject", lambda: browser.find_element(By.ID, "detail").is_displayed())
    assert "later@full.test" in text(browser, "#found")


def test_the_language_is_the_browsers_first_that_we_have_until_one_is_chosen(
    browse: Callable[..., webdriver.Chrome], engine: EngineProcess
) -> None:
    def opened(languages: str) -> webdriver.Chrome:
        browser = browse(languages)
        browser.get(engine.url)
        return browser

    assert text(opened("fr,en,de"), "#sign-in-title") == "Sign in"
    assert text(opened("fr,de,en"), "#sign-in-title") == "Anmelden"
    browser = opened("fr")
    assert text(browser, "#sign-in-title") == "Sign in"
    browser.find_element(By.ID, "language").click()
    assert text(browser, "#sign-in-title") == "Anmelden"
    assert browser.execute_script("return document.documentElement.lang") == "de"
    browser.refresh()
    assert text(browser, "#sign-in-title") == "Anmelden", "the choice is remembered"
    credentials = engine.create_account("shop")
    [message_id] = send(engine, credentials, "later@full.test")
    sign_in(browser, engine, credentials)
    search(browser, str(message_id))
    wait_for(browser, "German", lambda: "ist gescheitert" in text(browser, "#story-why"))
    browser.find_element(By.ID, "language").click()
    wait_for(browser, "English", lambda: "The last attempt failed" in text(browser, "#story-why"))
    assert text(browser, '[data-total="pending"] dt') == "sent (pending)"
    browser.find_element(By.ID, "sign-out").click()
    assert text(browser, "#sign-in-title") == "Sign in", "signing out keeps the language"


def test_both_languages_say_the_same_things(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    browser.get(engine.url)
    english, german, used = browser.execute_async_script(
        """
        const done = arguments[0];
        const kinds = (words) => Object.entries(words).flatMap(([name, value]) =>
          typeof value === "object" ? kinds(value).map((each) => `${name}.${each}`)
            : [`${name}:${typeof value}`]);
        const used = [...document.querySelectorAll("[data-word], [data-label]")]
          .map((each) => each.dataset.word ?? each.dataset.label);
        Promise.all([import("/assets/words_en.js"), import("/assets/words_de.js")])
          .then(([en, de]) => done([kinds(en.english), kinds(de.german), used]));
        """
    )
    assert english == german
    assert set(used) <= {each.partition(":")[0] for each in english}


def test_a_destination_is_looked_at_closely_and_tried_now(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    credentials = engine.create_account("shop")
    send(engine, credentials, "a@down.test", "b@down.test")
    sign_in(browser, engine, credentials)
    row = '#waiting tr[data-destination="down.test"]'
    wait_for(browser, "unreachable", lambda: "unreachable (no connection)" in text(browser, row))
    before = text(browser, f"{row} td:nth-of-type(5)")
    click(browser, f"{row} button")
    wait_for(browser, "why", lambda: "cannot be reached" in text(browser, "#destination-why"))
    assert "a@down.test" in text(browser, "#detail .mails")
    browser.find_element(By.CSS_SELECTOR, "#detail-body .choice button").click()
    browser.find_element(By.ID, "question-yes").click()
    wait_for(
        browser, "tried", lambda: "2 mails are tried" in text(browser, "#detail [role=status]")
    )
    # Nobody is there, and its next attempt is when it was.
    wait_for(browser, "as before", lambda: text(browser, f"{row} td:nth-of-type(5)") == before)
    click(browser, "#detail .mails button")
    wait_for(browser, "its mail's story", lambda: "hello" in text(browser, "#story-title"))
    browser.find_element(By.ID, "detail-back").click()
    wait_for(browser, "back", lambda: text(browser, "#detail-title") == "Mail to down.test")


@pytest.mark.parametrize(
    ("language", "full", "room", "grey"),
    [
        ("en", "mailbox full", "Ask these recipients to make room", "greylisting"),
        ("de", "Postfach voll", "Platz zu schaffen", "Greylisting"),
    ],
)
def test_a_destination_says_what_its_mails_wait_for(
    browse: Callable[..., webdriver.Chrome],
    engine: EngineProcess,
    language: str,
    full: str,
    room: str,
    grey: str,
) -> None:
    browser = browse(language)
    credentials = engine.create_account("shop")
    send(engine, credentials, "later1@x.test", "later2@x.test", "grey@x.test")
    sign_in(browser, engine, credentials)
    row = '#waiting tr[data-destination="x.test"]'
    wait_for(browser, "all are put off", lambda: counted(engine, credentials) == 3)
    wait_for(browser, "its row", lambda: browser.find_elements(By.CSS_SELECTOR, row))
    click(browser, f"{row} button")
    causes = "#destination-causes"
    wait_for(browser, "the causes", lambda: grey in text(browser, causes))
    told = [each.text for each in browser.find_elements(By.CSS_SELECTOR, f"{causes} li")]
    assert told[0].startswith("2 ")
    assert f"({full})" in told[0]
    assert "452 4.2.2 <b>mailbox</b> full" in told[0]
    assert room in told[0]
    assert told[1].startswith("1 ")
    assert "450 4.7.1 Greylisted" in told[1]
    assert complaints(browser) == []


def counted(engine: EngineProcess, credentials: Credentials) -> int:
    """Say how many mails were put off."""
    [row] = call(engine, credentials, "GET", "/v1/statistics")["rows"]
    deferred: int = row["deferred"]
    return deferred


def test_an_open_story_goes_on(browser: webdriver.Chrome, engine: EngineProcess) -> None:
    credentials = engine.create_account("shop")
    [message_id] = send(engine, credentials, "x@down.test")
    sign_in(browser, engine, credentials)
    search(browser, str(message_id))
    wait_for(browser, "the story", lambda: "sent (pending)" in text(browser, "#story-now"))
    call(engine, credentials, "POST", "/v1/cancel", {"destination": "down.test"})
    wait_for(browser, "its end", lambda: "This is final." in text(browser, "#story-now"))
    assert "cancelled" in text(browser, "#story-events")


def test_domains_and_addresses_are_found_as_people_write_them(
    engine: EngineProcess, browser: webdriver.Chrome
) -> None:
    keys = engine.create_account("shop")
    send(engine, keys, "later.Ann@bücher.test", "bob@shop.test")
    send(engine, keys, "bob@shop.test", Subject="the file bill.pdf")
    sign_in(browser, engine, keys)
    wait_for(browser, "it as people read it", lambda: "bücher.test" in text(browser, "#waiting"))
    assert "xn--" not in text(browser, "#waiting")
    for query, count in (
        (
            "LATER.ann@BÜCHER.test",
            0,
        ),  # The receiver's part keeps its capitals but where it has none.
        ("later.Ann@xn--bcher-kva.test", 1),
        ("later.Ann@BÜCHER.test", 1),
        ("Bücher.test", 1),
        ("@xn--bcher-kva.test", 1),
        ("bill.pdf", 1),
        ("bill.zip", 0),
        ("shop.test", 2),
    ):
        found = f"{count} mail" if count else "No mail matches."
        search(browser, query)
        wait_for(browser, f"{query}: {found}", partial(says, browser, found))
        if count == 1:
            wait_for(browser, "its story", lambda: text(browser, "#detail-title"))
            click(browser, "#detail-close")


def test_in_a_narrow_window_the_panel_begins_below_the_header(
    engine: EngineProcess, browse: Callable[..., webdriver.Chrome]
) -> None:
    keys = engine.create_account("shop")
    send(engine, keys, "later@shop.test")
    browser = browse(size="500,800")
    sign_in(browser, engine, keys)
    wait_for(browser, "the mail", lambda: browser.find_elements(By.CSS_SELECTOR, "#found button"))
    click(browser, "#found button")
    wait_for(browser, "its story", lambda: "later@shop.test" in text(browser, "#detail-title"))
    header, title = (
        browser.execute_script(
            f"return document.querySelector('{what}').getBoundingClientRect().toJSON()"
        )
        for what in ("header", "#detail-title")
    )
    assert title["top"] >= header["bottom"]


def says(browser: webdriver.Chrome, start: str) -> bool:
    return text(browser, "#search-note").startswith(start)
