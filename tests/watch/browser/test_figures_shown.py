"""The chart and its table, times to delivery: the same figures for eyes and for screen readers."""

from collections.abc import Callable
from pathlib import Path

import pytest
from selenium import webdriver

from engine.rehearsal.engine_process import EngineProcess
from tests.watch.browser.browsing import click, complaints, send, sign_in, text, wait_for


@pytest.mark.parametrize(
    ("languages", "summary", "step"),
    [
        ("en", "Last hour: 3 accepted, 2 delivered, 0 put off, 1 bounced.", "Mails every minute"),
        (
            "de",
            "Letzte Stunde: 3 angenommen, 2 zugestellt, 0 aufgeschoben, 1 zurückgewiesen.",
            "Mails je Minute",
        ),
    ],
)
def test_the_chart_is_drawn_and_told(
    browse: Callable[..., webdriver.Chrome],
    engine: EngineProcess,
    languages: str,
    summary: str,
    step: str,
) -> None:
    browser = browse(languages)
    credentials = engine.create_account("shop")
    sign_in(browser, engine, credentials)
    send(engine, credentials, "ann@good.test", "bob@good.test", "nobody@good.test")
    wait_for(browser, "the bounce", lambda: text(browser, '[data-total="bounced"] dd') == "1")
    # Another period and back, so as not to wait for the next look.
    click(browser, '[data-period="day"]')
    click(browser, '[data-period="hour"]')

    def label() -> str:
        told: str = browser.execute_script("return document.querySelector('#chart').ariaLabel")
        return told

    wait_for(browser, "the summary", lambda: label() == summary)
    wait_for(browser, "the chart", lambda: drawn_colors(browser) > 3)
    click(browser, "#chart-details summary")
    wait_for(browser, "the table", lambda: text(browser, "#chart-table caption") == step)
    sums = browser.execute_script(
        """
        const rows = [...document.querySelectorAll("#chart-table tbody tr")];
        return [1, 2, 3, 4].map((place) =>
          rows.reduce((sum, row) => sum + Number(row.children[place].textContent), 0));
        """
    )
    assert sums == [3, 2, 0, 1]
    for period in ("day", "month"):
        click(browser, f'[data-period="{period}"]')
        wait_for(browser, period, lambda: text(browser, "#chart-table caption") != step)
        wait_for(browser, period, lambda: "3" in text(browser, "#chart-legend .accepted"))
    assert complaints(browser) == []


def drawn_colors(browser: webdriver.Chrome) -> int:
    """How many different colours there are on the canvas."""
    found: int = browser.execute_script(
        """
        const canvas = document.querySelector("#chart canvas");
        if (!canvas) return 0;
        const pixels = new Uint32Array(
          canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
        return new Set(pixels).size;
        """
    )
    return found


def test_without_the_library_the_table_takes_its_place(
    browser: webdriver.Chrome, engine: EngineProcess
) -> None:
    credentials = engine.create_account("shop")
    send(engine, credentials, "ann@good.test")
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/assets/uplot.js"]})
    sign_in(browser, engine, credentials)
    wait_for(browser, "the note", lambda: "not installed" in text(browser, "#chart-note"))
    wait_for(browser, "the table", lambda: "accepted" in text(browser, "#chart-table thead"))


def test_figures_are_downloaded_as_csv(
    browser: webdriver.Chrome, engine: EngineProcess, tmp_path: Path
) -> None:
    credentials = engine.create_account("shop")
    send(engine, credentials, "ann@good.test", "x@down.test")
    allowed = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    sign_in(browser, engine, credentials)
    wait_for(browser, "figures", lambda: text(browser, "#chart-legend .accepted"))
    click(browser, "#chart-details summary")
    click(browser, "#csv-destinations")
    file = tmp_path / "destinations.csv"
    wait_for(browser, "the file", file.exists)
    wait_for(browser, "all of it", lambda: "down.test,1" in file.read_text(encoding="utf-8-sig"))
    click(browser, "#csv-series")
    wait_for(browser, "the other", (tmp_path / "series.csv").exists)
    assert complaints(browser) == []


def test_times_to_delivery(browser: webdriver.Chrome, engine: EngineProcess) -> None:
    credentials = engine.create_account("shop")
    send(engine, credentials, "ann@good.test", "bob@good.test")
    sign_in(browser, engine, credentials)
    wait_for(browser, "delivered", lambda: text(browser, '[data-total="delivered"] dd') == "2")
    click(browser, "#sign-out")
    sign_in(browser, engine, credentials)
    wait_for(browser, "times", lambda: "good.test" in text(browser, "#times th"))
    cells = browser.execute_script(
        "return [...document.querySelectorAll('#times tr:first-child td')].map((e) => e.innerText)"
    )
    assert cells[0] == "2"
    assert all(each.split()[1] in ("s", "min") for each in cells[1:]), cells
