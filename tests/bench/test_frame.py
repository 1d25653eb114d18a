"""The bench's own tools: questions found, sizes read, figures printed, latencies computed."""

import json
import subprocess
import sys
from array import array
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from bench import machine
from bench.__main__ import questions
from bench.name_server import Answers
from bench.prefill import content_of, messages, requests
from bench.report import Report, UsageError, read_sizes
from bench.subscriber import Payloads, Subscriber, latencies_ms
from protocols.records import Account

NAMES = {"drain", "end_to_end", "growth", "intake", "isolation", "latency", "memory"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_question_is_the_first_line_of_its_file() -> None:
    assert set(questions()) >= NAMES
    for name, question in questions().items():
        first_line = (Path("bench") / f"{name}.py").read_text().partition("\n")[0]
        assert first_line == f'"""{question}'


@pytest.mark.slow
def test_the_command_lists_and_refuses_what_it_does_not_know() -> None:
    listed = run()
    assert listed.returncode == 0
    assert {line.partition(" ")[0] for line in listed.stdout.splitlines()} >= NAMES
    for wrong in (["nonsense"], ["drain", "mails=3"], ["memory", "--against", "postfix"]):
        assert run(*wrong).returncode == 2


def test_sizes_are_read_over_the_defaults() -> None:
    defaults = {"messages": (20_000,), "destinations": (1, 100)}
    assert read_sizes([], defaults) == {"messages": [20_000], "destinations": [1, 100]}
    read = read_sizes(["destinations=1_000,5"], defaults)
    assert read == {"messages": [20_000], "destinations": [1000, 5]}
    for wrong in ("messages", "mails=3", "messages=many", "messages=-1"):
        with pytest.raises(UsageError, match=wrong.split("=")[0]):
            read_sizes([wrong], defaults)


def test_a_report_says_the_same_in_text_and_in_json(tmp_path: Path) -> None:
    report = Report("How fast?", "python -m bench x", machine.describe(tmp_path))
    report.add("10 kB", "rate", 12345.6, "messages/s")
    report.add("10 kB", "cost", 0.1234, "ms")
    text = report.as_text()
    for part in ("How fast?", "12,346 messages/s", "0.123 ms", "fdatasync", "Python 3."):
        assert part in text
    assert [f["value"] for f in json.loads(report.as_json())["figures"]] == [12345.6, 0.1234]


def test_the_disk_is_asked_and_left_as_it_was(tmp_path: Path) -> None:
    assert machine.fdatasync_ms(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_queue_is_spread_evenly_and_each_envelope_is_its_own() -> None:
    made = list(messages(250, destinations=40, recipients=100, octets=2000, group="g", first=7))
    recipients = [recipient for message in made for recipient in message.recipients]
    assert len(recipients) == len({r.address for r in recipients}) == 250
    assert len({recipient.uuid for recipient in recipients}) == 250
    for message in made:
        assert len({r.destination for r in message.recipients}) == len(message.recipients) <= 40
    account = Account(1, "bench", "", 0)
    batches = list(requests(account, iter(made)))
    assert sum(len(batch.messages) for batch in batches) == len(made)


@pytest.mark.parametrize("octets", [2000, 10_000, 100_000])
def test_contents_have_about_the_size_that_was_asked_for(octets: int) -> None:
    assert octets - 200 < len(content_of(octets)) <= octets


def told(answers: Answers, name: str, kind: str) -> list[str] | dns.rcode.Rcode:
    """What dnspython reads in the answer: the records' data, or the code of a failure."""
    query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
    response = dns.message.from_wire(answers.answer(query.to_wire()))
    assert query.is_response(response)
    if response.rcode() != dns.rcode.NOERROR:
        return response.rcode()
    return [item.to_text() for rrset in response.answer for item in rrset]


def test_the_name_server_gives_each_destination_an_mx_of_its_own() -> None:
    answers = Answers({"good": ("127.1.0.1", 300)})
    assert told(answers, "d299.good.bench.test", "MX") == ["10 mx.d299.good.bench.test."]
    assert told(answers, "MX.d299.good.bench.test", "A") == ["127.1.1.44"]
    assert told(answers, "mx.d300.good.bench.test", "A") == ["127.1.0.1"]
    assert told(answers, "mx.d300.good.bench.test", "AAAA") == []
    assert told(answers, "d1.good.bench.test", "A") == []
    for absent in ("d1.bad.bench.test", "good.bench.test", "example.test"):
        assert told(answers, absent, "MX") == dns.rcode.NXDOMAIN


def test_the_name_server_has_nothing_to_say_to_rubbish() -> None:
    answers = Answers({"good": ("127.1.0.1", 1)})
    query = dns.message.make_query("d1.good.bench.test", "MX").to_wire()
    for end in range(len(query)):
        assert answers.answer(query[:end]) == b""
    assert answers.answer(answers.answer(query)) == b""


def test_latencies_pair_each_arrival_with_its_250() -> None:
    payloads = Payloads()
    event = {"address": "r1@x.test", "status": "delivered"}
    queued = {"address": "r1@x.test", "status": "queued"}
    frames = [
        json.dumps({"after": "a", "events": events, "cursor": "b"}).encode()
        for events in ([queued], [event, {**event, "address": "r2@x.test"}])
    ]
    numbers = [payloads.read(frame)[0] for frame in (*frames, frames[1])]
    assert numbers == [0, 1, 1]
    subscriber = Subscriber.__new__(Subscriber)
    subscriber.arrivals = array("q", [0, 1_000_000, 1, 5_000_000])
    stamps = {"r1@x.test": 2_000_000, "r2@x.test": 4_500_000}
    assert latencies_ms(stamps, payloads, [subscriber]) == [0.5, 3.0]
