"""The status page in a real browser: both languages, no script, no other host, the form."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from engine.rehearsal.engine_process import EngineProcess

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="needs Debian packages chromium and chromium-driver",
    ),
]

PATIENCE_S = 30
HOSTILE = '<img src=x onerror="document.title=1337"><script>document.title=1337</script>'


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    process = EngineProcess(tmp_path, '[delivery]\nehlo_name = "out.example"')
    process.start()
    try:
        process.wait_until_ready()
        yield process
    finally:
        process.stop()


@pytest.fixture(params=["en-US", "de-DE"])
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--lang={request.param}",
        f"--accept-lang={request.param}",
        "--window-size=1000,1600",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(argument)
    # As with a browser that runs no scripts at all.
    options.add_experimental_option(
        "prefs", {"profile.managed_default_content_settings.javascript": 2}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


def test_the_page_and_its_form_without_a_script(
    engine: EngineProcess, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    texts = ("--title-de", "Langsam", "--title-en", "Slow", "--de", HOSTILE, "--en", HOSTILE)
    engine.run("status", "open", *texts, "--impact", "major", "--component", "delivery")
    engine.run(
        *("status", "plan", *texts, "--from", "2027-01-01T00:00:00Z"),
        *("--until", "2027-01-01T02:00:00Z", "--component", "disk"),
    )
    engine.run("status", "announce", *texts)
    browser.get(engine.url + "/status")
    language = browser.find_element(By.TAG_NAME, "html").get_attribute("lang")
    is_german = language == "de"
    body = browser.find_element(By.TAG_NAME, "body").text
    for english, german in (
        ("Partial System Outage", "Teilweiser Ausfall"),
        ("Mail intake over HTTP", "Annahme über HTTP"),
        ("Subscribe by e-mail", "Per E-Mail abonnieren"),
    ):
        assert (german if is_german else english) in body
    assert HOSTILE in body
    assert "1337" not in browser.title
    browser.save_screenshot(str(tmp_path / f"status-{language}.png"))

    field = browser.find_element(By.NAME, "address")
    field.send_keys("ann@mail.test", Keys.ENTER)
    title = "Bitte sehen Sie in Ihr Postfach" if is_german else "Please look into your mailbox"
    WebDriverWait(browser, PATIENCE_S).until(lambda _: title in browser.page_source)

    faults = [each for each in browser.get_log("browser") if each["level"] == "SEVERE"]
    assert [each for each in faults if "favicon" not in each["message"]] == []
    asked = {
        event["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if (event := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    }
    elsewhere = {url for url in asked if not url.startswith((engine.url, "chrome://", "data:"))}
    assert elsewhere == set()
