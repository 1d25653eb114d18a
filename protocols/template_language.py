"""The language of templates: text with placeholders, one for each value that differs by recipient.

    {{var:name}}  {{var:name:"default"}}  {{name}}  {{name:"default"}}   the value of a variable
    {{url:name}}  {{url:name:"default"}}   the same, percent-encoded, for a part of a link
    {{"text"}}                             the text itself, for braces that mean nothing: {{"{{"}}
    [[var:name]]  [[var:name:"default"]]   the older form of the first

It is the part of Mailjet's language that fills values in, so that what senders have written for it
means the same. Its statements (`{% if … %}`), expressions, functions and contact properties are
refused with their place: a placeholder that is not filled in is a worse mail than none. Two closing
braces without opening ones are text, because style sheets end that way.

How a value is escaped is for who fills in: `Text.values` takes it as an argument.
"""

import re
from collections.abc import Callable
from html import unescape
from typing import Final
from urllib.parse import quote

import msgspec

NAME_CHARACTERS_MAX: Final = 64
# Farther on than this the end of a placeholder that cannot be read is not looked for.
PLACEHOLDER_CHARACTERS_MAX: Final = 2_000
# A letter has ten, a page of a catalogue some hundred.
PLACEHOLDERS_MAX: Final = 1_000
# Who made twenty mistakes in one text has made one.
FAULTS_MAX: Final = 20

_NAME: Final = r"[^\W\d][\w.-]{0,63}+"
_QUOTED: Final = r'"((?:[^"\\]|\\.)*+)"'
_REST: Final = rf"({_NAME})\s*+(?::\s*+{_QUOTED}\s*+)?"
# Possessive throughout: a text is somebody's upload, and no part of it is looked at twice.
_BRACES: Final = re.compile(
    rf"\{{\{{\s*+(?:{_QUOTED}\s*+|(?:(var|url)\s*+:\s*+)?{_REST})\}}\}}", re.DOTALL
)
_BRACKETS: Final = re.compile(rf"\[\[\s*+(var|url)\s*+:\s*+{_REST}\]\]", re.DOTALL)
_BRACKETS_BEGIN: Final = r"\[\[\s*+(?:var|url|data|mj)\s*+:"
_OPENING_BRACKETS: Final = re.compile(_BRACKETS_BEGIN)
_OPENING: Final = re.compile(
    rf"\{{\{{|{_BRACKETS_BEGIN}"
    r"|\{%-?\s*+(?:if|elseif|else|endif|for|endfor|set|raw|endraw)\b"
)
_VARIABLE_NAME: Final = re.compile(_NAME)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_NAMESPACE: Final = re.compile(r"(var|url|data|mj|segmentation)\s*+:", re.IGNORECASE)
_NAMESPACES: Final = frozenset(("var", "url", "data", "mj", "segmentation"))


class Placeholder(msgspec.Struct, frozen=True):
    """A place that is filled in. Without a name it stands for `default`, which is never None then.

    `line` and `column` are where it begins, both counted from 1.
    """

    name: str
    default: str | None
    is_url: bool
    line: int
    column: int


class TextFault(msgspec.Struct, frozen=True):
    """What is wrong in a text, and where: line and column (in characters) counted from 1."""

    line: int
    column: int
    text: str


class MissingVariable(ValueError):
    """A placeholder has no default, and there is no value for it; `name` says which."""

    def __init__(self, name: str) -> None:
        super().__init__(f'there is no value for the variable "{name}", and no default')
        self.name = name


class Text(msgspec.Struct, frozen=True):
    """A text between and around its placeholders: one more literal than placeholders.

    Line ends are LF.
    """

    literals: tuple[str, ...]
    placeholders: tuple[Placeholder, ...]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(each.name for each in self.placeholders if each.name)

    def values(self, find: Callable[[str], str | None], escape: Callable[[str], str]) -> list[str]:
        """Return what stands at each placeholder. Raises MissingVariable.

        `find` returns a variable's value or None; defaults are escaped like values.
        """
        found: list[str] = []
        for each in self.placeholders:
            value = find(each.name) if each.name else None
            if value is None:
                value = each.default
                if value is None:
                    raise MissingVariable(each.name)
            found.append(escape(percent_encoded(value) if each.is_url else value))
        return found

    def characters_inserted(self, find: Callable[[str], str | None]) -> int:
        """Return how long the values are together before they are escaped, missing ones as none."""
        return sum(
            len((find(each.name) if each.name else None) or each.default or "")
            for each in self.placeholders
        )

    def characters_escaped(
        self, find: Callable[[str], str | None], escape: Callable[[str], str]
    ) -> int:
        """Return how long the values are together as `values` would have them, without that."""
        lengths: dict[tuple[str, bool], int] = {}
        count = 0
        for each in self.placeholders:
            length = lengths.get((each.name, each.is_url))
            if length is None:
                value = (find(each.name) if each.name else None) or ""
                shown = escape(percent_encoded(value) if each.is_url else value)
                length = lengths[each.name, each.is_url] = len(shown)
            count += length or len(each.default or "")
        return count

    def forgiving(self) -> "Text":
        """Return the same text with nothing in place of what has neither a value nor a default."""
        return Text(
            self.literals,
            tuple(
                msgspec.structs.replace(each, default=each.default or "")
                for each in self.placeholders
            ),
        )

    def with_values(self, values: list[str]) -> str:
        """Return the text with these at its placeholders."""
        if not values:
            return self.literals[0]
        parts = [""] * (2 * len(values) + 1)
        parts[::2] = self.literals
        parts[1::2] = values
        return "".join(parts)


