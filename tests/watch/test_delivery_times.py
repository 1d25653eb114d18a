"""Times to delivery over HTTP: percentiles by group, who sees whose, CSV, and what is refused."""

import csv
import io

import pytest

from tests.spool.harness import accept_many, claim, deliver
from tests.watch.looking import Look, make_account

PATH = "/v1/statistics/delivery-times"


async def some_deliveries(look: Look) -> None:
    """A hundred to one.test, one more every second; ten of another account at once."""
    other = await make_account(look.spool, "other")
    await accept_many(look.spool, look.account, 100)
    await accept_many(look.spool, other, 10, at="two.test")
    await deliver(look.spool, await claim(look.spool, "two.test"))
    for envelope in await claim(look.spool):
        look.clock.now += 1000
        await deliver(look.spool, [envelope])


async def test_percentiles_by_destination(look: Look) -> None:
    await some_deliveries(look)
    [row] = (await look.json(f"{PATH}?group=destination"))["rows"]
    assert (row["key"], row["count"], row["first_attempt"]) == ("one.test", 100, 100)
    assert row["max_s"] == pytest.approx(100, abs=0.1)
    for percent in (50, 90, 95, 99):
        assert percent <= row[f"p{percent}_s"] <= percent * 1.26
    operator = look.operator()
    rows = (await look.json(f"{PATH}?group=destination", operator))["rows"]
    assert [(row["key"], row["count"]) for row in rows] == [("one.test", 100), ("two.test", 10)]
    assert rows[1]["p99_s"] <= 0.1


async def test_other_groups_ranges_and_accounts(look: Look) -> None:
    await some_deliveries(look)
    operator = look.operator()

    async def counts(query: str) -> dict[str, int]:
        rows = (await look.json(f"{PATH}?{query}", operator))["rows"]
        return {row["key"]: row["count"] for row in rows}

    assert await counts("") == {"total": 110}
    assert await counts("group=account") == {"acme": 100, "other": 10}
    assert await counts("group=day") == {"2026-11-24": 110}
    assert await counts("group=day&account=other") == {"2026-11-24": 10}
    assert await counts("group=day&to=2026-11-24") == {}
    assert await counts("from=2026-11-25") == {}
    assert (await look.json(PATH))["rows"][0]["count"] == 100
    assert (await look.get(f"{PATH}?account=other")).status_code == 404


async def test_the_busiest_destinations_come_first(look: Look) -> None:
    for name, count in (("a.test", 1), ("b.test", 5), ("c.test", 3), ("d.test", 2)):
        await accept_many(look.spool, look.account, count, at=name)
        await deliver(look.spool, await claim(look.spool, name))
    await accept_many(look.spool, look.account, 9, at="waiting.test")
    rows = (await look.json(f"{PATH}?group=destination&busiest=3"))["rows"]
    assert [(row["key"], row["count"]) for row in rows] == [
        ("b.test", 5),
        ("c.test", 3),
        ("d.test", 2),
    ]
    today = (await look.json(f"{PATH}?group=destination&busiest=9&from=2026-11-24"))["rows"]
    assert [row["key"] for row in today] == ["b.test", "c.test", "d.test", "a.test"]
    later = await look.json(f"{PATH}?group=destination&busiest=9&from=2026-11-25", look.operator())
    assert later["rows"] == []


async def test_times_as_csv(look: Look) -> None:
    await some_deliveries(look)
    response = await look.get(f"{PATH}?group=destination&format=csv")
    assert response.headers["Content-Disposition"].endswith('delivery-times-destination.csv"')
    [row] = csv.DictReader(io.StringIO(response.text))
    assert (row["key"], row["count"]) == ("one.test", "100")
    assert 50 <= float(row["p50_s"]) <= 63


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("busiest=3", "busiest"),
        ("group=destination&busiest=3&limit=3", "busiest"),
        ("group=destination&busiest=0", "busiest"),
        ("group=campaign", "group"),
        ("group=hour", "group"),
        ("from=x", "from"),
        ("p=50", "p"),
    ],
)
async def test_what_cannot_be_answered_is_refused_with_its_name(
    look: Look, query: str, where: str
) -> None:
    response = await look.get(f"{PATH}?{query}")
    assert response.status_code == 400
    assert response.json()["error"]["where"] == where
