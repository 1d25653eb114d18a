"""`eilpost send` and `campaign` with a real engine and receivers, in a terminal and without."""

import json
import os
import pty
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.cli.sending import PART_LINES_MAX
from engine.rehearsal.engine_process import COMMAND
from tests.scenarios.scene import Scene, scene

pytestmark = pytest.mark.slow

TEMPLATE = """
account = "shop"
campaign = "spring sale"
from = "Shop <shop@sender.test>"
reply_to = "help@sender.test"
subject = 'Spring, {{name:"dear customer"}}'
text = \"\"\"
Dear {{name:"customer"}},
your code is {{code}}. ☀
\"\"\"
html = "<p>Your code is {{code}}</p>"
[headers]
X-Kind = "spring"
"""
PEOPLE = """email;name;code
ann@x.fast.test;Ann;a<b
tom@@ x.fast.test;Tom;t-1
eve@x.fast.test;;e-1
bob@gmial.com;Bob;
"""
# Of these, two are taken that are not quite right.
DOUBTFUL = """ann@X.fast.test;Ann;again
bob@gmial.com;Bob;b-1
"""
# Nobody listens on port 1 of loopback.
DEAD = '[[route]]\ndomain = "*.dead.test"\nnext_hop = "127.0.0.1:1"'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "spring.toml").write_text(TEMPLATE)
    (tmp_path / "people.csv").write_text(PEOPLE)
    return tmp_path