def parse_text(
    text: str, *, is_html: bool = False, brackets_only: bool = False
) -> Text | list[TextFault]:
    """Return the text cut at its placeholders, or what is wrong with it.

    In HTML a placeholder may have entities, as editors write them: `{{name:&quot;R&amp;D&quot;}}`.
    With `brackets_only` braces mean nothing: that is what the older form was before the language.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    literals: list[str] = []
    placeholders: list[Placeholder] = []
    faults: list[TextFault] = []
    end = 0
    places = _Places(text)
    search = (_OPENING_BRACKETS if brackets_only else _OPENING).search
    opening = search(text)
    while opening is not None and len(faults) < FAULTS_MAX:
        start = opening.start()
        line, column = places.of(start)
        if len(placeholders) == PLACEHOLDERS_MAX:
            more = f"a text has at most {PLACEHOLDERS_MAX} placeholders"
            return [*faults, TextFault(line, column, more)]
        found = _match_at(text, start) or (_match_with_entities(text, start) if is_html else None)
        if found is None:
            faults.append(TextFault(line, column, _diagnosis(text, start)))
            opening = search(text, opening.end())
            continue
        (namespace, name, default), after = found
        if default is not None and is_html:
            default = unescape(default)
        literals.append(text[end:start])
        placeholders.append(Placeholder(name, default, namespace == "url", line, column))
        end = after
        opening = search(text, end)
    if faults:
        return faults
    literals.append(text[end:])
    return Text(tuple(literals), tuple(placeholders))


def _match_at(text: str, start: int) -> tuple[tuple[str, str, str | None], int] | None:
    """Return namespace, name and default of the placeholder at `start`, and where it ends."""
    match = _BRACES.match(text, start) or _BRACKETS.match(text, start)
    if match is None:
        return None
    *literal, namespace, name, default = match.groups()
    if name in _NAMESPACES:
        return None
    if name is None:
        name, default = "", literal[0]
    if default is not None:
        default = _ESCAPED.sub(r"\1", default)
    return (namespace, name, default), match.end()


def _match_with_entities(text: str, start: int) -> tuple[tuple[str, str, str | None], int] | None:
    end = _end_of(text, start)
    if end < 0:
        return None
    written = unescape(text[start:end])
    found = _match_at(written, 0)
    return (found[0], end) if found is not None and found[1] == len(written) else None


def _end_of(text: str, start: int) -> int:
    """Return where what opens at `start` is closed, -1 if that is not near."""
    closing = "}}" if text.startswith("{{", start) else "]]"
    end = text.find(closing, start + 2, start + 2 + PLACEHOLDER_CHARACTERS_MAX)
    return end + 2 if end >= 0 else -1


def is_variable_name(text: str) -> bool:
    """Say whether a template can name a variable so: a letter, then letters, digits and ". _ -"."""
    return _VARIABLE_NAME.fullmatch(text) is not None and text not in _NAMESPACES


def percent_encoded(value: str) -> str:
    """Return `value` as a part of a URL (RFC 3986 2.3): unreserved characters stay."""
    return quote(value, safe="")


def place_in(text: str, position: int) -> tuple[int, int]:
    """Return the line and column of a position, counted from 1."""
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)


class _Places:
    """Lines and columns of positions that only grow: what was counted is not counted again."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._line = 1
        self._line_start = 0

    def of(self, position: int) -> tuple[int, int]:
        breaks = self._text.count("\n", self._position, position)
        if breaks:
            self._line += breaks
            self._line_start = self._text.rfind("\n", self._position, position) + 1
        self._position = position
        return self._line, position - self._line_start + 1


def _diagnosis(text: str, start: int) -> str:
    """Say what is wrong with what opens at `start`."""
    opened = text[start : start + 2]
    if opened == "{%":
        return "statements such as {% if … %} are not available: only values are filled in"
    end = _end_of(text, start)
    if end < 0:
        closing = "}}" if opened == "{{" else "]]"
        return (
            f'"{opened}" is never closed with "{closing}"; for braces as text write {{{{"{{{{"}}}}'
        )
    if text.startswith("{", start + 2):
        return "three braces: values are always escaped, there is no raw form"
    inside = text[start + 2 : end - 2].strip()
    namespace = _NAMESPACE.match(inside)
    name, _, default = inside[namespace.end() if namespace else 0 :].partition(":")
    name = name.strip()
    if namespace is not None and namespace[1].lower() not in ("var", "url"):
        return f'"{namespace[1]}:" is not available: write {{{{var:name}}}} for a value of the list'
    if opened in inside:
        return f'"{opened}" is not closed before the next "{opened}"'
    if not name or name.startswith('"'):
        return "the name of a variable is missing"
    if not is_variable_name(name):
        return (
            f'"{name[:NAME_CHARACTERS_MAX]}" is no name for a variable: a letter, then up to '
            f"{NAME_CHARACTERS_MAX - 1} letters, digits, dots, hyphens and underscores"
        )
    if default:
        return 'a default stands in quotation marks: {{var:name:"default"}}'
    return "after the name stands nothing, or a colon and a default in quotation marks"
