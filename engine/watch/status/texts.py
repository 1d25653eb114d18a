"""What people may write on the page: checked here, for every door."""

from typing import Final

from engine.http_server import HttpError
from engine.watch.status.components import Component, Level
from engine.watch.status.records import Words

TITLE_CHARACTERS_MAX: Final = 200
TEXT_CHARACTERS_MAX: Final = 2_000


def checked_words(words: Words, where: str, *, characters_max: int, is_line: bool = False) -> Words:
    """Return the texts without space around them. Raises HttpError 400 that names the place."""
    found: dict[str, str] = {}
    if not (words.de.strip() or words.en.strip()):
        fault = f"{where}: there is no text; give it in English (en), in German (de) or in both."
        raise HttpError(400, "bad_request", fault, where)
    for language, text in (("de", words.de), ("en", words.en)):
        place = f"{where}.{language}"
        text = text.strip()
        if not text:
            raise HttpError(400, "bad_request", f"{place}: a text is missing.", place)
        if len(text) > characters_max:
            fault = f"{place}: at most {characters_max:,} characters are possible."
            raise HttpError(400, "bad_request", fault, place)
        if any(not each.isprintable() and (is_line or each != "\n") for each in text):
            fault = f"{place}: control characters are not allowed."
            raise HttpError(400, "bad_request", fault, place)
        found[language] = text
    return Words(found["de"], found["en"])


def checked_components(given: dict[str, str], default: Level) -> dict[Component, Level]:
    """Return components with their levels ("" is the default). Raises HttpError 400."""
    found: dict[Component, Level] = {}
    for name, level in given.items():
        place = f"components.{name[:40]}"
        try:
            component = Component(name)
        except ValueError as error:
            known = ", ".join(Component)
            text = f"There is no component {name[:40]!a}; known are {known}."
            raise HttpError(400, "bad_request", text, place) from error
        try:
            found[component] = Level(level) if level else default
        except ValueError as error:
            text = f"{place}: expected one of {', '.join(Level)}."
            raise HttpError(400, "bad_request", text, place) from error
    return found
