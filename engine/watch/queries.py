"""Query parameters of /v1: read once, exactly, with the fault's name in every refusal.

An unknown parameter is refused: a misspelt filter that is ignored would show, or
later cancel, everything.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final, NoReturn, TypeVar

from engine.http_server import HttpError, Request
from protocols.addresses import normalise_domain
from protocols.languages import Language, preferred_language
from protocols.records import Reason, Status
from protocols.timestamps import parse_time

LIMIT_MAX: Final = 1_000
LIMIT_DEFAULT: Final = 100

T = TypeVar("T")


class Query:
    """The parameters of one request; `known` are those that its route takes."""

    def __init__(self, request: Request, known: Collection[str]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in request.query:
            if name not in known:
                refuse(name, f"There is no such parameter; known are {', '.join(sorted(known))}.")
            self._values.setdefault(name, []).append(value)

    def one(self, name: str) -> str | None:
        """The only value of a parameter, None if it is absent. Raises HttpError 400."""
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) > 1:
            refuse(name, "This parameter may be given once.")
        return values[0]

    def many(self, name: str) -> list[str] | None:
        return self._values.get(name)

    def set_of(self, name: str, read: Callable[[str], T]) -> frozenset[T] | None:
        """All values of a parameter, read by `read`, whose ValueError becomes HttpError 400."""
        values = self._values.get(name)
        if values is None:
            return None
        try:
            return frozenset(read(value) for value in values)
        except ValueError as error:
            refuse(name, f"{error}.")

    def statuses(self, name: str = "status") -> frozenset[Status] | None:
        return self.set_of(name, _status)

    def time_unix_ms(self, name: str) -> int | None:
        value = self.one(name)
        if value is None:
            return None
        try:
            return parse_time(value)
        except ValueError as error:
            refuse(name, f"{error}.")

    def number(self, name: str, default: int, least: int, most: int) -> int:
        value = self.one(name)
        if value is None:
            return default
        number = int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else -1
        if not least <= number <= most:
            refuse(
                name, f"A whole number from {least} to {most:,} is expected, not {value[:40]!r}."
            )
        return number

    def limit(self) -> int:
        return self.number("limit", LIMIT_DEFAULT, 1, LIMIT_MAX)


def refuse(where: str, message: str) -> NoReturn:
    raise HttpError(400, "bad_parameter", f"{where}: {message}", where)


def not_found(what: str) -> HttpError:
    return HttpError(404, "not_found", f"There is no {what}.")


def domain_name(text: str) -> str:
    """A destination's name, however it was written: in capitals, or with umlauts.

    What is no domain stays what it is, and nothing has that name.
    """
    name = normalise_domain(text)
    return name if isinstance(name, str) else text.lower()


def whole_number(text: str) -> int:
    """Read an id. Raises ValueError."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ValueError(f"{text[:40]!r} is not a whole number")
    return int(text)


def _status(text: str) -> Status:
    try:
        return Status(text)
    except ValueError as error:
        names = ", ".join(_names(Status))
        raise ValueError(f"{text[:40]!r} is none of {names}") from error


def known_reason(text: str) -> Reason:
    """Return a reason by its word. Raises ValueError."""
    try:
        return Reason(text)
    except ValueError as error:
        raise ValueError(f"{text[:40]!r} is none of {', '.join(sorted(Reason))}") from error


def _names(statuses: Iterable[Status]) -> list[str]:
    return [str(each) for each in statuses]


def language_of(request: Request) -> Language:
    """In which language a reader wants texts: as `Accept-Language` says."""
    return preferred_language(request.header(b"accept-language"))
