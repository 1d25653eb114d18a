"""What lies on the disk is damaged, cut, or something else: said at the start, or contained."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from engine.rehearsal.engine_process import EngineProcess
from engine.spool.lmdb_layout import Tables
from tests.scenarios.counting_receivers import CountingReceivers, routes
from tests.scenarios.refusals import refusal_of
from tests.scenarios.scene import Scene

pytestmark = pytest.mark.slow

MAILS = 40


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Scene]:
    """A stopped engine with mail that nobody has taken yet."""
    with CountingReceivers() as receivers:
        dead = '[[route]]\ndomain = "*"\nnext_hop = "127.0.0.1:1"\n'
        engine = EngineProcess(tmp_path, "[delivery]\nretry_s = [1]\n" + dead)
        made = Scene(engine, receivers, engine.create_account("shop"))
        engine.start()
        engine.wait_until_ready()
        made.send([f"to{number}@d{number % 5}.fast.test" for number in range(MAILS)])
        assert engine.stop() == 0
        text = engine.config_path.read_text()
        engine.config_path.write_text(text.replace(dead, routes(receivers.port)))
        try:
            yield made
        finally:
            engine.kill()


def test_a_campaign_with_a_damaged_record_comes_to_its_end(stopped: Scene) -> None:
    """It was counted as open for ever; `eilpost send --wait` waited as long."""
    place = stopped.engine.directory
    (place / "list.csv").write_text("email\nann@one.fast.test\nbob@two.fast.test\n")
    (place / "text.txt").write_text("Hello")
    command = [
        *("send", "--account", "shop", "--campaign", "spring", "--from", "shop@sender.test"),
        *("--subject", "Hi", "--text", str(place / "text.txt"), str(place / "list.csv")),
    ]
    settings = stopped.engine.config_path.read_text()
    stopped.engine.config_path.write_text(
        settings.replace(
            "[[route]]", '[[route]]\ndomain = "*"\nnext_hop = "127.0.0.1:1"\n\n[[route]]', 1
        )
    )
    stopped.engine.start()
    stopped.engine.wait_until_ready()
    stopped.engine.run(*command)
    (victim,) = stopped.get("/v1/messages?address=ann@one.fast.test")["messages"]
    assert stopped.engine.stop() == 0
    flip_a_bit(place / "data" / "spool", "envelope", victim["message_id"])
    stopped.engine.config_path.write_text(settings)
    stopped.engine.start()
    stopped.engine.wait_until_ready()
    told = json.loads(stopped.engine.run(*command, "--wait", "--json"))
    assert (told["repeated"], told["counts"]["soft_bounced"]) == (2, 1)
    assert told["counts"]["queued"] + told["counts"]["deferred"] == 0
    story = stopped.message(victim["message_id"])
    assert (story["status"], story["reason"]) == ("soft_bounced", "other")
    assert story["reply"] == "554 5.3.0 (the stored record of this mail is damaged)"
    assert [each["status"] for each in story["history"]][-1] == "soft_bounced"
    explained = stopped.get(f"/v1/messages/{victim['message_id']}/explain")
    assert (explained["held_by"], explained["reply"]) == (None, story["reply"])
    assert stopped.wait_until_final()["soft_bounced"] == 1
    assert "ann@one.fast.test" not in stopped.delivered()


def flip_a_bit(spool: Path, table: str, number: int) -> None:
    with (
        lmdb.open(str(spool), max_dbs=len(Tables.NAMES), map_size=1 << 30, lib_version=0) as env,
        env.begin(write=True) as txn,
    ):
        database = env.open_db(table.encode(), txn=txn, create=False)
        key = number.to_bytes(8, "big")
        stored = bytearray(txn.get(key, b"", db=database))
        stored[len(stored) // 2] ^= 1
        txn.put(key, bytes(stored), db=database)


def data_file(scene: Scene) -> Path:
    return scene.engine.directory / "data" / "spool" / "data.mdb"


def cut_in_half(file: Path) -> None:
    octets = file.read_bytes()
    file.write_bytes(octets[: len(octets) // 2])


def spoil_meta_pages(file: Path) -> None:
    octets = bytearray(file.read_bytes())
    for page in (0, 4096):
        octets[page : page + 64] = b"\xa5" * 64
    file.write_bytes(octets)


def replace_by_text(file: Path) -> None:
    file.write_text("To whom it may concern.\n" * 1000)


@pytest.mark.parametrize("damage", [cut_in_half, spoil_meta_pages, replace_by_text])
def test_a_file_that_is_no_whole_spool_is_refused_and_left_alone(
    stopped: Scene, damage: Callable[[Path], None]
) -> None:
    file = data_file(stopped)
    whole = file.with_name("whole")
    shutil.copy(file, whole)
    damage(file)
    damaged = file.read_bytes()
    assert str(file) in refusal_of(stopped.engine)
    assert file.read_bytes() == damaged, "who wants to repair it finds it as it was"
    # From the copy that was made in time, everything is delivered.
    whole.replace(file)
    stopped.engine.start()
    stopped.engine.wait_until_ready()
    assert stopped.wait_until_final() == {"delivered": MAILS}
    assert len(set(stopped.delivered())) == MAILS


def test_a_flipped_bit_costs_one_mail_and_is_reported(stopped: Scene) -> None:
    """In the text of one mail, wherever a page has it; the mail must not go out like that."""
    file = data_file(stopped)
    octets = bytearray(file.read_bytes())
    victim = "to7@d2.fast.test"
    places = [found.start() for found in re.finditer(b"for " + victim.encode(), octets)]
    assert places
    for place in places:
        octets[place] ^= 0x01
    file.write_bytes(octets)
    stopped.engine.start()
    stopped.engine.wait_until_ready()
    counts = stopped.wait_until_final()
    assert counts == {"delivered": MAILS - 1, "soft_bounced": 1}
    assert victim not in stopped.delivered()
    assert len(stopped.delivered()) == MAILS - 1
    (message,) = stopped.get(f"/v1/messages?address={victim}")["messages"]
    assert "damaged" in message["reply"]
    assert "damaged" in stopped.written()
    assert stopped.engine.stop() == 0
    assert "Traceback" not in stopped.written()
