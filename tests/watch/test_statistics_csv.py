"""`/v1/statistics` as CSV: the rows of the JSON, whoever names them."""

import csv
import io

import pytest

from tests.spool.harness import accept_many
from tests.watch.looking import Look


async def test_the_csv_has_the_rows_of_the_json(look: Look) -> None:
    await accept_many(look.spool, look.account, 3, campaign='=cmd|"/c calc"!A1')
    await accept_many(look.spool, look.account, 2, campaign="spring, summer")
    rows = (await look.json("/v1/statistics?group=campaign"))["rows"]
    response = await look.get("/v1/statistics?group=campaign&format=csv")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/csv")
    assert "statistics-campaign.csv" in response.headers["Content-Disposition"]
    assert response.content.count(b"\r\n") == response.content.count(b"\n") == 3
    read = [*csv.DictReader(io.StringIO(response.content.decode(), newline=""))]
    names = [row.pop("key") for row in read]
    assert names == ['\'=cmd|"/c calc"!A1', "spring, summer"]
    assert [row.pop("key") for row in rows] == ['=cmd|"/c calc"!A1', "spring, summer"]
    assert read == [{name: str(count) for name, count in row.items()} for row in rows]


@pytest.mark.parametrize(
    ("query", "accept", "is_csv"),
    [
        ("", "text/csv", True),
        ("", "text/csv;q=0.9, */*;q=0.1", True),
        ("", "application/json, text/csv", False),
        ("", "*/*", False),
        ("?format=json", "text/csv", False),
        ("?format=csv", "application/json", True),
    ],
)
async def test_the_format_comes_before_what_is_accepted(
    look: Look, query: str, accept: str, is_csv: bool
) -> None:
    response = await look.ask("GET", f"/v1/statistics{query}", headers={"Accept": accept})
    assert response.headers["Content-Type"].startswith("text/csv") == is_csv


async def test_another_format_is_refused(look: Look) -> None:
    response = await look.get("/v1/statistics?format=xlsx")
    assert (response.status_code, response.json()["error"]["where"]) == (400, "format")
