"""The demo with a real engine on a small world, and its book-keeping by itself."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from engine.rehearsal.behaviour import Behaviour
from engine.rehearsal.demo import BookRow, Progress, open_demo
from engine.rehearsal.engine_process import EngineFailed, EngineProcess
from engine.rehearsal.places import Kind, places

BALANCED = BookRow("x.test", "", 5, {"delivered": 3, "hard_bounced": 2}, 3, 0)


def test_a_row_balances_only_if_all_three_counts_agree() -> None:
    assert BALANCED.faults == []
    wrong = {
        "6 handed in, 5 in the books": replace(BALANCED, handed_in=6),
        "3 delivered, 2 received": replace(BALANCED, received=2),
        "1 received more than once": replace(BALANCED, received_again=1),
        "2 not finished": replace(BALANCED, counts={"delivered": 3, "deferred": 2}),
    }
    for fault, row in wrong.items():
        assert row.faults == [fault]


def test_progress_tells_waiting_from_finished() -> None:
    counts = {"queued": 4, "deferred": 2, "delivered": 10, "soft_bounced": 1}
    progress = Progress(20, 17, counts, 1.0)
    assert (progress.waiting, progress.finished) == (6, 11)


@pytest.mark.slow
async def test_a_small_world_is_served_and_the_books_balance(tmp_path: Path) -> None:
    world = (
        Kind("fast", 3, 30, "", Behaviour()),
        Kind("busy", 1, 10, "", Behaviour(rate_per_s=40.0, rate_burst=10)),
        Kind("grey", 1, 10, "", Behaviour(greylist_s=0.3)),
        Kind("down", 1, 10, "", Behaviour(down_s=((0.0, 1.5),))),
        Kind("full", 1, 10, "", Behaviour(full_share=0.5, full_until_s=2.0)),
        Kind("strangers", 1, 10, "", Behaviour(unknown_share=0.5)),
        Kind("nomail", 1, 5, "", None),
        Kind("nowhere", 1, 5, "", None),
    )
    shown: list[Progress] = []
    async with open_demo(tmp_path, all_places=places(world)) as demo:
        assert "#token=" in demo.engine.operator_url()
        books = await demo.run(300, shown.append)
        last_words = demo.engine.output_path.read_text()
    assert [fault for row in books for fault in row.faults] == []
    assert sum(row.handed_in for row in books) == shown[-1].accepted == shown[-1].finished == 300
    counts = {row.domain: row.counts for row in books}
    for gone in ("nomail-01.demo.test", "nowhere-01.demo.test"):
        assert counts[gone]["hard_bounced"] == sum(counts[gone].values()) > 0
    assert counts["strangers-01.demo.test"]["hard_bounced"] > 0
    assert counts["down-01.demo.test"]["delivered"] == sum(counts["down-01.demo.test"].values())
    assert "Traceback" not in last_words


@pytest.mark.slow
async def test_an_engine_that_dies_is_told_with_its_words(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, '[delivery]\nretry_s = "soon"\n')
    engine.start()
    with pytest.raises(EngineFailed, match="retry_s"):
        await trio.to_thread.run_sync(engine.wait_until_ready)


@pytest.mark.slow
def test_the_command_refuses_a_directory_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    command = [sys.executable, "-c", "from engine.cli import main; main()", "demo"]
    arguments = ["--data-dir", str(tmp_path), "--json"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert json.dumps(done.stdout) == '""'