def eilpost(place: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_a_dry_run_needs_no_engine_and_leaves_nothing(place: Path) -> None:
    said = eilpost(place, "send", "--template", "spring.toml", "--dry-run", "people.csv")
    assert said.returncode == 1, said.stderr
    assert said.stdout.splitlines() == [
        "The first mail, filled in:",
        "",
        "    From: Shop <shop@sender.test>",
        "    To: Ann <ann@x.fast.test>",
        "    Reply-To: help@sender.test",
        "    Subject: Spring, Ann",
        "    X-Kind: spring",
        "",
        "    Dear Ann,",
        "    your code is a<b. ☀",
        "",
        "    <p>Your code is a&lt;b</p>",
        "",
        "2 good, 2 to be refused.",
    ]
    second_at = (
        "people.csv:3: tom@@ x.fast.test: at position 4: there is a second @; "
        "did you mean tom@x.fast.test?"
    )
    assert said.stderr.splitlines() == [
        second_at,
        'people.csv:5: bob@gmial.com: there is no value for the variable "code", and no default',
    ]
    # The same words as of whoever only looks at the addresses.
    assert second_at in eilpost(place, "check", "people.csv").stdout.splitlines()
    assert sorted(file.name for file in place.iterdir()) == ["people.csv", "spring.toml"]


def test_a_real_run_says_what_a_dry_run_says_and_blocks_nothing(place: Path) -> None:
    (place / "people.csv").write_text(PEOPLE + DOUBTFUL)
    told = [
        "people.csv:6: ann@X.fast.test: twice in this list (first in line 2)",
        "people.csv:7: bob@gmial.com; did you mean bob@gmail.com?",
    ]
    with scene(place, '[[route]]\ndomain = "gmial.com"\nnext_hop = "127.0.0.1:1"'):
        dry = eilpost(place, "send", "--template", "spring.toml", "--dry-run", "people.csv")
        real = eilpost(place, "send", "--template", "spring.toml", "people.csv")
    assert dry.stderr.splitlines()[2:] == told
    assert dry.stdout.splitlines()[-1] == (
        "3 good (1 with a suggestion), 1 twice in this list, 2 to be refused."
    )
    assert real.stderr.splitlines()[2:4] == told
    assert real.stdout == (
        "spring sale: 3 accepted, 1 twice in this list, 2 refused, 1 with a suggestion.\n"
    )


def test_a_dry_run_finds_faults_in_the_template(place: Path) -> None:
    file = place / "spring.toml"
    file.write_text(file.read_text().replace("{{code}}.", "{{code.", 1))
    said = eilpost(place, "send", "--template", "spring.toml", "--dry-run", "people.csv")
    assert (said.returncode, said.stdout) == (1, "")
    assert "text, line 2, column 14" in said.stderr
    (place / "spring.toml").write_text(TEMPLATE.replace('{{name:"dear customer"}}', "{{nmae}}"))
    said = eilpost(place, "send", "--template", "spring.toml", "--dry-run", "--json", "people.csv")
    assert said.returncode == 1
    assert '"nmae" has no default, and the list has no such column' in said.stderr


def test_json_lines_are_a_list_too(place: Path) -> None:
    lines = [
        {"email": "ann@x.fast.test", "name": "Ann", "variables": {"code": 17}},
        {"email": "bob@x.fast.test", "variables": {}},
    ]
    (place / "people.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = eilpost(
        place, "send", "--template", "spring.toml", "--dry-run", "--json", "people.jsonl"
    )
    assert said.stdout, said.stderr
    told = json.loads(said.stdout)
    assert (told["good"], told["refused"], told["suggestions"]) == (1, 1, 0)
    assert told["faults"][0]["line"] == 2
    assert told["example"]["plain"] == "Dear Ann,\nyour code is 17. ☀\n"


def test_a_campaign_from_its_list_to_its_end(place: Path) -> None:
    with scene(place, DEAD) as world:
        (place / "more.csv").write_text("email;code\nulf@x.dead.test;u-1\nann@x.fast.test;z\n")
        sent = eilpost(place, "send", "--template", "spring.toml", "--wait", "people.csv")
        assert sent.returncode == 1, sent.stderr
        assert sent.stdout.splitlines() == [
            "spring sale: 2 accepted, 2 refused.",
            "2 of 2 final: 2 delivered.",
        ]
        assert sorted(world.delivered()) == ["ann@x.fast.test", "eve@x.fast.test"]
        more = eilpost(place, "send", "--template", "spring.toml", "more.csv")
        assert (more.returncode, more.stdout) == (
            0,
            "spring sale: 1 accepted, 1 already there.\n",
        )
        assert "eilpost campaign show 'spring sale'" in more.stderr
        other = eilpost(
            place, "send", "--template", "spring.toml", "--subject", "Another", "people.csv"
        )
        assert other.returncode == 1
        assert "another content" in other.stderr
        [row] = eilpost(place, "campaign", "list", "--json").stdout.splitlines()
        assert json.loads(row)["campaign"] == "spring sale"
        shown = eilpost(place, "campaign", "show", "spring sale")
        first, second, third = shown.stdout.splitlines()
        assert first == "spring sale, of shop  open"
        assert second.startswith("  2 of 3 final: 2 delivered, 1 ")
        assert third.endswith(": 3 accepted, 1 repeated, 2 refused")
        held = eilpost(place, "campaign", "pause", "spring sale", "--reason", "a typo").stdout
        assert held.startswith("spring sale, of shop  paused\n")
        assert " by operator: a typo\n" in held
        states = [
            json.loads(eilpost(place, "campaign", deed, "spring sale", "--json").stdout)["state"]
            for deed in ("pause", "resume", "close")
        ]
        assert states == ["paused", "open", "closed"]
        refused = eilpost(place, "send", "--template", "spring.toml", "more.csv")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "closed" in refused.stderr
        eilpost(place, "campaign", "cancel", "spring sale", "--account", "shop")
        assert world.wait_until_final() == {"delivered": 2, "cancelled": 1}
        table = eilpost(place, "campaign", "list").stdout.splitlines()
        assert table[1].split()[2:5] == ["shop", "cancelled", "3"]
        missing = eilpost(place, "campaign", "show", "autumn")
        assert (missing.returncode, missing.stderr) == (
            1,
            "Error: There is no campaign 'autumn'.\n",
        )


def test_a_quota_without_room_ends_it_with_what_was_taken(place: Path) -> None:
    rows = "".join(f"p{n}@x.fast.test,{n}\n" for n in range(70))
    (place / "people.csv").write_text("email,code\n" + rows)
    # Today, and sixty days on which it is paused.
    plan = '[[plan]]\nname = "tiny"\nmessages_per_day = 1\n'
    with scene(place, plan):
        eilpost(place, "account", "plan", "shop", "tiny")
        sent = eilpost(place, "send", "--template", "spring.toml", "people.csv")
    assert sent.returncode == 1
    assert sent.stdout == "spring sale: 61 accepted (60 paused by the quota).\n"
    assert "Error: The quota of your plan (1 messages a day) leaves no room" in sent.stderr
    assert "The same command goes on where this ended" in sent.stderr


def test_ctrl_c_in_the_middle_of_a_list_says_that_the_same_command_goes_on(place: Path) -> None:
    part = "email,code\n" + "".join(f"p{n}@x.fast.test,{n}\n" for n in range(PART_LINES_MAX))
    command = [*COMMAND, "send", "--template", "spring.toml", "-"]
    with (
        scene(place),
        subprocess.Popen(
            command,
            cwd=place,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        process.stdin.write(part)
        # A pipe holds no more than a quarter of this: the rest goes in when it is read, and that is
        # after the answer to the first part. The list does not end here.
        process.stdin.write(f"q@x.fast.test,{0:0100}\n" * 2_500)
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        told, errors = process.communicate(timeout=30)
    assert (process.returncode, told) == (1, "spring sale: 5,000 accepted.\n")
    assert errors.endswith("The same command goes on where this ended; nobody gets two mails.\n")


def test_an_engine_elsewhere_is_asked_as_an_account(place: Path) -> None:
    with scene(place) as world:
        keys = world.credentials
        arguments = [
            *("send", "--template", "spring.toml", "--json", "--wait", "people.csv"),
            *("--url", world.engine.url, "--api-key", keys.api_key),
        ]
        said = eilpost(place, *arguments, EILPOST_SECRET_KEY=keys.secret_key)
        assert said.returncode == 1, said.stderr
        told = json.loads(said.stdout)
        assert (told["accepted"], told["refused"], told["counts"]["delivered"]) == (2, 2, 2)
        wrong = eilpost(place, *arguments, EILPOST_SECRET_KEY="wrong")
        assert (wrong.returncode, wrong.stdout) == (1, "")


@contextmanager
def in_a_terminal(world: Scene, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    ours, its = pty.openpty()
    command = [*COMMAND, *arguments, "--config", str(world.engine.config_path)]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40"}
    with subprocess.Popen(
        command,
        cwd=world.engine.directory,
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment,
        # The terminal is its own, so that Ctrl-C reaches it as from a keyboard.
        preexec_fn=lambda: os.login_tty(its),
    ) as process:
        os.close(its)
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def read_until(terminal: int, *words: bytes) -> bytes:
    seen = b""
    while not all(word in seen for word in words):
        assert select.select([terminal], [], [], 30)[0], seen
        seen += os.read(terminal, 65_536)
    return seen


def test_a_terminal_shows_both_bars_and_ctrl_c_leaves(place: Path) -> None:
    (place / "people.csv").write_text("email,code\nann@x.fast.test,1\nulf@x.dead.test,2\noops,3\n")
    with (
        scene(place, DEAD) as world,
        in_a_terminal(world, "send", "--template", "spring.toml", "people.csv") as (
            process,
            terminal,
        ),
    ):
        seen = read_until(terminal, b"2 accepted, 1 refused", b"1 of 2 final: 1 delivered")
        assert b"people.csv:4: " in seen
        os.write(terminal, b"\x03")
        seen = read_until(terminal, b"To look again: eilpost campaign show 'spring sale'")
        assert process.wait(30) == 1
        assert b"spring sale: 2 accepted, 1 refused." in seen
        assert world.counts() == {"delivered": 1, "queued": 1}
