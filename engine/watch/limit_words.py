"""Limits as people read them: "20 a minute, up to 5 at once" for `20/min, burst 5`.

Programs get the form of the configuration, which can be written back there; sentences get this one.
What has neither form, "20 connections" say, stays as it is.
"""

import re
from collections.abc import Mapping
from typing import Final

from protocols.languages import Language

_RATE: Final = re.compile(r"(?P<count>\d+(\.\d+)?)/(?P<unit>s|min|h|day|month)\b")
_BURST: Final = re.compile(r", burst (?P<count>\d+)")
_UNITS: Final[Mapping[Language, Mapping[str, str]]] = {
    "en": {"s": "a second", "min": "a minute", "h": "an hour", "day": "a day", "month": "a month"},
    "de": {
        "s": "je Sekunde",
        "min": "je Minute",
        "h": "je Stunde",
        "day": "am Tag",
        "month": "im Monat",
    },
}
_AT_ONCE: Final[Mapping[Language, str]] = {
    "en": ", up to {count} at once",
    "de": ", bis zu {count} auf einmal",
}


def limit_words(language: Language, limit: str) -> str:
    """Return a limit, "20/s, burst 20" or "200/day, 6000/month", as part of a sentence."""

    def rate(found: re.Match[str]) -> str:
        return f"{_number(language, found['count'])} {_UNITS[language][found['unit']]}"

    def burst(found: re.Match[str]) -> str:
        # One at a time is how anybody reads a rate.
        count = found["count"]
        return "" if count == "1" else _AT_ONCE[language].format(count=_number(language, count))

    return _BURST.sub(burst, _RATE.sub(rate, limit))


def _number(language: Language, digits: str) -> str:
    whole, point, fraction = digits.partition(".")
    english = f"{int(whole):,}{point}{fraction}"
    return english if language == "en" else english.translate(str.maketrans(",.", ".,"))
