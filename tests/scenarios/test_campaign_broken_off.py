"""`kill -9` of engine and `eilpost send` in the middle of a list: everybody gets one mail."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.cli.sending import PART_LINES_MAX
from engine.rehearsal.engine_process import COMMAND
from tests.scenarios.scene import Scene, scene

pytestmark = pytest.mark.slow

# Four parts, of which two are on their way when something is killed.
PEOPLE = 4 * PART_LINES_MAX
BROKEN_LINE = 12_345
FEW = 40
TEMPLATE = """
account = "shop"
campaign = "spring"
from = "Shop <shop@sender.test>"
subject = "Spring, {{name}}"
text = "This is tag<{{email}}>, number {{number}}."
"""


def people(directory: Path, count: int = PEOPLE) -> Path:
    """Write the list; one line of a long one cannot be used."""
    file = directory / "people.csv"
    lines = [f"p{n}@x.fast.test,Person {n},{n}" for n in range(count)]
    if count > BROKEN_LINE:
        lines.insert(BROKEN_LINE - 2, "nobody at all,Nobody,0")
    file.write_text("email,name,number\n" + "\n".join(lines) + "\n")
    (directory / "spring.toml").write_text(TEMPLATE)
    return file


@contextmanager
def sending(world: Scene, file: Path | str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Run `eilpost send`; it is killed at the end of the block if it still runs."""
    template = world.engine.directory / "spring.toml"
    command = [*COMMAND, "send", "--template", str(template), *more, str(file)]
    with subprocess.Popen(
        [*command, "--config", str(world.engine.config_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def everybody_gets(mails: int, count: int) -> Counter[str]:
    return Counter({f"p{n}@x.fast.test": mails for n in range(count)})


def accepted(world: Scene) -> int:
    return sum(world.counts().values())


def test_everybody_gets_one_mail_however_often_it_breaks(tmp_path: Path) -> None:
    file = people(tmp_path)
    lines = file.read_text().splitlines(keepends=True)
    begin, rest = "".join(lines[: 2 * PART_LINES_MAX + 2]), "".join(lines[2 * PART_LINES_MAX + 2 :])
    with scene(tmp_path) as world:
        # Nothing goes out before the list is in: a delivery that is killed may be repeated, and
        # that is another test's subject.
        world.engine.run("suspend", "--campaign", "spring")
        # From a pipe that stays open, so that each is killed before the end of its list.
        with sending(world, "-") as client:
            assert client.stdin is not None
            client.stdin.write(begin)
            client.stdin.flush()
            world.wait_for("the first recipients", lambda: accepted(world))
            client.send_signal(signal.SIGKILL)
            client.wait()
        with sending(world, "-", "--json", "--no-wait") as client:
            assert client.stdin is not None
            client.stdin.write(begin)
            client.stdin.flush()
            again = "/v1/campaigns/spring"
            world.wait_for("recipients again", lambda: world.get(again)["repeated"])
            world.engine.kill()
            world.engine.start()
            world.engine.wait_until_ready()
            told, errors = client.communicate(rest, timeout=120)
        assert told, errors
        summary = json.loads(told)
        assert (client.returncode, summary["complete"], summary["error"]) == (1, True, None)
        assert summary["accepted"] + summary["repeated"] == PEOPLE
        assert summary["repeated"] > 0
        assert [fault["line"] for fault in summary["faults"]] == [BROKEN_LINE]
        assert f"-:{BROKEN_LINE}: " in errors
        assert accepted(world) == PEOPLE
        world.engine.run("resume", "--campaign", "spring")
        with sending(world, file, "--wait") as client:
            told, errors = client.communicate(timeout=120)
        assert f"spring: 0 accepted, {PEOPLE:,} already there, 1 refused.\n" in told, errors
        assert f"{PEOPLE:,} of {PEOPLE:,} final: {PEOPLE:,} delivered.\n" in told
        assert world.counts() == {"delivered": PEOPLE}
        taken = world.receivers.taken()
        assert Counter(recipient for recipient, _, _ in taken) == everybody_gets(1, PEOPLE)
        assert [recipient for recipient, _, tag in taken if tag != recipient] == []


def test_control_an_engine_that_forgets_who_is_in_it_sends_twice(tmp_path: Path) -> None:
    file = people(tmp_path, FEW)
    with scene(tmp_path, command=(sys.executable, "-m", "tests.scenarios.forgetful_campaigns")) as (
        world
    ):
        for _ in range(2):
            with sending(world, file, "--wait") as client:
                told, errors = client.communicate(timeout=120)
            assert f"spring: {FEW} accepted.\n" in told, errors
        assert Counter(world.delivered()) == everybody_gets(2, FEW)
