"""What `eilpost doctor` found: one value for each check, and how it is printed."""

from collections.abc import Iterable
from enum import StrEnum

import click
import msgspec

from engine.cli.printing import print_json, printable


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"  # mail goes, but worse or not for long
    FAULT = "fault"  # mail does not go, is refused, or is not safe


class Finding(msgspec.Struct, frozen=True):
    """One check: what was looked at, what was found, and what to do about it ("" if nothing)."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, Verdict.OK, found)


def warning(check: str, found: str, advice: str) -> Finding:
    return Finding(check, Verdict.WARNING, found, advice)


def fault(check: str, found: str, advice: str) -> Finding:
    return Finding(check, Verdict.FAULT, found, advice)


def has_fault(findings: Iterable[Finding]) -> bool:
    return any(each.verdict is Verdict.FAULT for each in findings)


def print_findings(findings: Iterable[Finding], *, as_json: bool) -> None:
    for each in findings:
        if as_json:
            print_json(each)
            continue
        click.echo(f"{each.verdict:8} {each.check}: {printable(each.found)}")
        if each.advice:
            click.echo(f"{'':8} -> {printable(each.advice)}")
