"""`eilpost send` towards an engine that answers by the book: parts, lines, breaks, usage."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import click.testing
import pytest
import trio
from rich.console import Console

from engine.cli import main, sending
from engine.cli.list_findings import FirstLines
from engine.cli.send_progress import teller
from engine.cli.send_template import campaign_of, header, mailbox
from engine.config import ConfigError
from engine.http_server import Access, HttpError, Request, Response, Route
from protocols.list_parts import CSV_TYPE, list_parts
from protocols.records import Status
from tests.cli.test_control import control_socket_with, eilpost, engine_with

COMMON = (
    *("--account", "shop", "--campaign", "spring sale"),
    *("--from", "Shop <shop@out.example>", "--subject", "Hi"),
)
NONE = {"paused": 0, "blocked": 0, "suggested": 0, "faults": [], "suggestions": []}


class Book:
    """One campaign. Each address once; a line without an @ is a fault; all mail is delivered.

    If it `keeps` nothing, it only counts.
    """

    def __init__(self, *, keeps: bool = True) -> None:
        self.keeps = keeps
        self.accepted = 0
        self.template: dict[str, Any] = {}
        self.taken: list[str] = []
        self.parts: list[bytes] = []
        self.queries: set[str] = set()
        self.faults: list[HttpError] = []
        self.is_closed = False

    async def create(self, request: Request) -> Response:
        self.queries.add(request.raw_query)
        self.template = json.loads(request.body)
        return Response.json({"campaign": self.template["campaign"]}, 201)

    async def take(self, request: Request) -> Response:
        assert request.params["campaign"] == "spring sale"
        self.queries.add(request.raw_query)
        if not self.keeps:
            self.accepted += (count := request.body.count(b"@"))
            return Response.json({"accepted": count, "repeated": 0, "refused": 0, **NONE})
        self.parts.append(request.body)
        if self.is_closed:
            raise HttpError(409, "campaign_ended", "The campaign is closed.")
        counts = {"accepted": 0, "repeated": 0, "refused": 0}
        faults = []
        for line, text in enumerate(request.body.decode().splitlines()[1:], 2):
            address = text.partition(",")[0]
            outcome = "refused" if "@" not in address else "repeated"
            if outcome == "refused":
                told = {"where": "email", "code": "no_at", "message": "no @", "position": 4}
                faults.append({"line": line, **told, "address": address, "suggestion": None})
            elif address not in self.taken:
                self.taken.append(address)
                outcome = "accepted"
            counts[outcome] += 1
        if self.faults:
            # Taken all the same: the answer is what got lost.
            raise self.faults.pop()
        return Response.json({"campaign": "spring sale", **counts, **NONE, "faults": faults})

    async def show(self, request: Request) -> Response:
        counts = {**dict.fromkeys(map(str, Status), 0), "delivered": len(self.taken)}
        return Response.json({"campaign": "spring sale", "state": "open", "counts": counts})


@asynccontextmanager
async def engine_of(book: Book, data_dir: Path) -> AsyncIterator[None]:
    routes = [
        Route("POST", "/v1/campaigns", book.create, Access.OPERATOR),
        Route("POST", "/v1/campaigns/{campaign}/recipients", book.take, Access.OPERATOR, 8 << 20),
        Route("GET", "/v1/campaigns/{campaign}", book.show, Access.OPERATOR),
    ]
    async with control_socket_with(data_dir, routes):
        yield


async def send(place: Path, *arguments: str, stdin: bytes = b"") -> click.testing.Result:
    """Run `eilpost send` in a thread, as it would run in a process of its own."""
    (place / "eilpost.toml").write_text('data_dir = "data"\n')
    (place / "text.txt").write_text("Hello {{name}}")
    given = ["send", *arguments, "--config", str(place / "eilpost.toml")]
    runner = click.testing.CliRunner()
    return await trio.to_thread.run_sync(lambda: runner.invoke(main, given, input=stdin))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.cli.send.PART_LINES_MAX", 3)
    monkeypatch.setattr(sending, "RETRY_S", 0.0)


def people(count: int) -> str:
    return "email,name\n" + "".join(f"p{n}@x.test,P {n}\n" for n in range(count))


async def test_a_list_goes_in_parts_and_its_faults_have_the_lines_of_the_file(
    tmp_path: Path, small_parts: None
) -> None:
    book, file = Book(), tmp_path / "list.csv"
    file.write_text(people(4) + "oops,O\n" + people(3).partition("\n")[2])
    async with engine_of(book, tmp_path / "data"):
        text = str(tmp_path / "text.txt")
        said = await send(tmp_path, *COMMON, "--text", text, str(file))
        again = await send(tmp_path, *COMMON, "--text", text, "--json", "--wait", str(file))
    assert said.exit_code == 1, said.output
    assert said.stdout == "spring sale: 4 accepted, 3 twice in this list, 1 refused.\n"
    assert [line for line in said.stderr.splitlines() if line.startswith(str(file))] == [
        f"{file}:6: oops: at position 4: no @",
        *(
            f"{file}:{line}: p{n}@x.test: twice in this list (first in line {first})"
            for line, n, first in ((7, 0, 2), (8, 1, 3), (9, 2, 4))
        ),
    ]
    # What it came to is printed once, at the end.
    assert "3 twice in this list, 1 refused" not in said.stderr
    assert "eilpost campaign show 'spring sale'" in said.stderr
    assert [part.count(b"\n") for part in book.parts] == [4, 4, 3, 4, 4, 3]
    assert book.queries == {"account=shop"}
    told = json.loads(again.stdout)
    assert (told["accepted"], told["repeated"], told["refused"]) == (0, 4, 1)
    assert told["doubled"] == 3
    assert (told["complete"], told["counts"]["delivered"]) == (True, 4)
    assert told["faults"] == [
        {
            "line": 6,
            "where": "email",
            "code": "no_at",
            "message": "no @",
            "position": 4,
            "address": "oops",
            "suggestion": None,
        }
    ]


async def test_of_too_many_addresses_none_is_said_to_be_twice_in_the_list(
    tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.cli.list_findings.ADDRESSES_MAX", 3)
    book, file = Book(), tmp_path / "list.csv"
    rows = people(5) + "p4@x.test,P\np1@x.test,P\n"
    file.write_text(rows)
    async with engine_of(book, tmp_path / "data"):
        said = await send(tmp_path, *COMMON, "--text", str(tmp_path / "text.txt"), str(file))
    assert said.stdout == (
        "spring sale: 5 accepted, 1 twice in this list, 1 already there or twice in this list.\n"
    )
    assert f"{file}:8: p1@x.test: twice in this list (first in line 3)\n" in said.stderr


def test_each_address_of_a_long_list_is_found_in_its_first_line() -> None:
    firsts = FirstLines()
    rows = [f"p{n}@x.test" for n in range(9_000)]
    # The domain in another case is the same address, the part before the @ is not.
    rows += ["p7@X.test", "P8@x.test", " p8999@x.test ", "oops", "oops"]
    lines = [b"email\n", *(f"{row}\n".encode() for row in rows)]
    parts = list_parts(lines, CSV_TYPE, lines_max=2_000, octets_max=1 << 20)
    found = [each for part in parts for each in firsts.doubles_in(part, CSV_TYPE, ())]
    assert [(each.line, each.address, each.text) for each in found] == [
        (9_002, "p7@X.test", "twice in this list (first in line 9)"),
        (9_004, "p8999@x.test", "twice in this list (first in line 9001)"),
    ]


async def test_what_the_campaign_says_goes_ahead_of_its_list(tmp_path: Path) -> None:
    book = Book()
    async with engine_of(book, tmp_path / "data"):
        said = await send(
            tmp_path,
            *(*COMMON, "--text", str(tmp_path / "text.txt"), "--header", "X-A: b:c"),
            *("--lane", "transactional", "-"),
            stdin=b"email\na@x.test\n",
        )
    assert (said.exit_code, said.stdout) == (0, "spring sale: 1 accepted.\n")
    assert book.template == {
        "campaign": "spring sale",
        "from": {"email": "shop@out.example", "name": "Shop"},
        "subject": "Hi",
        "text": "Hello {{name}}",
        "headers": {"X-A": "b:c"},
        "lane": "transactional",
    }


async def test_a_busy_engine_is_asked_again_and_nobody_gets_two(
    tmp_path: Path, small_parts: None
) -> None:
    book = Book()
    book.faults = [HttpError(503, "busy", "The spool is full.") for _ in range(3)]
    async with engine_of(book, tmp_path / "data"):
        text = str(tmp_path / "text.txt")
        said = await send(tmp_path, *COMMON, "--text", text, "-", stdin=people(5).encode())
    assert said.exit_code == 0
    assert said.stdout == (
        "spring sale: 2 accepted, 3 already there or taken when an answer was lost.\n"
    )
    assert said.stderr.count("The spool is full. Trying again.") == 1
    assert len(book.taken) == 5


async def test_what_ends_it_in_the_middle_is_told_with_what_was_taken(
    tmp_path: Path, small_parts: None
) -> None:
    class Full(Book):
        async def take(self, request: Request) -> Response:
            if self.taken:
                raise HttpError(403, "quota", "The quota leaves no room.")
            return await super().take(request)

    text = ("--text", str(tmp_path / "text.txt"))
    async with engine_of(Full(), tmp_path / "data"):
        said = await send(tmp_path, *COMMON, *text, "-", stdin=people(5).encode())
    assert (said.exit_code, said.stdout) == (1, "spring sale: 3 accepted.\n")
    assert "Error: The quota leaves no room.\nThe same command goes on" in said.stderr
    async with engine_of(Full(), tmp_path / "data"):
        said = await send(tmp_path, *COMMON, *text, "--json", "-", stdin=people(5).encode())
    told = json.loads(said.stdout)
    assert (told["accepted"], told["complete"]) == (3, False)
    assert told["error"] == "The quota leaves no room."


async def test_a_campaign_that_takes_nobody_says_so(tmp_path: Path) -> None:
    book = Book()
    book.is_closed = True
    async with engine_of(book, tmp_path / "data"):
        text = str(tmp_path / "text.txt")
        said = await send(tmp_path, *COMMON, "--text", text, "-", stdin=b"email\na@x.test\n")
    assert (said.exit_code, said.stderr) == (1, "Error: The campaign is closed.\n")


async def test_what_cannot_begin_says_why(tmp_path: Path) -> None:
    text = ("--text", str(tmp_path / "text.txt"))
    stopped = await send(tmp_path, *COMMON, *text, "-")
    assert (stopped.exit_code, stopped.stdout) == (1, "")
    assert stopped.stderr.startswith("Error: the engine is not running: nobody at ")
    missing = await send(tmp_path, *COMMON, *text, "no.csv")
    assert missing.stderr == "Error: no.csv: cannot be read: No such file or directory\n"
    no_text = await send(tmp_path, *COMMON, "--text", "no.txt", "-")
    assert no_text.stderr == "Error: no.txt: cannot be read: No such file or directory\n"
    for arguments, said in (
        (COMMON, "--text, --html or both"),
        ((*COMMON[2:], *text), "--account"),
        ((*COMMON[:2], *COMMON[4:], *text), "say --campaign"),
        ((*COMMON[:4], *COMMON[6:], *text), "say --from"),
        ((*COMMON[:6], *text), "say --subject"),
        ((*COMMON, *text, "--header", "oops"), "no header field"),
        ((*COMMON, *text, "--url", "http://127.0.0.1:1"), "--api-key"),
    ):
        wrong = await send(tmp_path, *arguments, "-")
        assert wrong.exit_code == 2, wrong.output
        assert said in wrong.stderr


# Not the children's usage that wait4 tells: that begins with what the parent has.
WITH_ITS_MEMORY = """
import sys
from engine.cli import main
try:
    main()
