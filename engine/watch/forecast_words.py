"""What a forecast says beside its times, in English and German."""

from collections.abc import Mapping
from typing import Final

from engine.watch.explain_words import Words, number_text
from protocols.languages import Language

FORECASTS: Final[Mapping[Language, Words]] = {
    "en": {
        "through": "It is through: nothing waits any more.",
        "known": (
            "The expected time is for all waiting mails ({waiting}); what is put off comes later."
        ),
        "some": (
            "The expected time does not count {unknown} of the {waiting} mails: nothing flows to "
            "their receivers now, and nobody can tell when it will."
        ),
        "none": "Nobody can tell yet: nothing has flowed to the receivers of these mails lately.",
    },
    "de": {
        "through": "Sie ist durch: Es wartet nichts mehr.",
        "known": (
            "Die erwartete Zeit gilt für alle wartenden Mails ({waiting}); Aufgeschobenes kommt "
            "später."
        ),
        "some": (
            "Die erwartete Zeit zählt {unknown} der {waiting} Mails nicht mit: Zu deren Empfängern "
            "fließt gerade nichts, und niemand weiß, wann es wieder fließt."
        ),
        "none": (
            "Das weiß noch niemand: Zu den Empfängern dieser Mails ist zuletzt nichts geflossen."
        ),
    },
}


def forecast_text(language: Language, *, waiting: int, unknown: int) -> str:
    """Return what a forecast has to say beside its times."""
    words = FORECASTS[language]
    if not waiting:
        return words["through"]
    sentence = words["known"] if not unknown else words["some" if unknown < waiting else "none"]
    return sentence.format(
        waiting=number_text(language, waiting), unknown=number_text(language, unknown)
    )
