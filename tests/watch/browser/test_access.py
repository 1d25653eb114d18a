"""By keyboard alone, by ear, with little contrast sense, and with ten thousand destinations."""

from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from engine.rehearsal.engine_process import EngineProcess
from tests.watch.browser.browsing import (
    send,
    sign_in_as_operator,
    text,
    wait_for,
    wait_until_live,
)

# What a reader of WCAG 2.1 would look at first, of everything that can be seen.
CHECK = """
const seen = (each) => each.checkVisibility({ visibilityProperty: true });
const name = (each) => (each.ariaLabel ?? "") + (each.labels?.[0]?.textContent ?? "")
  + (each.getAttribute("aria-labelledby") ?? "").split(" ").filter(Boolean)
    .map((id) => document.getElementById(id)?.textContent ?? "").join("")
  + (["A", "BUTTON", "SUMMARY"].includes(each.tagName) ? each.textContent : "");
const faults = [];
const told = (each, what) => faults.push(`${what}: ${each.outerHTML.slice(0, 120)}`);
const controls = "a[href], button, input, select, textarea, summary, [tabindex='0'], progress";
for (const each of document.querySelectorAll(controls)) {
  if (seen(each) && !name(each).trim()) told(each, "no name");
}
const parts = "[role=img], [role=region], [role=group], aside, dialog";
for (const each of document.querySelectorAll(parts)) {
  if (seen(each) && !name(each).trim()) told(each, "no name");
}
const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
if (new Set(ids).size !== ids.length) faults.push("an id is there twice");
for (const each of document.querySelectorAll("th")) if (!each.scope) told(each, "no scope");
let level = 1;
for (const each of document.querySelectorAll("h1, h2, h3, h4")) {
  if (!seen(each)) continue;
  if (Number(each.tagName[1]) > level + 1) told(each, "a level of headings is left out");
  level = Number(each.tagName[1]);
}
const light = ([r, g, b]) => [r, g, b].map((each) => each / 255)
  .map((each) => (each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
  .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const ground = (each) => {
  for (let at = each; at; at = at.parentElement) {
    const color = rgb(getComputedStyle(at).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
  return [255, 255, 255];
};
for (const each of document.querySelectorAll("body *")) {
  const own = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !seen(each) || each.disabled) continue;
  const [a, b] = [light(rgb(getComputedStyle(each).color)), light(ground(each))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < 4.5) told(each, `contrast ${contrast.toFixed(2)}`);
}
if (document.documentElement.scrollWidth > innerWidth) faults.push("the page scrolls sideways");
return faults;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_headings_and_contrast(
    browser: webdriver.Chrome, engine: EngineProcess, scheme: str
) -> None:
    feature: dict[str, Any] = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    browser.get(engine.url)
    assert browser.execute_script(CHECK) == []
    credentials = engine.create_account("shop")
    addresses = ("ann@good.test", "later@full.test", "nobody@good.test", "x@down.test")
    send(engine, credentials, *addresses, *(f"u{n}@slow.test" for n in range(9)))
    sign_in_as_operator(browser, engine)
    wait_for(browser, "unreachable", lambda: "unreachable" in text(browser, "#waiting"))
    wait_for(browser, "throttled", lambda: "slow.test" in text(browser, "#throttles"))
    wait_for(browser, "chart", lambda: text(browser, "#chart-legend .accepted strong"))
    browser.execute_script(
        "for (const each of document.querySelectorAll('details')) each.open = true"
    )
    browser.find_element(By.NAME, "query").send_keys("later@full.test", Keys.ENTER)
    wait_for(browser, "story", lambda: "hello" in text(browser, "#story-title"))
    assert browser.execute_script(CHECK) == []
    browser.set_window_size(500, 900)
    assert browser.execute_script(CHECK) == [], "on a telephone"


def test_everything_is_reached_by_keyboard(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    credentials = engine.create_account("shop")
    send(engine, credentials, "x@down.test", "later@full.test")
    browser.get(engine.url)

    def press(*keys: str) -> None:
        webdriver.ActionChains(browser).send_keys(*keys).perform()

    def focused() -> str:
        told: str = browser.execute_script(
            "const e = document.activeElement; return e.id || e.name || e.textContent"
        )
        return told

    def tab_to(wanted: str) -> None:
        for _ in range(60):
            if focused() == wanted:
                return
            press(Keys.TAB)
        raise AssertionError(f"sixty tabs do not reach {wanted!r}")

    press(Keys.TAB)
    assert focused() == "Skip to content"
    tab_to("key")
    press(credentials.api_key, Keys.TAB, credentials.secret_key, Keys.ENTER)
    wait_until_live(browser)
    wait_for(browser, "a row", lambda: "down.test" in text(browser, "#waiting"))
    tab_to("waiting-filter")
    press("down")
    wait_for(browser, "filtered", lambda: "full.test" not in text(browser, "#waiting"))
    tab_to("Since")
    press(Keys.ENTER)
    assert browser.find_element(By.CSS_SELECTOR, "[aria-sort]").text.startswith("Since")
    tab_to("down.test")
    press(Keys.ENTER)
    wait_for(browser, "the detail", lambda: text(browser, "#detail-title") == "Mail to down.test")
    wait_for(browser, "focus in it", lambda: focused() == "detail-title")
    tab_to("Try now")
    press(Keys.ENTER)
    wait_for(browser, "the question", lambda: focused() == "question-yes")
    press(Keys.ESCAPE)
    wait_for(browser, "focus back", lambda: focused() == "Try now")
    assert "mails are tried" not in text(browser, "#detail"), "to go back changes nothing"
    press(Keys.ESCAPE)
    assert focused() == "down.test", "the focus is where it was"
    assert not browser.find_element(By.ID, "detail").is_displayed()


TEN_THOUSAND = """
const done = arguments[0];
const row = (n, queued) => ({
  destination: `d${n}.example`, site: "", queued, deferred: 0, paused: 0, state: "unreachable",
  held_by: { code: "destination_unreachable" }, since: "2026-11-24T09:30:00.000Z",
  last_reply: "451 4.4.1 no connection", reason: "connection",
  next_attempt_at: "2026-11-24T09:35:00.000Z", rate_per_s: 0, connections: 0 });
