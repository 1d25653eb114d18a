"""The lines of a list for a campaign: what is said of each that is not taken, or looks mistyped."""

from typing import Any

from engine.intake.campaigns import FINDINGS_SHOWN_MAX
from tests.intake.test_campaigns import create, fill, lines, person, said


async def test_broken_lines_are_named_and_the_rest_goes_on(door: Any) -> None:
    body = (
        "email,name\n"
        "ann@in.example,Ann\n"
        "Tom@@ beispiel.de,Tom\n"
        'eve@in.example,"Eve\n'
        "nobody@in.example\n"
        "bob@in.example,Bob\n"
    )
    async with door() as opened:
        await create(opened)
        answer = await fill(opened, body)
        german = await fill(opened, body, headers={"Accept-Language": "de"})
        shown = (await create(opened)).json
    faults = said(answer, accepted=2, refused=3)["faults"]
    assert [(each["line"], each["where"], each["code"]) for each in faults] == [
        (3, "email", "second_at"),
        (4, "", "broken_line"),
        (5, "variables", "bad_variables"),
    ]
    assert faults[0]["suggestion"] == "tom@beispiel.de"
    assert [(each["address"], each["position"]) for each in faults] == [
        ("Tom@@ beispiel.de", 4),
        ('eve@in.example,"Eve', 15),
        ("nobody@in.example", None),
    ]
    assert "name" in faults[2]["message"]
    assert german.json["faults"][0]["message"] != faults[0]["message"]
    assert shown["refused"] == 6


async def test_what_looks_mistyped_is_taken_and_told(door: Any) -> None:
    body = "email,name\nann@gmial.com,Ann\nbob@gmial.com\ncyd@in.example,Cyd\n"
    async with door() as opened:
        await create(opened)
        answer = await fill(opened, body)
        many = await fill(
            opened,
            "email,name\n" + "".join(f"p{n}@gmial.com,P\n" for n in range(FINDINGS_SHOWN_MAX + 10)),
        )
    assert said(answer, accepted=2, refused=1, suggested=1)["suggestions"] == [
        {"line": 2, "address": "ann@gmial.com", "suggestion": "ann@gmail.com"}
    ]
    count = FINDINGS_SHOWN_MAX + 10
    told = said(many, accepted=count, suggested=count)["suggestions"]
    assert len(told) == FINDINGS_SHOWN_MAX


async def test_broken_json_lines_are_named_and_the_rest_goes_on(door: Any) -> None:
    body = (
        lines(person(1), {"email": 5}, {"email": "a@in.example", "variables": {"x": [1]}})
        + b"no json\n"
        + lines({"name": "nobody"}, person(2, more=1), person(3))
        + b'{"email":"\xff@in.example"}\n'
        + b"x" * 70_000
        + b"\n"
        + lines(person(4)).rstrip()
    )
    async with door() as opened:
        await create(opened)
        answer = await fill(opened, body, "application/x-ndjson")
    faults = said(answer, accepted=3, refused=7)["faults"]
    assert [(each["line"], each["where"], each["code"]) for each in faults] == [
        (2, "email", "bad_type"),
        (3, "variables[...]", "bad_type"),
        (4, "", "bad_json"),
        (5, "", "bad_type"),
        (6, "", "bad_type"),
        (8, "", "bad_json"),
        (9, "", "line_too_long"),
    ]


async def test_only_the_first_thousand_faults_are_shown(door: Any) -> None:
    body = "email,name\n" + "nobody\n" * (FINDINGS_SHOWN_MAX + 10)
    async with door() as opened:
        await create(opened)
        answer = await fill(opened, body)
    faults = said(answer, refused=FINDINGS_SHOWN_MAX + 10)["faults"]
    assert len(faults) == FINDINGS_SHOWN_MAX
