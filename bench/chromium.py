"""Debian's Chromium, headless and silent: for the page's bench and its tests.

Without these arguments it looks for hosts outside: updates, its own services, QUIC.
"""

import shutil
from pathlib import Path

from selenium import webdriver

PROGRAM = "/usr/bin/chromium"
DRIVER = "/usr/bin/chromedriver"


def has_chromium() -> bool:
    return shutil.which(PROGRAM) is not None and shutil.which(DRIVER) is not None


def open_browser(profile: Path, *, languages: str, size: str) -> webdriver.Chrome:
    """Open it with an empty profile that wants `languages` ("de-AT,de"); `size` is "1200,1400".

    It keeps what its console says and what it requested. The caller quits it.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAM
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--window-size={size}",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"intl.accept_languages": languages})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
