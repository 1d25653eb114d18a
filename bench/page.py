"""How soon does the dashboard show something at 1,000,000 messages?

The receiver is out of reach, so that everything waits. One browser, signed in, loads the page again
and again, as after pressing reload, the first time as soon as the engine is ready. Times run from
the navigation to the browser's first paint with content, to the first totals, and to the table of
waiting mail. The engine and the browser share the machine.
"""

import statistics
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By

from bench import rig
from bench.chromium import has_chromium, open_browser
from bench.report import Report
from engine.rehearsal.engine_process import Credentials, EngineFailed, EngineProcess

SIZES = {"queued": (1_000_000,), "destinations": (10_000,), "loads": (9,)}

# The marks that the page sets, beside what the browser measures itself.
MOMENTS = {
    "first-contentful-paint": "first paint",
    "eilpost-totals": "totals shown",
    "eilpost-waiting": "waiting mail shown",
}
PATIENCE_S = (
    120.0  # An engine that has just been started tries ten thousand dead destinations first.
)
POLL_S = 0.05
LOOK = """
return Object.fromEntries([...performance.getEntriesByType("paint"),
  ...performance.getEntriesByType("mark")].map((each) => [each.name, each.startTime]));
"""


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    if not has_chromium():
        raise EngineFailed("needs Debian packages chromium and chromium-driver")
    for case in rig.cases(sizes):
        _measure(directory, report, **case)


def _measure(directory: Path, report: Report, queued: int, destinations: int, loads: int) -> None:
    case = f"{queued} queued, {destinations} destinations, {loads} loads"
    place = directory / f"page-{queued}-{destinations}"
    with rig.waiting(place, report, queued=queued, destinations=destinations) as waiting:
        browser = open_browser(directory / "profile", languages="en", size="1280,900")
        try:
            seen = _load(browser, *waiting, loads)
        finally:
            browser.quit()
    for mark, name in MOMENTS.items():
        times_ms = [each[mark] for each in seen]
        report.add(case, f"{name}, median", statistics.median(times_ms), "ms")
        report.add(case, f"{name}, slowest", max(times_ms), "ms")
        report.add(case, f"{name}, right after the start", times_ms[0], "ms")


def _load(
    browser: webdriver.Chrome, engine: EngineProcess, credentials: Credentials, loads: int
) -> list[dict[str, float]]:
    """Return the moments of each load, in milliseconds from its navigation."""
    browser.get(engine.url)
    browser.find_element(By.NAME, "key").send_keys(credentials.api_key)
    browser.find_element(By.NAME, "secret").send_keys(credentials.secret_key)
    browser.find_element(By.CSS_SELECTOR, "#sign-in-form button").click()
    seen = []
    for _ in range(loads):
        browser.refresh()
        seen.append(_wait_until_shown(browser))
    return seen


def _wait_until_shown(browser: webdriver.Chrome) -> dict[str, float]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        moments: dict[str, float] = browser.execute_script(LOOK)
        if moments.keys() >= MOMENTS.keys():
            return moments
        if time.monotonic() > deadline:
            raise EngineFailed(f"the page shows only {sorted(moments)} after {PATIENCE_S:.0f} s")
        time.sleep(POLL_S)
