"""`eilpost shaping` with a running engine: rules taken over, refused as a whole, and overruled."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.rehearsal.engine_process import EngineFailed, EngineProcess

pytestmark = pytest.mark.slow

RULE = '[[rule]]\ndestination = "a.test"\nrate = "1/s"\n'


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    (tmp_path / "rules.toml").write_text(RULE)
    process = EngineProcess(tmp_path, '[shaping]\ndefaults = false\nfiles = ["rules.toml"]\n')
    process.start()
    process.wait_until_ready()
    try:
        yield process
    finally:
        process.stop()


def test_rules_are_taken_over_while_it_runs_or_refused_as_a_whole(engine: EngineProcess) -> None:
    rules = engine.directory / "rules.toml"
    assert json.loads(engine.run("shaping", "reload", "--json")) == {"rules": 1, "reactions": 0}
    rules.write_text(RULE + '[[rule]]\ndestination = "b.test"\nrate = "2/s"\n')
    assert json.loads(engine.run("shaping", "reload", "--json")) == {"rules": 2, "reactions": 0}
    rules.write_text(RULE + '\n[[rule]]\ndestination = "b.test"\nrate = "2"\n')
    with pytest.raises(EngineFailed, match=r"rules\.toml:7: \[\[rule\]\] 2 rate: expected a rate"):
        engine.run("shaping", "reload")
    engine.check_alive()


def test_sighup_takes_rules_over_and_a_broken_file_ends_nothing(engine: EngineProcess) -> None:
    for text, said in (("rate = [", "rules.toml: no TOML"), (RULE, "1 shaping rules, 0 reactions")):
        (engine.directory / "rules.toml").write_text(text)
        os.kill(engine.pid, signal.SIGHUP)
        while said not in engine.output_path.read_text():
            engine.check_alive()
    engine.check_alive()


def test_what_is_not_known_cannot_be_overruled(engine: EngineProcess) -> None:
    assert engine.run("shaping", "audit").strip() == "Nothing was learned yet."
    for word in ("undo", "pin", "unpin"):
        with pytest.raises(EngineFailed, match=r"a\.test is no site that is known"):
            engine.run("shaping", word, "a.test")
