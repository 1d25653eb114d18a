"""Handing a list of recipients to a campaign, part by part, over any break.

Draws nothing: what happens is told to a `Teller`. Each part is answered when it is on the engine's
disk. If there is no answer, the part is handed in again: the engine takes each address of a
campaign once, so whatever was kept of it is counted as repeated and sent once all the same.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec

from engine.cli.control import EngineBusy, EngineRefused, EngineStopped, HttpAsked, target_of
from engine.cli.list_findings import FirstLines, LineFinding
from protocols.list_parts import ListPart
from protocols.records import FINAL_STATUSES

# Large enough that a commit's sync is paid rarely, small enough that a break costs little. Fewer
# octets than the port still reads of a body that it does not want, so that its refusal is heard.
PART_LINES_MAX: Final = 5_000
PART_OCTETS_MAX: Final = 3 * 1024 * 1024
# An engine that restarts is back within seconds. After so many attempts, a second apart, somebody
# has to look; the same command goes on later.
RETRY_S: Final = 1.0
RETRIES_MAX: Final = 300
# What a program is told of in one object; people are told of each.
FAULTS_KEPT_MAX: Final = 1_000
# Of one part; the engine names as many of its own findings.
DOUBLES_TOLD_MAX: Final = 1_000
POLL_S: Final = 0.5
COUNTED: Final = ("accepted", "repeated", "refused", "paused", "blocked", "suggested")


class Teller(Protocol):
    """Whoever shows how it goes."""

    def finding(self, found: LineFinding) -> None:
        """A line was refused, or there is a doubt; its `line` is that of the whole list."""
        ...

    def handed_in(self, sums: "HandedIn") -> None:
        """A part was answered."""
        ...

    def stands(self, counts: Mapping[str, int]) -> None:
        """So much of the campaign's mail has which status."""
        ...

    def trouble(self, text: str) -> None:
        """Nothing moves; "" when it does again."""
        ...


@dataclass(slots=True)
class HandedIn:
    """What became of the list so far. `octets` of it were answered.

    Of those that were accepted, `paused` wait for room in the quota, and `blocked` ones are
    suppressed. The address of a `doubled` line stands in another one of this list; that of a
    `repeated` one was in the campaign already, or was taken in an answer that did not come
    (`asked_again`), or its other line is one of those too many that were not kept in mind
    (`may_double`). Of the lines that were not refused, `suggested` look mistyped.
    """

    accepted: int = 0
    repeated: int = 0
    doubled: int = 0
    refused: int = 0
    paused: int = 0
    blocked: int = 0
    suggested: int = 0
    may_double: bool = False
    asked_again: bool = False
    octets: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Patient:
    """Asks an engine again while it is away or busy.

    It must have answered once: who starts without an engine has to be told at once.
    """

    asked: HttpAsked
    tell: Teller
    wait: Callable[[float], object]
    _met: bool = False
    has_asked_again: bool = False

    def get(self, route: str, **query: object) -> Any:
        """Return the answer. Raises EngineStopped or EngineRefused if none came in time."""
        return self._ask(lambda: self.asked.get(route, **query))

    def send(self, route: str, body: bytes, content_type: str) -> Any:
        """Likewise for a post."""
        return self._ask(lambda: self.asked.send(route, body, content_type))

    def _ask(self, question: Callable[[], Any]) -> Any:
        for attempt in range(RETRIES_MAX + 1):
            try:
                answer = question()
            except EngineStopped as stopped:
                if not self._met or attempt == RETRIES_MAX:
                    raise
                self.tell.trouble(f"{stopped}; waiting for it to come back")
            except EngineBusy as busy:
                if attempt == RETRIES_MAX:
                    raise
                self._met = True
                self.tell.trouble(f"{busy} Trying again.")
            else:
                if attempt:
                    self.tell.trouble("")
                self._met = True
                return answer
            self.has_asked_again = True
            self.wait(RETRY_S)
        raise AssertionError("the last attempt raises")


