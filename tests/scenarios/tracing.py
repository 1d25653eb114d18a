"""System calls of an engine as strace saw them, and the order they came in.

Every order is that of the lines in the trace, which strace writes in the order in which it stopped
the threads: a call has begun at its first line and has returned at its last.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.rehearsal.engine_process import COMMAND

CALLS: Final = "write,writev,pwrite64,pwritev,fdatasync,sendto,sendmsg"
STRING_OCTETS_MAX: Final = 1_000_000
WRITTEN_S_MAX: Final = 30.0

_LINE: Final = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)")
_RESUMED: Final = re.compile(r"<\.\.\. (?P<name>\w+) resumed>")
# The library's commit point: the 120 octets of one of two meta pages, on a descriptor of its own.
_META: Final = re.compile(r", 120, (?:32|4128)(?:\)| <unfinished)")


@dataclass(slots=True)
class Call:
    """One system call: its text with the arguments, the lines at which it began and returned."""

    name: str
    text: str
    began: int
    returned: int = -1

    @property
    def is_on_data_file(self) -> bool:
        return "data.mdb>" in self.text.partition(",")[0]

    @property
    def is_commit_point(self) -> bool:
        return self.name == "pwrite64" and self.is_on_data_file and bool(_META.search(self.text))

    @property
    def is_write_of_pages(self) -> bool:
        written = self.name in ("writev", "pwrite64", "pwritev")
        return written and self.is_on_data_file and not self.is_commit_point


def traced(file: Path, command: Sequence[str] = COMMAND) -> tuple[str, ...]:
    """Return the command under strace, detached so that the process started is the engine."""
    return (
        *("strace", "-D", "-f", "-q", "-y", "-s", str(STRING_OCTETS_MAX), "-o", str(file)),
        *("-e", f"trace={CALLS}", "-e", "signal=none", *command),
    )


def read_trace(file: Path, pid: int) -> list[Call]:
    """Return the calls in `file`, once `pid` has ended and its trace is whole."""
    ended = re.compile(rf"^{pid} +\+\+\+ (exited|killed) ", re.MULTILINE)
    deadline = time.monotonic() + WRITTEN_S_MAX
    while not ended.search(text := file.read_text(encoding="latin-1")):
        assert time.monotonic() < deadline, f"no end of process {pid} in {file}"
        time.sleep(0.02)
    return list(_calls_in(text))


def _calls_in(text: str) -> Iterator[Call]:
    unfinished: dict[str, Call] = {}
    for number, line in enumerate(text.splitlines()):
        found = _LINE.fullmatch(line)
        if found is None or found["rest"].startswith(("+++", "---")):
            continue
        pid, rest = found["pid"], found["rest"]
        if _RESUMED.match(rest):
            call = unfinished.pop(pid)
            call.returned = number
            yield call
            continue
        call = Call(rest.partition("(")[0], rest, number)
        if rest.endswith("<unfinished ...>"):
            unfinished[pid] = call
        else:
            call.returned = number
            yield call


def answered_too_early(calls: Sequence[Call], tags: Sequence[str]) -> list[str]:
    """Return the tags whose mail was answered before it was durable, with what was missing.

    The answer to a tag is the call that sends it back. Before that call begins, a write of pages
    with the tag has returned, after it a flush has begun and returned, after that a commit point.
    """
    syncs = [call for call in calls if call.name == "fdatasync" and call.is_on_data_file]
    points = [call for call in calls if call.is_commit_point]
    wrong: list[str] = []
    for tag in tags:
        sent = [
            call.began
            for call in calls
            if call.name in ("sendto", "sendmsg", "write") and f'"{tag}\\"' in call.text
        ]
        written = [call.returned for call in calls if call.is_write_of_pages and tag in call.text]
        if not sent:
            wrong.append(f"{tag}: no answer in the trace")
            continue
        flushed = [s.returned for s in syncs if written and s.began > min(written)]
        kept = [p.returned for p in points if flushed and p.began > min(flushed)]
        for what, when in (("written", written), ("flushed", flushed), ("committed", kept)):
            if not when or min(when) > min(sent):
                wrong.append(f"{tag}: answered at {min(sent)} before it was {what}")
                break
    return wrong
