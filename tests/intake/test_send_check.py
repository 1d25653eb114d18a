"""What `POST /v3.1/send` takes and refuses: every code of the catalogue, at its place."""

import base64
import json
from typing import Any

import pytest

from engine.config import load_typos
from engine.intake.send_check import (
    ATTACHMENT_OCTETS_MAX,
    EVENT_PAYLOAD_CHARACTERS_MAX,
    Draft,
    MessageChecker,
    merged,
)
from engine.intake.send_errors import SendError
from engine.intake.send_request import SendRequest, decode_send_request
from protocols.addresses import FaultCode

TYPOS = load_typos()

GOOD: dict[str, Any] = {
    "From": {"Email": "sender@out.example", "Name": "Sender"},
    "To": [{"Email": "ann@in.example"}],
    "Subject": "Hello",
    "TextPart": "text",
}
FILE = {"ContentType": "text/plain", "Filename": "a.txt", "Base64Content": "YWJj"}


def decode(root: object) -> SendRequest:
    request = decode_send_request(json.dumps(root).encode())
    assert isinstance(request, SendRequest), request
    return request


def check(message: object, **root: object) -> Draft | list[SendError]:
    request = decode({"Messages": [message], **root})
    assert request.messages is not None
    (given,) = request.messages
    if isinstance(given, list):
        return given
    return MessageChecker(TYPOS).check(merged(given, request.globals_))


def draft(**changes: object) -> Draft:
    checked = check(GOOD | changes)
    assert isinstance(checked, Draft), checked
    return checked


def errors(message: object) -> list[SendError]:
    checked = check(message)
    assert isinstance(checked, list), checked
    assert checked
    return checked


def codes(**changes: object) -> list[tuple[str, tuple[str, ...]]]:
    message = {name: value for name, value in (GOOD | changes).items() if value is not ABSENT}
    return [(error.code, error.related_to) for error in errors(message)]


ABSENT = object()


def test_a_plain_message_becomes_a_draft() -> None:
    found = draft(
        Sender={"Email": "office@out.example"},
        Cc=[{"Email": "C@In.Example", "Name": ""}],
        Bcc=[{"Email": "b@müller.test", "Name": None}],
        ReplyTo={"Email": "reply@out.example", "Name": "Reply"},
        HTMLPart="<p>text</p>",
        Attachments=[FILE],
        InlinedAttachments=[FILE | {"ContentID": "id1"}, FILE | {"Filename": "my logo.png"}],
        Headers={"X-One": "1", "List-Unsubscribe": "<https://out.example/u>"},
        CustomID="c1",
        EventPayload='{"o":1}',
        CustomCampaign="autumn",
        Priority=1,
        TrackOpens="enabled",
        TrackClicks="disabled",
        TemplateLanguage=False,
        Variables={},
        DeduplicateCampaign=False,
    )
    assert (found.from_.name, found.from_.address.wire) == ("Sender", "sender@out.example")
    assert found.sender is not None
    assert [m.address.wire for m in found.cc + found.bcc] == [
        "C@in.example",
        "b@xn--mller-kva.test",
    ]
    assert found.reply_to is not None
    assert (found.text, found.html) == ("text", "<p>text</p>")
    assert [part.content_id for part in found.inline] == ["id1", "my%20logo.png"]
    assert found.attachments[0].content == b"abc"
    assert dict(found.extra_fields)["X-One"] == "1"
    assert (found.custom_id, found.event_payload, found.campaign) == ("c1", '{"o":1}', "autumn")
    assert [warning.property for warning in found.warnings] == ["TrackOpens"]


@pytest.mark.parametrize(("priority", "lane"), [(None, 0), (0, 1), (1, 1), (2, 0), (3, 0)])
def test_priorities_are_two_lanes(priority: int | None, lane: int) -> None:
    assert draft(Priority=priority).lane == lane