finally:
    print(*(line for line in open("/proc/self/status") if "VmHWM" in line), file=sys.stderr)
"""


@pytest.mark.slow
async def test_a_long_list_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    (tmp_path / "eilpost.toml").write_text('data_dir = "data"\n')
    (tmp_path / "text.txt").write_text("Hello")
    command = [
        *(
            sys.executable,
            "-c",
            WITH_ITS_MEMORY,
            "send",
            *COMMON,
            "--text",
            str(tmp_path / "text.txt"),
            "--json",
        ),
        *(str(tmp_path / "list.csv"), "--config", str(tmp_path / "eilpost.toml")),
    ]
    highest_kb: list[int] = []
    for count in (20_000, 400_000):
        # The line of a customer's export.
        row = "email,name\n" + "".join(f"p{n}@x.test,{n:060}\n" for n in range(count))
        (tmp_path / "list.csv").write_text(row)
        book = Book(keeps=False)
        async with engine_of(book, tmp_path / "data"):
            done = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
        assert book.accepted == count
        highest_kb.append(int(done.stderr.split()[1]))
    # The list itself grew by 27 MB.
    assert highest_kb[1] - highest_kb[0] < 8_000, highest_kb


async def test_faults_that_the_engine_does_not_name_are_counted(tmp_path: Path) -> None:
    class Short(Book):
        async def take(self, request: Request) -> Response:
            fault = {"line": 2, "where": "email", "message": "no @", "address": "oops"}
            counts = {"accepted": 0, "repeated": 0, "refused": 1_500}
            return Response.json({**counts, **NONE, "faults": [fault] * 1_000})

    async with engine_of(Short(), tmp_path / "data"):
        text = ("--text", str(tmp_path / "text.txt"))
        said = await send(tmp_path, *COMMON, *text, "-", stdin=people(1).encode())
    assert said.exit_code == 1
    assert said.stderr.count("-:2: oops: no @\n") == 1_000
    assert "-:2: 500 more lines after this have faults\n" in said.stderr


async def test_of_many_doubles_the_first_thousand_are_named(tmp_path: Path) -> None:
    rows = b"email\n" + b"a@x.test\n" * 1_501
    async with engine_of(Book(), tmp_path / "data"):
        text = ("--text", str(tmp_path / "text.txt"))
        said = await send(tmp_path, *COMMON, *text, "-", stdin=rows)
    assert said.stdout == "spring sale: 1 accepted, 1,500 twice in this list.\n"
    assert said.stderr.count("a@x.test: twice in this list (first in line 2)\n") == 1_000
    assert "-:1002: 500 more lines after this are in the list twice\n" in said.stderr


async def test_a_name_that_two_accounts_have_is_not_guessed(tmp_path: Path) -> None:
    rows = [{"campaign": "spring", "account": account} for account in ("shop", "club")]

    async def listing(request: Request) -> Response:
        found = rows if dict(request.query)["campaign"] == "spring" else []
        return Response.json({"campaigns": found, "after": None})

    async with engine_with(tmp_path / "data", get_campaigns=listing):
        said = await eilpost(tmp_path / "data", "campaign", "pause", "spring")
        missing = await eilpost(tmp_path / "data", "campaign", "pause", "autumn")
    assert said.exit_code == 2
    assert "Several accounts have it: say --account, of shop, club." in said.stderr
    assert (missing.exit_code, missing.stderr) == (1, "Error: There is no campaign 'autumn'.\n")


def test_options_go_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "spring.toml"
    file.write_text(
        'account = "shop"\ncampaign = "spring"\nfrom = "Shop <shop@out.example>"\n'
        'lane = "transactional"\n'
        'subject = "Hi {{name}}"\ntext_file = "spring.txt"\nhtml = "<p>Hi"\n[headers]\nX-A = "1"\n'
    )
    (tmp_path / "spring.txt").write_text("Hi")
    options: dict[str, Any] = dict.fromkeys(
        ("account", "campaign", "sender", "reply_to", "subject", "text", "html", "lane")
    )
    options["header"] = ()
    assert campaign_of(options, file) == {
        "account": "shop",
        "campaign": "spring",
        "from": {"email": "shop@out.example", "name": "Shop"},
        "subject": "Hi {{name}}",
        "text": "Hi",
        "html": "<p>Hi",
        "headers": {"X-A": "1"},
        "lane": "transactional",
    }
    options.update(
        subject="Ho", header=("X-A: 2", "X-B: 3"), lane="bulk", html=tmp_path / "spring.txt"
    )
    changed = campaign_of(options, file)
    assert (changed["subject"], changed["lane"], changed["html"]) == ("Ho", "bulk", "Hi")
    assert changed["headers"] == {"X-A": "2", "X-B": "3"}
    file.write_text('subjekt = "Hi"')
    with pytest.raises(ConfigError, match="subjekt"):
        campaign_of(options, file)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("shop@out.example", {"email": "shop@out.example"}),
        ("<shop@out.example>", {"email": "shop@out.example"}),
        ('"Ann \\"A\\" <B>" <a@x.test>', {"email": "a@x.test", "name": 'Ann "A" <B>'}),
        ("Müller & Co <m@x.test> ", {"email": "m@x.test", "name": "Müller & Co"}),
        ("Shop <shop@out.example", {"email": "Shop <shop@out.example"}),
    ],
)
def test_senders_as_people_write_them(text: str, made: dict[str, str]) -> None:
    assert mailbox(text) == made


def test_a_header_has_a_name_and_a_value() -> None:
    assert header("X-A:b: c ") == ("X-A", "b: c")
    with pytest.raises(click.BadParameter):
        header(": x")


def test_trouble_is_shown_in_the_bar_as_it_was_said() -> None:
    said = "/run/eilpost/control.sock: no answer within 60 s Trying again."
    console = Console(file=StringIO(), force_terminal=True, width=160, color_system=None)
    with teller(console, "people.csv", 100, quiet=False) as tell:
        tell.trouble(said)
    assert isinstance(console.file, StringIO)
    assert f"[{said}]" in console.file.getvalue()
