"""Texts with placeholders: what is filled in, and where a text is wrong."""

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.template_language import (
    PLACEHOLDERS_MAX,
    MissingVariable,
    Text,
    TextFault,
    is_variable_name,
    parse_text,
)


def filled(text: str, escape: type[str] | None = None, /, **variables: str) -> str:
    parsed = parse_text(text)
    assert isinstance(parsed, Text), parsed
    return parsed.with_values(parsed.values(variables.get, escape or str))


def faults(text: str) -> list[TextFault]:
    parsed = parse_text(text)
    assert isinstance(parsed, list), parsed
    return parsed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no placeholder", "no placeholder"),
        ("", ""),
        ("{{name}}", "Ann"),
        ("{{var:name}}", "Ann"),
        ("[[var:name]]", "Ann"),
        ("{{ var : name }}", "Ann"),
        ("{{\n name }}", "Ann"),
        ("Dear {{name}}, {{name}}!", "Dear Ann, Ann!"),
        ('{{title:"Ms"}} {{name:"nobody"}}', "Ms Ann"),
        ('{{var:title:""}}{{name}}', "Ann"),
        (r'{{var:title:"a \"b\" \\ c"}}', r'a "b" \ c'),
        ('[[var:title:"[x]"]]', "[x]"),
        ('{{"{{name}}"}} {{"}}"}}', "{{name}} }}"),
        ("a{{name}}{{name}}b", "aAnnAnnb"),
        ("?q={{url:word}}", "?q=a%26b%20%C3%BC"),
        ('?q={{url:none:"x y"}}', "?q=x%20y"),
        ("@media x{p{a:b}}", "@media x{p{a:b}}"),
        ("{a} {%} [[1]] [x] { {name} }", "{a} {%} [[1]] [x] { {name} }"),
        ("{{vorname_2.a-b}}", "V"),
        ("{{Straße}}", "Weg 1"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
    ],
)
def test_what_is_filled_in(text: str, expected: str) -> None:
    variables = {"name": "Ann", "word": "a&b ü", "vorname_2.a-b": "V", "Straße": "Weg 1"}
    assert filled(text, **variables) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{var:x:&quot;R&amp;D&quot;}}", "R&amp;D"),
        ('{{var:x:"R&amp;D"}}', "R&amp;D"),
        ('{{var:x:"R&D"}}', "R&amp;D"),
        ("{{&nbsp;name&#32;}}", "A&amp;B"),
        ("[[var:x:&#34;y&#34;]]", "y"),
        ("&quot;{{name}}&quot;", "&quot;A&amp;B&quot;"),
    ],
)
def test_in_html_placeholders_may_have_entities(text: str, expected: str) -> None:
    parsed = parse_text(text, is_html=True)
    assert isinstance(parsed, Text)
    assert parsed.with_values(parsed.values({"name": "A&B"}.get, html.escape)) == expected


def test_elsewhere_an_entity_is_text() -> None:
    assert filled('{{x:"R&amp;D"}}') == "R&amp;D"
    assert "quotation marks" in faults("{{x:&quot;R&amp;D&quot;}}")[0].text


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a\n b {{name", 2, 4, "never closed"),
        ("{{{name}}}", 1, 1, "no raw form"),
        ("x {{}}", 1, 3, "missing"),
        ("{{ }}", 1, 1, "missing"),
        ("{{1st}}", 1, 1, '"1st" is no name'),
        ("{{first name}}", 1, 1, '"first name" is no name'),
        ("{{" + "n" * 65 + "}}", 1, 1, "is no name"),
        ("{{name:there}}", 1, 1, "quotation marks"),
        ('{{name:"there}}', 1, 1, "quotation marks"),
        ("{{var:}}", 1, 1, "missing"),
        ('{{var:"x"}}', 1, 1, "missing"),
        ("{{data:name}}", 1, 1, '"data:" is not available'),
        ("[[data:name]]", 1, 1, '"data:" is not available'),
        ("[[var:name}}", 1, 1, "never closed"),
        ("{{name {{name}}", 1, 1, "before the next"),
        ("\n\n{% if var:x %}", 3, 1, "statements"),
        ("ä€😀{{", 1, 4, "never closed"),
    ],
)
def test_where_a_text_is_wrong(text: str, line: int, column: int, words: str) -> None:
    fault = faults(text)[0]
    assert (fault.line, fault.column) == (line, column)
    assert words in fault.text


def test_all_faults_are_told_up_to_a_limit() -> None:
    assert [(each.line, each.column) for each in faults("{{1}}\n{{a}} {{2}}")] == [(1, 1), (2, 7)]
    assert len(faults("{{" * 100_000)) == 20


def test_there_are_not_too_many_placeholders() -> None:
    assert isinstance(parse_text("{{a}}" * PLACEHOLDERS_MAX), Text)
    (fault,) = faults("{{a}}" * (PLACEHOLDERS_MAX + 1))
    assert (fault.line, fault.column) == (1, 5 * PLACEHOLDERS_MAX + 1)


def test_a_variable_without_value_and_default_is_named() -> None:
    with pytest.raises(MissingVariable, match='"name"') as raised:
        filled("{{name}}")
    assert raised.value.name == "name"


def test_values_and_defaults_are_escaped_and_literals_are_not() -> None:
    parsed = parse_text('<b>{{name}}</b>{{none:"R&D"}}')
    assert isinstance(parsed, Text)
    values = parsed.values({"name": "<i>"}.get, html.escape)
    assert parsed.with_values(values) == "<b>&lt;i&gt;</b>R&amp;D"


@given(st.text('{}[]%:"\\ \nvarun1ü<'))
def test_any_text_is_read_or_its_faults_lie_in_it(text: str) -> None:
    parsed = parse_text(text)
    if isinstance(parsed, Text):
        assert len(parsed.literals) == len(parsed.placeholders) + 1
        assert all(is_variable_name(name) for name in parsed.names)
    else:
        lines = text.replace("\r", "\n").split("\n")
        assert parsed
        assert all(0 < each.column <= len(lines[each.line - 1]) for each in parsed)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{[\r")))
def test_text_without_openings_is_kept(text: str) -> None:
    assert filled(text) == text