const many = (length, make) => Array.from({ length }, (_, n) => make(n));
const shown = () => [...document.querySelectorAll("#waiting tr")].map((e) => e.dataset.destination);
import("/assets/waiting.js").then(({ WaitingTable }) => {
  const table = new WaitingTable(() => {});
  table.speak();
  const seen = {};
  table.take(many(10000, (n) => row(n, n + 1)), true);
  table.draw();
  seen.first = shown();
  seen.note = document.getElementById("waiting-more").textContent;
  const watcher = new MutationObserver(() => {});
  watcher.observe(document.getElementById("waiting"), { childList: true, subtree: true });
  for (let round = 1; round <= 20; round += 1) {
    table.take(many(2000, (n) => row(n * 5, n * 5 + 1)), false);
    table.draw();
  }
  seen.touched = watcher.takeRecords().length;
  table.take(many(10000, (n) => row(n, n + 1)), true); // The engine was away.
  table.draw();
  document.getElementById("waiting-next").click();
  seen.second = shown();
  const filter = document.getElementById("waiting-filter");
  filter.value = "d123";
  filter.dispatchEvent(new Event("input"));
  seen.filtered = shown();
  filter.value = "";
  table.take(many(2, (n) => row(n, n + 1)), true);
  table.draw();
  seen.after = shown();
  done(seen);
});
"""


def test_ten_thousand_destinations(browser: webdriver.Chrome, engine: EngineProcess) -> None:
    """Frames as the engine sends them: a snapshot, then a fifth of it again and again."""
    browser.get(engine.url)
    seen = browser.execute_async_script(TEN_THOUSAND)
    assert seen["note"] == "1–100 of 10,000 destinations"
    assert seen["first"] == [f"d{n}.example" for n in range(9_999, 9_899, -1)]
    assert len(seen["second"]) == 100
    assert not {*seen["first"]} & {*seen["second"]}
    assert len(seen["filtered"]) == 11, "d123 and d1230 to d1239"
    assert seen["after"] == ["d1.example", "d0.example"], "a snapshot leaves nothing of the last"
    assert seen["touched"] == 0, "what is shown already is left alone"
