"""`eilpost statistics`: what it asks for, its three forms, and how it ends."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from engine.http_server import Request, Response
from tests.cli.test_control import Handler, eilpost, engine_with

COUNTS = {
    "queued": 0,
    "paused": 0,
    "deferred": 3,
    "delivered": 1200,
    "soft_bounced": 0,
    "hard_bounced": 1,
    "blocked": 0,
    "cancelled": 0,
    "total": 1204,
}
TIMES = {"count": 1200, "first_attempt": 1100, "p50_s": 0.9, "p90_s": 2.1} | {
    "p95_s": 4.0,
    "p99_s": 301.5,
    "max_s": 601.0,
}


def paged(asked: list[dict[str, str]], *rows: dict[str, Any]) -> Handler:
    """Answer with one row a page."""

    async def handler(request: Request) -> Response:
        query = dict(request.query)
        place = int(query.pop("after", "=0").removeprefix("="))
        asked.append(query)
        is_last = place + 1 == len(rows)
        return Response.json(
            {"rows": list(rows[place : place + 1]), "after": None if is_last else f"={place + 1}"}
        )

    return handler


async def test_counts_as_a_table_as_json_and_as_csv(tmp_path: Path) -> None:
    asked: list[dict[str, str]] = []
    rows = [{"key": "=one.test", **COUNTS}, {"key": "two.test", **COUNTS}]
    async with engine_with(tmp_path / "data", get_statistics=paged(asked, *rows)):
        arguments = ("statistics", "--group", "destination", "--from", "2026-11-24")
        table = await eilpost(tmp_path / "data", *arguments, "--account", "acme")
        assert table.exit_code == 0, table.output
        head, first, second = table.stdout.splitlines()
        assert head.split()[:3] == ["destination", "queued", "paused"]
        assert first.split()[0] == "=one.test"
        assert second.split() == ["two.test", *(str(count) for count in COUNTS.values())]
        wanted = {"group": "destination", "from": "2026-11-24", "account": "acme"}
        assert asked == [wanted | {"limit": "1000"}] * 2
        lines = await eilpost(tmp_path / "data", *arguments, "--json")
        assert [json.loads(line) for line in lines.stdout.splitlines()] == rows
        sheet = await eilpost(tmp_path / "data", *arguments, "--csv")
        read = [*csv.DictReader(io.StringIO(sheet.stdout))]
        assert [row["delivered"] for row in read] == ["1200", "1200"]
        assert read[0]["key"] == "'=one.test", "no spreadsheet runs it"


async def test_times_to_delivery(tmp_path: Path) -> None:
    asked: list[dict[str, str]] = []
    handler = paged(asked, {"key": "total", **TIMES})
    async with engine_with(tmp_path / "data", **{"get_statistics/delivery-times": handler}):
        said = await eilpost(tmp_path / "data", "statistics", "--times")
    assert said.exit_code == 0, said.output
    assert said.stdout.splitlines()[0].split() == ["of", "count", "first", "attempt"] + [
        word for name in ("p50", "p90", "p95", "p99", "max") for word in (name, "s")
    ]
    assert "p99 s" in said.stdout
    assert "301.5" in said.stdout
    assert asked == [{"group": "total", "limit": "1000"}]


@pytest.mark.slow
async def test_a_stopped_engine_counts_too(tmp_path: Path) -> None:
    said = await eilpost(tmp_path / "data", "statistics")
    assert said.exit_code == 0, said.output
    assert said.stdout.splitlines()[1].split() == ["total", *["0"] * 9]
    said = await eilpost(tmp_path / "data", "statistics", "--times", "--group", "day")
    assert said.stdout == "Nothing was delivered.\n"
    said = await eilpost(tmp_path / "data", "statistics", "--group", "hour", "--csv")
    assert said.stdout == ""
    assert said.stderr.endswith("\nThere is no mail.\n")


@pytest.mark.slow
async def test_wrong_usage_ends_with_2_and_a_refusal_with_1(tmp_path: Path) -> None:
    for arguments in (
        ["--group", "week"],
        ["--times", "--group", "campaign"],
        ["--csv", "--json"],
        ["--times=yes"],
    ):
        said = await eilpost(tmp_path / "data", "statistics", *arguments)
        assert said.exit_code == 2, said.output
    said = await eilpost(tmp_path / "data", "statistics", "--from", "yesterday")
    assert said.exit_code == 1
    assert "from" in said.stderr
    said = await eilpost(tmp_path / "data", "statistics", "--account", "nobody")
    assert said.exit_code == 1
    assert "There is no account 'nobody'." in said.stderr