def test_what_clients_send_without_need_is_tolerated() -> None:
    found = draft(
        From={"Email": "a@out.example", "Name": ""},
        Cc=[],
        Bcc=None,
        Attachments=[],
        InlinedAttachments=[],
        Headers={},
        HTMLPart="",
        CustomCampaign="",
        MonitoringCategory="",
    )
    assert found.attachments == ()
    assert found.html is None
    assert found.campaign is None


@pytest.mark.parametrize("text", ["YWJj\r\n", "YW\r\nJj\n", " Y W J j"])
def test_white_space_in_base64_counts_for_nothing(text: str) -> None:
    assert draft(Attachments=[FILE | {"Base64Content": text}]).attachments[0].content == b"abc"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"From": ABSENT}, [("mj-0003", ("From",))]),
        ({"From": None}, [("mj-0003", ("From",))]),
        ({"From": {"Name": "x"}}, [("mj-0003", ("From.Email",))]),
        ({"From": {"Email": ""}}, [("mj-0012", ("From.Email",))]),
        ({"To": ABSENT}, [("mj-0003", ("To",))]),
        ({"To": []}, [("mj-0007", ("To",))]),
        ({"To": [{"Email": "bad@r..example"}]}, [("mj-0013", ("To[0].Email",))]),
        (
            {"To": [{"Email": "ok@r.example"}, {"Email": "x"}], "Cc": [{"Email": "y"}]},
            [("mj-0013", ("To[1].Email",)), ("mj-0013", ("Cc[0].Email",))],
        ),
        ({"ReplyTo": {"Email": "@"}}, [("mj-0013", ("ReplyTo.Email",))]),
        ({"Sender": {"Email": "@"}}, [("mj-0013", ("Sender.Email",))]),
        ({"To": {"Email": "a@x.test"}}, [("mj-0004", ("To",))]),
        ({"To": "a@x.test"}, [("mj-0004", ("To",))]),
        ({"To": [7]}, [("mj-0004", ("To[0]",))]),
        ({"To": [{"Email": 7}]}, [("mj-0004", ("To[0].Email",))]),
        ({"From": "a@x.test"}, [("mj-0004", ("From",))]),
        ({"Subject": 7, "TextPart": []}, [("mj-0004", ("Subject",)), ("mj-0004", ("TextPart",))]),
        ({"Headers": {"X-A": 1}}, [("mj-0004", ('Headers["X-A"]',))]),
        ({"Headers": []}, [("mj-0004", ("Headers",))]),
        ({"Attachments": {}}, [("mj-0004", ("Attachments",))]),
        ({"Attachments": ["x"]}, [("mj-0004", ("Attachments[0]",))]),
        ({"Priority": "2"}, [("mj-0004", ("Priority",))]),
        ({"Priority": 4}, [("mj-0005", ("Priority",))]),
        ({"Priority": -1}, [("mj-0005", ("Priority",))]),
        ({"TrackOpens": "maybe"}, [("mj-0005", ("TrackOpens",))]),
        ({"TrackClicks": "maybe"}, [("mj-0005", ("TrackClicks",))]),
        ({"Subject": "x" * 256}, [("mj-0006", ("Subject",))]),
        ({"URLTags": "x" * 257}, [("mj-0006", ("URLTags",)), ("mj-0005", ("URLTags",))]),
        ({"CustomCampaign": "x" * 256}, [("mj-0006", ("CustomCampaign",))]),
        ({"CustomID": "x" * 256}, [("mj-0006", ("CustomID",))]),
        (
            {"EventPayload": "x" * (EVENT_PAYLOAD_CHARACTERS_MAX + 1)},
            [("mj-0006", ("EventPayload",))],
        ),
        ({"From": {"Email": "a@x.test", "Name": "x" * 256}}, [("mj-0006", ("From.Name",))]),
        ({"Attachments": [FILE] * 101}, [("mj-0008", ("Attachments",))]),
        ({"Headers": {f"X-{n}": "" for n in range(10_000)}}, [("mj-0008", ("Headers",))]),
        ({"Headers": {"X-A": "x " * 500_000}}, [("mj-0006", ('Headers["X-A"]',))]),
        ({"Headers": {"X-A": "x" * 2_000}}, [("mj-0005", ('Headers["X-A"]',))]),
        ({"TextPart": ABSENT}, [("send-0003", ("TextPart", "HTMLPart", "TemplateID"))]),
        ({"TextPart": ""}, [("send-0003", ("TextPart", "HTMLPart", "TemplateID"))]),
        ({"TextPart": ABSENT, "TemplateID": 1}, [("send-0010", ("TemplateID",))]),
        ({"TemplateErrorDeliver": True}, [("send-0016", ("TemplateLanguage",))]),
        (
            {"TemplateErrorReporting": {"Email": "a@x.test"}},
            [("send-0016", ("TemplateLanguage",))],
        ),
        (
            {"DeduplicateCampaign": True},
            [("send-0012", ("CustomCampaign", "DeduplicateCampaign"))],
        ),
        (
            {"DeduplicateCampaign": True, "CustomCampaign": "c"},
            [("mj-0005", ("DeduplicateCampaign",))],
        ),
        ({"MonitoringCategory": "x"}, [("send-0013", ("MonitoringCategory",))]),
        ({"StatisticsContactsListID": 1}, [("mj-0005", ("StatisticsContactsListID",))]),
        (
            {"To": [{"Email": f"a{n}@x.test"} for n in range(51)]},
            [("send-0015", ("To", "Cc", "Bcc"))],
        ),
        (
            {
                "To": [{"Email": f"a{n}@x.test"} for n in range(30)],
                "Bcc": [{"Email": f"b{n}@x.test"} for n in range(21)],
            },
            [("send-0015", ("To", "Cc", "Bcc"))],
        ),
        ({"Nonsense": 1}, [("mj-0002", ("Nonsense",))]),
        ({"From": {"Email": "a@x.test", "Mail": 1}}, [("mj-0002", ("From.Mail",))]),
        ({"To": [{"Email": "a@x.test", "Mail": 1}]}, [("mj-0002", ("To[0].Mail",))]),
    ],
)
def test_the_catalogue_with_its_paths(
    changes: dict[str, object], expected: list[tuple[str, tuple[str, ...]]]
) -> None:
    assert codes(**changes) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ContentType": None}, "mj-0003 Attachments[0].ContentType"),
        ({"Filename": None}, "mj-0003 Attachments[0].Filename"),
        ({"Base64Content": None}, "mj-0003 Attachments[0].Base64Content"),
        ({"ContentType": ""}, "mj-0012 Attachments[0].ContentType"),
        ({"Filename": ""}, "mj-0012 Attachments[0].Filename"),
        ({"Base64Content": ""}, "mj-0012 Attachments[0].Base64Content"),
        ({"Base64Content": "YWJ"}, "mj-0004 Attachments[0].Base64Content"),
        ({"Base64Content": "YW=Jj"}, "mj-0004 Attachments[0].Base64Content"),
        ({"Base64Content": "YW*j"}, "mj-0004 Attachments[0].Base64Content"),
        ({"Base64Content": "YWJü"}, "mj-0004 Attachments[0].Base64Content"),
        ({"Base64Content": 7}, "mj-0004 Attachments[0].Base64Content"),
        ({"ContentType": "text"}, "mj-0005 Attachments[0].ContentType"),
        ({"ContentType": "multipart/mixed"}, "mj-0005 Attachments[0].ContentType"),
        ({"ContentType": "a/b\r\nBcc: eve@evil.test"}, "mj-0005 Attachments[0].ContentType"),
        ({"Filename": "a\r\nBcc: eve@evil.test"}, "mj-0005 Attachments[0].Filename"),
        ({"Filename": "x" * 256}, "mj-0006 Attachments[0].Filename"),
        ({"Extra": "x"}, "mj-0002 Attachments[0].Extra"),
    ],
)
def test_faults_of_attachments(changes: dict[str, object], expected: str) -> None:
    ((code, (path,)),) = codes(Attachments=[FILE | changes])
    assert f"{code} {path}" == expected


