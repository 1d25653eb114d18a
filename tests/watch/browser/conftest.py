"""A real engine, receivers that answer as a test needs it, and real browsers in any language."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from selenium import webdriver

from bench.chromium import has_chromium, open_browser
from engine.rehearsal.engine_process import EngineProcess, free_port
from tests.watch.browser.browsing import Receiver


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.slow)
            item.add_marker(
                pytest.mark.skipif(
                    not has_chromium(), reason="needs Debian packages chromium and chromium-driver"
                )
            )


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    receiver = Controller(Receiver(), hostname="127.0.0.1", port=free_port())
    receiver.start()
    dead_port = free_port()
    process = EngineProcess(
        tmp_path,
        f"""
        [support]
        contact = "help@out.example"
        [[route]]
        domain = "down.test"
        next_hop = "127.0.0.1:{dead_port}"
        [[route]]
        domain = "*.down.test"
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
def browse(tmp_path: Path) -> Iterator[Callable[..., webdriver.Chrome]]:
    """Open browsers: each call is one with a profile of its own, that wants these languages."""
    opened: list[webdriver.Chrome] = []

    def browse(languages: str = "en-US,en", size: str = "1200,1400") -> webdriver.Chrome:
        profile = tmp_path / f"profile-{len(opened)}"
        opened.append(open_browser(profile, languages=languages, size=size))
        return opened[-1]

    yield browse
    for each in opened:
        each.quit()


@pytest.fixture
def browser(browse: Callable[..., webdriver.Chrome]) -> webdriver.Chrome:
    return browse()
