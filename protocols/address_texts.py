"""What is wrong with an address, in the reader's language.

Owns the German sentences. `protocols.addresses` and `protocols.address_lists` write the English
ones, which serve as keys here: a sentence without a translation is shown in English, and a test
goes through all faults for one.
"""

from collections.abc import Mapping
from typing import Final

from protocols.address_lists import LINE_OCTETS_MAX
from protocols.addresses import (
    ADDRESS_OCTETS_MAX,
    DOMAIN_OCTETS_MAX,
    LABEL_OCTETS_MAX,
    LOCAL_OCTETS_MAX,
)
from protocols.languages import Language

_GERMAN: Final[Mapping[str, str]] = {
    "the address is empty": "die Adresse ist leer",
    "source routes are not accepted": "Source-Routen werden nicht angenommen",
    f"the part before the @ is longer than {LOCAL_OCTETS_MAX} octets": (
        f"der Teil vor dem @ ist länger als {LOCAL_OCTETS_MAX} Oktette"
    ),
    f"an address has at most {ADDRESS_OCTETS_MAX} octets": (
        f"eine Adresse hat höchstens {ADDRESS_OCTETS_MAX} Oktette"
    ),
    "nothing stands before the @": "vor dem @ steht nichts",
    "the part before the @ ends with a dot": "der Teil vor dem @ endet mit einem Punkt",
    "the address begins with a dot": "die Adresse beginnt mit einem Punkt",
    "two dots in a row": "zwei Punkte hintereinander",
    "there is no @": "es fehlt das @",
    "the quotation mark is not closed": "das Anführungszeichen wird nicht geschlossen",
    "only an @ may follow the closing quotation mark": (
        "auf das schließende Anführungszeichen darf nur ein @ folgen"
    ),
    "nothing stands after the @": "nach dem @ steht nichts",
    "address literals are not accepted: name a domain": (
        "IP-Adressen in Klammern werden nicht angenommen: eine Domain ist nötig"
    ),
    "the domain has no dot": "die Domain hat keinen Punkt",
    "the last part of the domain is a number; IP addresses are not accepted": (
        "der letzte Teil der Domain ist eine Zahl; IP-Adressen werden nicht angenommen"
    ),
    f"the domain is longer than {DOMAIN_OCTETS_MAX} octets": (
        f"die Domain ist länger als {DOMAIN_OCTETS_MAX} Oktette"
    ),
    "the domain begins with a dot": "die Domain beginnt mit einem Punkt",
    "the address ends with a dot": "die Adresse endet mit einem Punkt",
    "a part of the domain begins or ends with a hyphen": (
        "ein Teil der Domain beginnt oder endet mit einem Bindestrich"
    ),
    f"a part of the domain is longer than {LABEL_OCTETS_MAX} octets": (
        f"ein Teil der Domain ist länger als {LABEL_OCTETS_MAX} Oktette"
    ),
    "there is a second @": "hier steht ein zweites @",
    "a space is not allowed": "ein Leerzeichen ist nicht erlaubt",
    "angle brackets belong around an address": "spitze Klammern gehören um eine Adresse herum",
    "the line is not in UTF-8": "die Zeile ist nicht in UTF-8",
    f"the line is longer than {LINE_OCTETS_MAX} octets": (
        f"die Zeile ist länger als {LINE_OCTETS_MAX} Oktette"
    ),
    "the line ends before the column with the addresses": (
        "die Zeile endet vor der Spalte mit den Adressen"
    ),
    "a separator has to follow the closing quotation mark": (
        "auf das schließende Anführungszeichen muss ein Trennzeichen folgen"
    ),
}

# Sentences that name what was found: its place is between the two parts.
_GERMAN_AROUND: Final = (
    (
        "the control or invisible character ",
        " is not allowed",
        "das unsichtbare Zeichen {} ist nicht erlaubt",
    ),
    ("the character ", " is not allowed here", "das Zeichen {} ist hier nicht erlaubt"),
    ("", " is no valid part of a domain name", "{} ist kein gültiger Teil einer Domain"),
)


def fault_text(english: str, language: Language) -> str:
    """Return the text of a fault in that language."""
    if language == "en":
        return english
    whole = _GERMAN.get(english)
    if whole is not None:
        return whole
    for before, after, german in _GERMAN_AROUND:
        if english.startswith(before) and english.endswith(after):
            return german.format(english[len(before) : len(english) - len(after)])
    return english
