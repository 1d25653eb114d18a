"""Texts filled in at intake: what recipients read, and what is refused with its place."""

import email
import email.policy
from email.message import EmailMessage
from typing import Any

import pytest

from engine.intake.send_texts import VARIABLES_MAX
from protocols.templates import FILLED_CHARACTERS_MAX
from tests.intake.examples import MESSAGE, batch
from tests.intake.test_send_check import codes, draft, errors


def texts(**changes: object) -> tuple[str, str | None, str | None]:
    found = draft(**changes)
    return found.subject, found.text, found.html


def test_all_three_texts_are_filled_in() -> None:
    assert texts(
        TemplateLanguage=True,
        Subject="For {{var:name}}",
        TextPart='Dear {{var:name}}, {{var:title:"no title"}} & [[var:name]]',
        HTMLPart='<p title="{{name}}">{{var:order.number}} {{paid}}</p>',
        Variables={
            "name": 'Jörg "<J>"',
            "title": None,
            "order": {"number": 12, "price": 1.5},
            "paid": True,
        },
    ) == (
        'For Jörg "<J>"',
        'Dear Jörg "<J>", no title & Jörg "<J>"',
        '<p title="Jörg &quot;&lt;J&gt;&quot;">12 true</p>',
    )


def test_an_empty_value_is_a_value() -> None:
    assert texts(TemplateLanguage=True, TextPart='a{{var:x:"default"}}b', Variables={"x": ""}) == (
        "Hello",
        "ab",
        None,
    )


def test_defaults_need_no_variables() -> None:
    assert texts(TemplateLanguage=True, TextPart='{{var:x:"there"}}')[1] == "there"


def test_without_the_language_braces_mean_nothing() -> None:
    plain = "{{var:a}} [[var:a]] {% if a %}"
    assert texts(TextPart=plain)[1] == plain
    assert texts(TextPart=plain, Variables={"a": 1})[1] == "{{var:a}} 1 {% if a %}"
    assert texts(TextPart=plain, TemplateLanguage=False, Variables={"a": 1})[1] == (
        "{{var:a}} 1 {% if a %}"
    )


def test_a_value_cannot_leave_its_header() -> None:
    found = texts(
        TemplateLanguage=True, Subject="For {{a}}", Variables={"a": "x\r\nBcc: eve@x.test\u2028"}
    )
    assert found[0] == "For x Bcc: eve@x.test"


def test_the_subject_counts_as_it_is_read() -> None:
    long = '{{var:a:"' + "y" * 300 + '"}}'
    assert texts(TemplateLanguage=True, Subject=long, Variables={"a": "x"})[0] == "x"
    assert codes(TemplateLanguage=True, Subject="{{a}}", Variables={"a": "x" * 256}) == [
        ("mj-0006", ("Subject",))
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"TextPart": "{{var:a}}"}, [("mj-0003", ("Variables.a", "TextPart"))]),
        (
            {"Subject": "{{a}} {{a}}", "HTMLPart": "{{a}} {{b.c}}", "Variables": {"b": {"c": []}}},
            [
                ("mj-0003", ("Variables.a", "Subject")),
                ("mj-0003", ("Variables.a", "HTMLPart")),
                ("mj-0003", ("Variables.b.c", "HTMLPart")),
            ],
        ),
        (
            {"TextPart": "a\n {{b", "HTMLPart": "{% if var:a %}"},
            [("mj-0005", ("TextPart",)), ("mj-0005", ("HTMLPart",))],
        ),
        ({"TextPart": "{{data:name}}"}, [("mj-0005", ("TextPart",))]),
        (
            {"TextPart": "{{a}}" * 10, "Variables": {"a": "x" * (FILLED_CHARACTERS_MAX // 9)}},
            [("mj-0011", ("Variables",))],
        ),
        (
            {
                "HTMLPart": "{{url:a}}" * 10,
                "Variables": {"a": "é" * (FILLED_CHARACTERS_MAX // 50)},
            },
            [("mj-0011", ("Variables",))],
        ),
        (
            {"Variables": {f"n{n}": n for n in range(VARIABLES_MAX + 1)}},
            [("mj-0008", ("Variables",))],
        ),
        ({"TemplateID": 5}, [("send-0010", ("TemplateID",))]),
    ],
)
def test_what_cannot_be_filled_in_is_refused(
    changes: dict[str, object], expected: list[tuple[str, tuple[str, ...]]]
) -> None:
    assert codes(TemplateLanguage=True, **changes) == expected


def test_an_error_says_where_it_is() -> None:
    good = {"From": {"Email": "a@out.example"}, "To": [{"Email": "b@in.example"}]}
    template = good | {"TemplateLanguage": True, "TextPart": "one\n two {{x}} {{y:z}}"}
    (syntax,) = errors(template)
    assert "At line 2, column 12: a default stands in quotation marks" in syntax.message
    (missing,) = errors(template | {"TextPart": "one\n two {{x}}", "Variables": {"x": []}})
    assert missing.message == (
        "Missing mandatory property. In TextPart, at line 2, column 6, the variable "
        '"x" has no default, and in Variables it is an array or an object.'
    )


def test_deep_objects_are_followed_so_far() -> None:
    deep: Any = "x"
    for _ in range(40):
        deep = {"a": deep}
    assert codes(
        TemplateLanguage=True, TextPart="{{" + ".".join("a" * 40) + "}}", Variables=deep
    ) == [("mj-0005", ("TextPart",))]
    near = ".".join("a" * 20)
    assert codes(TemplateLanguage=True, TextPart="{{" + near + "}}", Variables=deep) == [
        ("mj-0003", (f"Variables.{near}", "TextPart"))
    ]


def test_missing_variables_are_forgiven_on_request() -> None:
    found = draft(
        TemplateLanguage=True,
        TemplateErrorDeliver=True,
        TemplateErrorReporting={"Email": "dev@out.example"},
        TextPart='a{{x}}b{{x:"c"}}',
    )
    assert found.text == "abc"
    assert [warning.property for warning in found.warnings] == [
        "TemplateErrorReporting",
        "TextPart",
    ]
    assert codes(TemplateLanguage=True, TemplateErrorDeliver=True, TextPart="{{") == [
        ("mj-0005", ("TextPart",))
    ]


async def test_over_the_port_each_message_has_its_own_values(door: Any) -> None:
    text = {"TemplateLanguage": True, "Subject": "Hi {{var:name}}", "HTMLPart": "<p>{{var:name}}"}
    messages = [MESSAGE | text | {"Variables": {"name": name}} for name in ("Zoë", "<Bob>")]
    bad = MESSAGE | text | {"TextPart": "{{var:none}}", "Variables": {"name": "x"}}
    async with door() as opened:
        answer = await opened.post(batch(*messages, bad))
        stored = {e.fixed.subject: e for e in await opened.envelopes()}
        contents = await opened.spool.content([e.fixed.content_id for e in stored.values()])
    assert answer.status == 400
    assert [each["Status"] for each in answer.json["Messages"]] == ["success", "success", "error"]
    assert answer.json["Messages"][2]["Errors"][0]["ErrorRelatedTo"] == [
        "Variables.none",
        "TextPart",
    ]
    assert set(stored) == {"Hi Zoë", "Hi <Bob>"}
    octets = contents[stored["Hi <Bob>"].fixed.content_id].octets
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert message["Subject"] == "Hi <Bob>"
    html = message.get_body(("html",))
    assert html is not None
    assert html.get_content().strip() == "<p>&lt;Bob&gt;"
