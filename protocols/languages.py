"""Which of our languages does a reader want?

Owns reading Accept-Language (RFC 9110 12.5.4). Whoever names none of ours gets English.
"""

from typing import Final, Literal

Language = Literal["en", "de"]

# A browser sends five ranges or fewer; who sends hundreds is asking for work, not for a language.
RANGES_MAX: Final = 20


def preferred_language(accept_language: str | None) -> Language:
    """Return the language wanted most; among equals the one named first."""
    wanted: Language = "en"
    quality = 0.0
    for part in (accept_language or "").split(",")[:RANGES_MAX]:
        name, _, parameters = part.partition(";")
        language = name.strip().lower().partition("-")[0]
        if language not in ("en", "de", "*"):
            continue
        found = _quality(parameters)
        if found > quality:
            wanted, quality = "de" if language == "de" else "en", found
    return wanted


def _quality(parameters: str) -> float:
    """Return q of "q=0.8"; 1 if there is none, 0 if it cannot be read."""
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    digits = value.strip()
    # RFC 9110 allows three decimals of a number up to 1; `float` alone would read "nan" and "1e9".
    if not digits.replace(".", "", 1).isdecimal() or not digits.isascii():
        return 0.0
    return min(float(digits), 1.0)
