"""Which adapter a URL opens, and what is said if there is none."""

import random
from pathlib import Path

import pytest

from engine.spool import open_spool
from engine.spool.interface import SpoolSettings, SpoolUnusable
from tests.spool import harness as h


async def opened_with(url: str, data_dir: Path) -> list[str]:
    """Open, add one account, and return the names of all."""
    async with open_spool(
        url,
        data_dir,
        settings=SpoolSettings(disk_free_bytes_min=0),
        clock=h.SettableClock(),
        run_blocking=h.run_inline,
        random=random.Random(),
    ) as spool:
        await h.make_account(spool, f"account-{len(await spool.accounts())}")
        return [each.name for each in await spool.accounts()]


@pytest.mark.parametrize(
    ("url", "outlives"), [("memory:", False), ("memory:open-test", True), ("lmdb:", True)]
)
async def test_a_url_opens_its_adapter(url: str, outlives: bool, tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    assert await opened_with(url, data_dir) == ["account-0"]
    names = ["account-0", "account-1"] if outlives else ["account-0"]
    assert await opened_with(url, data_dir) == names
    assert data_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("url", ["", "postgresql://host/db", "LMDB:", "lmdb2:"])
async def test_an_unknown_url_is_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(SpoolUnusable, match=f"spool.url: no adapter for '{url}'"):
        await opened_with(url, tmp_path)


@pytest.mark.parametrize("url", ["memory:", "lmdb:"])
async def test_a_directory_that_cannot_be_made_is_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SpoolUnusable, match="Not a directory") as caught:
        await opened_with(url, tmp_path / "file" / "data")
    assert str(tmp_path / "file") in str(caught.value)