class Campaign:
    """One campaign at one engine."""

    def __init__(self, patient: Patient, name: str, account: str | None) -> None:
        self._patient = patient
        self._account = account
        self._route = f"/v1/campaigns/{quote(name, safe='')}"

    def create(self, body: Mapping[str, Any]) -> None:
        """Make it, or find it there with the same content. Raises EngineRefused."""
        target = target_of("/v1/campaigns", {"account": self._account})
        self._patient.send(target, msgspec.json.encode(body), "application/json")

    def hand_in(
        self, parts: Iterable[ListPart], content_type: str, sums: HandedIn, tell: Teller
    ) -> None:
        """Hand in a list, counting into `sums`. Raises EngineRefused if it takes nobody."""
        target = target_of(f"{self._route}/recipients", {"account": self._account})
        firsts = FirstLines()
        for part in parts:
            try:
                answer = self._patient.send(target, part.body, content_type)
            except EngineRefused as refused:
                # What was taken before it ended is told; how far that is in the part is not known.
                if isinstance(refused.answer, dict) and "accepted" in refused.answer:
                    count_in(refused.answer, part, [], sums, tell)
                raise
            doubles = firsts.doubles_in(part, content_type, refused_in(answer))
            sums.may_double = firsts.is_full
            sums.asked_again = self._patient.has_asked_again
            count_in(answer, part, doubles, sums, tell)

    def states_until_final(self, wait: Callable[[float], object]) -> Iterator[dict[str, Any]]:
        """Give how it stands, again and again, until all of its mail has a final status."""
        while True:
            state: dict[str, Any] = self._patient.get(self._route, account=self._account)
            yield state
            if not open_in(state["counts"]):
                return
            wait(POLL_S)


def refused_in(answer: Mapping[str, Any]) -> set[int]:
    """Return the lines of a part that were refused, as far as they are named."""
    return {fault["line"] for fault in answer["faults"]}


def count_in(
    answer: Mapping[str, Any],
    part: ListPart,
    doubles: Sequence[LineFinding],
    sums: HandedIn,
    tell: Teller,
) -> None:
    """Add what became of a part to `sums`, and tell of it in the order of its lines."""
    for name in COUNTED:
        setattr(sums, name, getattr(sums, name) + answer[name])
    # The engine decides who gets a mail. What it took, although it looks like a double here, had
    # been refused in a line that it did not name.
    doubled = min(len(doubles), answer["repeated"])
    sums.doubled += doubled
    sums.repeated -= doubled
    sums.octets += part.octets
    found = [*doubles[:DOUBLES_TOLD_MAX]]
    for each in answer["faults"]:
        fault = {**each, "line": part.line_in_list(each["line"])}
        if len(sums.faults) < FAULTS_KEPT_MAX:
            sums.faults.append(fault)
        found.append(_finding(fault, fault["message"]))
    found += [
        _finding({**each, "line": part.line_in_list(each["line"])})
        for each in answer["suggestions"]
    ]
    for finding in sorted(found, key=lambda each: each.line):
        tell.finding(finding)
    for count, named, what in (
        (answer["refused"], answer["faults"], "have faults"),
        (answer["suggested"], answer["suggestions"], "look mistyped"),
    ):
        if unnamed := count - len(named):
            last = part.line_in_list(named[-1]["line"])
            tell.finding(LineFinding(last, f"{unnamed:,} more lines after this {what}"))
    if (unnamed := len(doubles) - DOUBLES_TOLD_MAX) > 0:
        last = doubles[DOUBLES_TOLD_MAX - 1].line
        tell.finding(LineFinding(last, f"{unnamed:,} more lines after this are in the list twice"))
    tell.handed_in(sums)


def _finding(each: Mapping[str, Any], text: str = "") -> LineFinding:
    position, suggestion = each.get("position"), each.get("suggestion")
    where = each.get("where", "")
    return LineFinding(each["line"], text, each["address"], position, suggestion, where)


def final_in(counts: Mapping[str, int]) -> int:
    """How many mails have a final status."""
    return sum(counts[status] for status in FINAL_STATUSES)


def open_in(counts: Mapping[str, int]) -> int:
    """How many mails have none yet."""
    return sum(counts[status] for status in ("queued", "paused", "deferred"))
