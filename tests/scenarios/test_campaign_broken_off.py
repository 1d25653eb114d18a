"""`kill -9` of engine and `eilpost send` in the middle of a list: everybody gets one mail."""

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.rehearsal.engine_process import COMMAND
from tests.scenarios.scene import Scene, scene

pytestmark = pytest.mark.slow

# Four parts, so that there is a middle to be killed in.
PEOPLE = 20_000
BROKEN_LINE = 12_345
TEMPLATE = """
account = "shop"
campaign = "spring"
from = "Shop <shop@sender.test>"
subject = "Spring, {{name}}"
text = "This is tag<{{email}}>, number {{number}}."
"""


def people(directory: Path) -> Path:
    """Write the list; one line of it cannot be used."""
    file = directory / "people.csv"
    lines = [f"p{n}@x.fast.test,Person {n},{n}" for n in range(PEOPLE)]
    lines.insert(BROKEN_LINE - 2, "nobody at all,Nobody,0")
    file.write_text("email,name,number\n" + "\n".join(lines) + "\n")
    (directory / "spring.toml").write_text(TEMPLATE)
    return file


@contextmanager
def sending(world: Scene, file: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Run `eilpost send`; it is killed at the end of the block if it still runs."""
    command = [*COMMAND, "send", "--template", str(file.parent / "spring.toml"), *more, str(file)]
    with subprocess.Popen(
        [*command, "--config", str(world.engine.config_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def accepted(world: Scene) -> int:
    return sum(world.counts().values())


def test_everybody_gets_one_mail_however_often_it_breaks(tmp_path: Path) -> None:
    file = people(tmp_path)
    with scene(tmp_path) as world:
        # Nothing goes out before the list is in: a delivery that is killed may be repeated, and
        # that is another test's subject.
        world.engine.run("suspend", "--campaign", "spring")
        with sending(world, file) as client:
            world.wait_for("the first part", lambda: accepted(world))
            client.send_signal(signal.SIGKILL)
            client.wait()
        before = accepted(world)
        assert before < PEOPLE, "it was killed too late"
        with sending(world, file, "--json", "--no-wait") as client:
            campaign = "/v1/campaigns/spring"
            world.wait_for("its second coming", lambda: world.get(campaign)["repeated"])
            world.engine.kill()
            between = client.poll()
            world.engine.start()
            world.engine.wait_until_ready()
            told, errors = client.communicate(timeout=60)
        assert between is None, "the engine was killed too late"
        assert client.returncode == 1, errors
        assert told, errors
        summary = json.loads(told)
        assert summary["complete"]
        assert summary["accepted"] + summary["repeated"] == PEOPLE
        assert summary["repeated"] >= before
        assert [fault["line"] for fault in summary["faults"]] == [BROKEN_LINE]
        assert f"{file}:{BROKEN_LINE}: " in errors
        assert accepted(world) == PEOPLE
        world.engine.run("resume", "--campaign", "spring")
        with sending(world, file, "--wait") as client:
            told, errors = client.communicate(timeout=120)
        assert f"spring: 0 accepted, {PEOPLE:,} already there, 1 refused.\n" in told, errors
        assert f"{PEOPLE:,} of {PEOPLE:,} final: {PEOPLE:,} delivered.\n" in told
        assert world.counts() == {"delivered": PEOPLE}
        taken = Counter(recipient for recipient, _, tag in world.receivers.taken())
        assert taken == Counter({f"p{n}@x.fast.test": 1 for n in range(PEOPLE)})