def test_a_content_id_that_is_none_is_refused() -> None:
    inline = [FILE, FILE | {"ContentID": "a>\r\nX: y"}]
    assert codes(InlinedAttachments=inline) == [("mj-0005", ("InlinedAttachments[1].ContentID",))]


def test_all_attachments_together_have_a_limit() -> None:
    half = base64.b64encode(bytes(ATTACHMENT_OCTETS_MAX // 2 + 1)).decode()
    big = FILE | {"Base64Content": half}
    assert codes(Attachments=[big], InlinedAttachments=[big]) == [
        ("mj-0011", ("Attachments", "InlinedAttachments"))
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("From", "sender", "SUBJECT", "To", "Cc", "Bcc", "Return-Path", "Delivered-To"),
        *("DKIM-Signature", "DomainKey-Status", "Received-SPF", "Authentication-Results"),
        *("Received", "X-Mailjet-Prio", "X-Mailjet-Debug", "User-Agent", "X-Mailer"),
        *("X-MJ-CustomID", "X-MJ-EventPayload", "X-MJ-Vars", "X-MJ-TemplateID", "X-Feedback-Id"),
        *("List-Id", "X-MJ-MID", "Date", "X-CSA-Complaints", "Message-Id", "X-Mailjet-Campaign"),
        *("Content-Type", "MIME-Version", "Content-Transfer-Encoding", "Resent-Bcc"),
        *("X: y\r\nZ", "X y", "X:", "X\0", "Ü", "", "X" * 77),
    ],
)
def test_headers_that_a_sender_may_not_set(name: str) -> None:
    assert codes(Headers={name: "v"}) == [("send-0011", (f'Headers["{name}"]',))]


def test_reply_to_is_one_or_the_other() -> None:
    headers = {"Reply-To": "a@x.test"}
    assert draft(Headers=headers).extra_fields == (("Reply-To", "a@x.test"),)
    assert codes(Headers=headers, ReplyTo={"Email": "b@x.test"}) == [
        ("send-0011", ('Headers["Reply-To"]',))
    ]


LINE_ENDS = ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\0"]


@pytest.mark.parametrize("line_end", LINE_ENDS, ids=ascii)
def test_injection_is_refused_in_every_field_that_reaches_the_header(line_end: str) -> None:
    bad = f"x{line_end}Bcc: eve@evil.test"
    assert codes(Subject=bad) == [("mj-0005", ("Subject",))]
    assert codes(Headers={"X-A": bad}) == [("mj-0005", ('Headers["X-A"]',))]
    assert codes(Headers={"List-Unsubscribe": f"<https://x.test/{bad}>"}) == [
        ("mj-0005", ('Headers["List-Unsubscribe"]',))
    ]
    assert codes(Headers={bad: "v"}) == [("send-0011", (f'Headers["{bad}"]',))]
    for name in ("From", "Sender", "ReplyTo"):
        assert codes(**{name: {"Email": "a@x.test", "Name": bad}}) == [
            ("mj-0005", (f"{name}.Name",))
        ]
        assert codes(**{name: {"Email": f"a@x.test{line_end}"}}) == [
            ("mj-0013", (f"{name}.Email",))
        ]
    for name in ("To", "Cc", "Bcc"):
        assert codes(**{name: [{"Email": "a@x.test", "Name": bad}]}) == [
            ("mj-0005", (f"{name}[0].Name",))
        ]


def test_a_bad_address_is_told_its_place_and_repair() -> None:
    (error,) = errors(GOOD | {"To": [{"Email": "Tom@@ beispiel.de"}]})
    assert error.message.startswith('"Tom@@ beispiel.de" is an invalid email address.')
    assert "position 4" in error.message
    assert "tom@beispiel.de" in error.message
    assert error.address_fault is not None
    assert error.address_fault.code is FaultCode.SECOND_AT
    assert error.to_json("1")["AddressFault"] is error.address_fault


def test_a_huge_bad_value_is_not_sent_back_whole() -> None:
    (error,) = errors(GOOD | {"To": [{"Email": "x" * 65_536}]})
    assert len(error.message) < 1_000


def test_property_names_are_found_in_any_case() -> None:
    checked = check(
        {
            "from": {"email": "a@out.example", "NAME": "A"},
            "TO": [{"EMAIL": "b@in.example"}],
            "HtmlPart": "<p>x</p>",
            "Customid": "c",
            "attachments": [
                {"contenttype": "text/plain", "FileName": "f", "base64content": "YWJj"}
            ],
        }
    )
    assert isinstance(checked, Draft)
    assert (checked.html, checked.custom_id) == ("<p>x</p>", "c")
    assert checked.attachments[0].filename == "f"


def test_globals_stand_in_and_a_message_overrides_them() -> None:
    shared = {key: value for key, value in GOOD.items() if key != "To"} | {
        "Headers": {"X-A": "1"},
        "Attachments": [FILE],
        "CustomID": "shared",
    }
    own = {"To": [{"Email": "ann@in.example"}], "CustomID": "own", "Attachments": []}
    checked = check(own, Globals=shared)
    assert isinstance(checked, Draft)
    assert (checked.text, checked.custom_id, checked.attachments) == ("text", "own", ())
    assert checked.extra_fields == (("X-A", "1"),)


def test_headers_and_variables_are_added_to_those_of_globals() -> None:
    # As django-anymail gives merge_global_data beside merge_data, and extra headers likewise.
    shared = GOOD | {
        "To": None,
        "TextPart": "[[var:a]] [[var:b]] [[var:c]]",
        "Headers": {"X-A": "1", "X-B": "1"},
        "Variables": {"a": "1", "b": "1"},
    }
    own = {"To": GOOD["To"], "Headers": {"x-b": "2"}, "Variables": {"b": "2", "c": "2"}}
    checked = check(own, Globals=shared)
    assert isinstance(checked, Draft)
    assert checked.text == "1 2 2"
    assert checked.extra_fields == (("X-A", "1"), ("x-b", "2"))


def test_files_in_globals_are_decoded_once() -> None:
    shared = GOOD | {"To": None, "Attachments": [FILE]}
    request = decode({"Messages": [{"To": GOOD["To"]}] * 2, "Globals": shared})
    checker = MessageChecker(TYPOS)
    first, second = (
        checker.check(merged(message, request.globals_))
        for message in request.messages or ()
        if not isinstance(message, list)
    )
    assert isinstance(first, Draft)
    assert isinstance(second, Draft)
    assert first.attachments[0] is second.attachments[0]


def test_mistakes_beyond_fifty_are_not_counted_up() -> None:
    assert len(errors(GOOD | {f"X{n}": n for n in range(1_000)})) == 50
    recipients = [{"Email": "x", "Name": "a\nb"}] * 50
    assert len(errors(GOOD | {"To": recipients, "Cc": recipients})) == 50


def test_probable_typing_errors_of_recipients_are_warned_of_and_block_nothing() -> None:
    found = check(
        {
            "From": {"Email": "shop@gmial.com"},
            "To": [{"Email": "ann@gmail.com"}, {"Email": "Tom@GMIAL.com"}],
            "Cc": [{"Email": "eve@web.ed"}],
            "Bcc": [{"Email": "bob@mailo.com"}],
            "TextPart": "text",
            "TrackClicks": "enabled",
        }
    )
    assert isinstance(found, Draft)
    assert [mailbox.address.as_given for mailbox in found.to] == ["ann@gmail.com", "Tom@GMIAL.com"]
    assert [(warning.property, warning.suggestion) for warning in found.warnings] == [
        ("TrackClicks", None),
        ("To[1].Email", "Tom@gmail.com"),
        ("Cc[0].Email", "eve@web.de"),
    ]


def test_the_suggestion_of_a_refused_address_is_the_domain_meant() -> None:
    found = check(
        {
            "From": {"Email": "shop@out.example"},
            "To": [{"Email": "Tom@@ gmial.com"}],
            "TextPart": "text",
        }
    )
    assert isinstance(found, list)
    (error,) = found
    assert error.address_fault is not None
    assert error.address_fault.suggestion == "tom@gmail.com"
    assert error.message.endswith("did you mean tom@gmail.com?")
