"""What an answer looks like: figures with units, one a line, and the same as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `case` says which of the sizes it belongs to."""

    case: str
    name: str
    value: float
    unit: str


@dataclass(slots=True)
class Report:
    """The answer to one question; `limits` is what bounded the run (settings in force)."""

    question: str
    command: str
    setting: Mapping[str, object]
    limits: str = ""
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, case: str, name: str, value: float, unit: str) -> None:
        self.figures.append(Figure(case, name, value, unit))

    def as_json(self) -> str:
        """One object on one line."""
        return json.dumps(asdict(self))

    def as_text(self) -> str:
        lines = [self.question, f"  $ {self.command}"]
        lines += [f"  {name}: {value}" for name, value in self.setting.items()]
        lines += [f"  limits: {self.limits}"] if self.limits else []
        case_width = max((len(figure.case) for figure in self.figures), default=0)
        name_width = max((len(figure.name) for figure in self.figures), default=0)
        for figure in self.figures:
            number = f"{figure.value:,.0f}" if figure.value >= 1000 else f"{figure.value:,.3g}"
            lines.append(
                f"{figure.case:<{case_width}}  {figure.name:<{name_width}}  "
                f"{number:>10} {figure.unit}"
            )
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


class UsageError(Exception):
    """The sizes cannot be read; the text says which."""


def read_sizes(given: Sequence[str], defaults: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Read "messages=20000 destinations=1,100" over `defaults`. Raises UsageError."""
    sizes = {name: list(values) for name, values in defaults.items()}
    for text in given:
        name, equals, values = text.partition("=")
        if not equals or name not in sizes:
            known = ", ".join(f"{key}=" + ",".join(map(str, defaults[key])) for key in defaults)
            raise UsageError(f"{text!r} is no size of this question; known, with defaults: {known}")
        try:
            sizes[name] = [int(value.replace("_", "")) for value in values.split(",")]
        except ValueError as error:
            raise UsageError(f"{text!r}: expected whole numbers") from error
        if min(sizes[name]) < 0:
            raise UsageError(f"{text!r}: expected numbers of 0 or more")
    return sizes
