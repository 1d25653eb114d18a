"""What does it cost to fill a template in for one recipient?

A letter of text and HTML with six placeholders, a subject with one and a link to unsubscribe.
`umlauts` says how many of a hundred words in it are German ones: without any the letter goes as it
is, with few as quoted-printable, with many as base64. One mail in two has a name beyond ASCII.
"""

import time
from pathlib import Path

from bench import rig
from bench.report import Report
from protocols.addresses import Address, parse_address
from protocols.header_fields import Mailbox
from protocols.templates import Template, TemplateSource, compile_template, read_template

SIZES = {"kilobytes": (10,), "umlauts": (0, 10, 100), "messages": (20_000,)}

NAMES = ("Anna Mueller", "Jörg Müller")
HEADERS = (
    ("List-Unsubscribe", "<https://shop.example/u?a={{address}}&c={{code}}>"),
    ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
)


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    report.limits = "one thread, no engine, nothing in data_dir"
    for case in rig.cases(sizes):
        _measure(report, **case)


def _measure(report: Report, kilobytes: int, umlauts: int, messages: int) -> None:
    case = f"{kilobytes} kB, {umlauts} % umlauts"
    template = _template(kilobytes * 1000, umlauts)
    recipient = _address("anna.mueller@in.example")
    variables = [{"name": name, "code": "A1B2C3"} for name in NAMES]
    date = "Tue, 24 Nov 2026 12:00:00 +0000"
    octets = 0
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for number in range(messages):
        filled = template.fill(
            variables[number % 2], recipient=recipient, identifier=f"{number:032x}", date=date
        )
        octets += len(filled.octets)
    cpu_s, took_s = time.process_time() - start_cpu_s, time.perf_counter() - start_s
    report.add(case, "rate", messages / took_s, "mails/s")
    report.add(case, "CPU to fill it in", cpu_s / messages * 1e6, "µs/mail")
    report.add(case, "size of a mail", octets / messages, "octets")
    start_cpu_s = time.process_time()
    for number in range(messages):
        assert not template.check(variables[number % 2], recipient)
    checked_s = time.process_time() - start_cpu_s
    report.add(case, "CPU to check a recipient", checked_s / messages * 1e6, "µs/mail")


def _template(octets: int, umlauts: int) -> Template:
    # Spread evenly, so that each line has as many as any other.
    words = ["größere" if number * umlauts % 100 < umlauts else "greater" for number in range(100)]
    lines = [" ".join(words[start : start + 10]) for start in range(0, 100, 10)]
    text_lines, html_lines = octets * 3 // 10 // 80, octets * 7 // 10 // 87
    text = "\n".join(lines[number % 10] for number in range(text_lines))
    html = "\n".join(f"<p>{lines[number % 10]}</p>" for number in range(html_lines))
    link = '<a href="https://shop.example/?a={{url:address}}&c={{code}}">'
    source = TemplateSource(
        from_=Mailbox(_address("news@shop.example"), "Shop"),
        subject="News for {{name}}",
        text=f"Dear {{{{var:name}}}},\n\n{text}\nYour code: {{{{code}}}}\n",
        html=f"<p>Dear {{{{var:name}}}},</p>\n{html}\n{link}{{{{code}}}}</a>\n",
        headers=HEADERS,
    )
    return read_template(compile_template(source, host="out.example"))


def _address(text: str) -> Address:
    address = parse_address(text)
    assert isinstance(address, Address)
    return address
