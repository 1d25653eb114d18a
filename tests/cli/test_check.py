"""`eilpost check`: findings on stdout, the count on stderr, the verdict as exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TABLE = 'Name;E-Mail\nTom;Tom@@ beispiel.de\n"Ann;ann@x.test\nBob;bob@gmial.com\nEve;eve@x.test\n'


COMMAND = [sys.executable, "-c", "from engine.cli import main; main()", "check"]


def check(*arguments: str, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, input=stdin, capture_output=True, check=False
    )


def test_faults_and_suggestions_are_named_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(TABLE)
    done = check("list.csv", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.decode().splitlines() == [
        "list.csv:2: Tom@@ beispiel.de: at position 4: there is a second @; "
        "did you mean tom@beispiel.de?",
        'list.csv:3: "Ann;ann@x.test: at position 0: the quotation mark is not closed',
        "list.csv:4: bob@gmial.com; did you mean bob@gmail.com?",
    ]
    assert done.stderr == b"4 checked, 2 good (1 with a suggestion), 2 to be refused\n"
    # It asked no engine and made no place for one.
    assert [file.name for file in tmp_path.iterdir()] == ["list.csv"]


def test_json_has_one_object_a_line_of_the_same_form_as_over_http(tmp_path: Path) -> None:
    done = check("--json", "-", cwd=tmp_path, stdin=TABLE.encode())
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[0] == {
        "line": 2,
        "address": "Tom@@ beispiel.de",
        "code": "second_at",
        "position": 4,
        "text": "there is a second @",
        "suggestion": "tom@beispiel.de",
    }
    assert rows[1]["code"] == "broken_line"
    assert rows[2] == {"line": 4, "address": "bob@gmial.com", "suggestion": "bob@gmail.com"}


def test_a_list_without_faults_ends_with_0_though_there_are_suggestions(tmp_path: Path) -> None:
    done = check("-", cwd=tmp_path, stdin=b"ann@x.test\r\n\r\nbob@web.ed\r\n")
    assert (done.returncode, done.stdout) == (0, b"-:3: bob@web.ed; did you mean bob@web.de?\n")
    assert check("-", cwd=tmp_path).returncode == 0


def test_the_configured_lists_count_and_their_faults_are_named(tmp_path: Path) -> None:
    (tmp_path / "eilpost.toml").write_text('[intake]\ntypo_files = ["ours.toml"]')
    (tmp_path / "ours.toml").write_text('real = ["web.ed"]\n[typo]\n"shpo.test" = "shop.test"')
    done = check("-", cwd=tmp_path, stdin=b"ann@shpo.test\nbob@web.ed\n")
    assert done.stdout == b"-:1: ann@shpo.test; did you mean ann@shop.test?\n"
    (tmp_path / "ours.toml").write_text('[typo]\n"shpo" = "shop.test"')
    broken = check("-", cwd=tmp_path)
    assert (broken.returncode, broken.stdout) == (1, b"")
    assert broken.stderr.decode() == (
        "Error: ours.toml: typo 'shpo': is no domain: the domain has no dot\n"
    )


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("nothing.csv", "nothing.csv: cannot be read: No such file or directory"),
        (".", ".: cannot be read: Is a directory"),
        ("sixteen.csv", "sixteen.csv: the list is in UTF-16; save it as UTF-8"),
    ],
)
def test_a_list_that_cannot_be_read_is_named(tmp_path: Path, file: str, said: str) -> None:
    (tmp_path / "sixteen.csv").write_text(TABLE, encoding="utf-16")
    done = check(file, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"Error: {said}\n"


def test_a_disk_that_fails_while_it_is_read_is_said(tmp_path: Path) -> None:
    # Reading a process's own memory from address 0 fails as a broken disk does.
    done = check("/proc/self/mem", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == b"Error: /proc/self/mem: cannot be read: Input/output error\n"


def test_what_an_address_holds_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    done = check("-", cwd=tmp_path, stdin=b"a\x1b[2J@x.test\n")
    assert b"\x1b" not in done.stdout
    assert done.stdout.startswith(b"-:1: a\\x1b[2J@x.test: at position 1: ")


def test_without_a_file_the_usage_is_wrong(tmp_path: Path) -> None:
    assert check(cwd=tmp_path).returncode == 2


def test_whoever_reads_the_first_findings_only_sees_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a@@b.test\n" * 20_000)
    with subprocess.Popen(
        [*COMMAND, "list.txt"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert b"Traceback" not in said


def test_json_lines_are_checked_as_they_are_taken(tmp_path: Path) -> None:
    rows = (
        b'{"email": "Tom@@ beispiel.de"}\n'
        b'{"email": "ann@x.test", "variables": {"name": "Ann"}}\n'
        b"no json\n\n"
        b'{"email": "bob@gmial.com"}\n{"name": "' + b"x" * 70_000 + b'"}\n{"email": 5}'
    )
    (tmp_path / "list.jsonl").write_bytes(rows)
    done = check("list.jsonl", cwd=tmp_path)
    first, second, *rest = done.stdout.decode().splitlines()
    assert first == (
        "list.jsonl:1: Tom@@ beispiel.de: at position 4: there is a second @; "
        "did you mean tom@beispiel.de?"
    )
    assert second.startswith("list.jsonl:3: The line is no JSON: ")
    assert rest[0] == "list.jsonl:5: bob@gmial.com; did you mean bob@gmail.com?"
    assert "the line is longer than 65536 octets" in rest[1]
    assert rest[2] == "list.jsonl:7: email: Expected `str`, got `int`"
    assert done.stderr == b"6 checked, 2 good (1 with a suggestion), 4 to be refused\n"
    told = [
        json.loads(line)
        for line in check("--json", "-", cwd=tmp_path, stdin=rows).stdout.splitlines()
    ]
    assert [each.get("where") for each in told] == [None, "", None, "", "email"]
