"""The provider of each sentence, and browsers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.chromium import has_chromium
from tests.article.provider import Provider, provider
from tests.watch.browser.conftest import browse, browser

__all__ = ["browse", "browser"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if not item.path.is_relative_to(here):
            continue
        item.add_marker(pytest.mark.slow)
        if {"browse", "browser"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(
                pytest.mark.skipif(
                    not has_chromium(), reason="needs Debian packages chromium and chromium-driver"
                )
            )


@pytest.fixture
def our_provider(tmp_path: Path) -> Iterator[Provider]:
    with provider(tmp_path) as running:
        yield running
