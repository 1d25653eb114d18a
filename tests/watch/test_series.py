"""The series over HTTP: ranges, steps, who sees what, and what is refused."""

import csv
import io

import pytest

from tests.spool.harness import HOUR_MS, accept_many, claim, deliver
from tests.watch.looking import Look, make_account

PATH = "/v1/statistics/series"


async def test_the_last_hour_in_minutes_is_what_one_gets_unasked(look: Look) -> None:
    await accept_many(look.spool, look.account, 3)
    look.clock.now += 90_000
    await deliver(look.spool, (await claim(look.spool))[:2])
    page = await look.json(PATH)
    assert (page["from"], page["to"]) == ("2026-11-24T08:32:00.000Z", "2026-11-24T09:32:00.000Z")
    assert (page["step_s"], len(page["steps"])) == (60, 60)
    busy = {step.pop("at"): step for step in page["steps"] if any(list(step.values())[1:])}
    names = ("accepted", "released", "deferred", "delivered", "soft_bounced", "hard_bounced")
    zero = dict.fromkeys((*names, "blocked", "cancelled"), 0)
    assert busy == {
        "2026-11-24T09:30:00.000Z": zero | {"accepted": 3},
        "2026-11-24T09:31:00.000Z": zero | {"delivered": 2},
    }


async def test_ranges_are_widened_to_whole_steps(look: Look) -> None:
    await accept_many(look.spool, look.account, 3)
    page = await look.json(f"{PATH}?from=2026-11-23T11:10:00Z&to=2026-11-24T09:30:01Z&step=7200")
    assert (page["from"], page["to"]) == ("2026-11-23T10:00:00.000Z", "2026-11-24T10:00:00.000Z")
    assert [step["accepted"] for step in page["steps"]] == [0] * 11 + [3]
    page = await look.json(f"{PATH}?from=2026-11-01&to=2026-12-01&step=86400")
    assert len(page["steps"]) == 30
    assert {step["at"]: step["accepted"] for step in page["steps"] if step["accepted"]} == {
        "2026-11-24T00:00:00.000Z": 3
    }
    page = await look.json(f"{PATH}?step=300")
    assert len(page["steps"]) == 60
    assert page["steps"][-1] | {"at": ""} == page["steps"][-1] | {"at": "", "accepted": 3}


async def test_an_account_sees_its_own_and_an_operator_all_or_one(look: Look) -> None:
    await accept_many(look.spool, look.account, 3)
    await accept_many(look.spool, await make_account(look.spool, "other"), 4)

    async def accepted(query: str, who: str | tuple[str, str]) -> int:
        page = await look.json(f"{PATH}{query}", who)
        return sum(step["accepted"] for step in page["steps"])

    assert await accepted("", "acme") == 3
    assert await accepted("?account=acme", "acme") == 3
    assert (await look.get(f"{PATH}?account=other")).status_code == 404
    operator = look.operator()
    assert await accepted("", operator) == 7
    assert await accepted("?account=other", operator) == 4
    assert (await look.get(PATH, ("", ""))).status_code == 401


async def test_a_series_as_csv(look: Look) -> None:
    await accept_many(look.spool, look.account, 3)
    response = await look.ask("GET", f"{PATH}?step=3600", headers={"Accept": "text/csv"})
    assert response.headers["Content-Type"].startswith("text/csv")
    rows = [*csv.DictReader(io.StringIO(response.text))]
    assert len(rows) == 60
    assert (rows[-1]["at"], rows[-1]["accepted"]) == ("2026-11-24T09:00:00.000Z", "3")


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("step=30", "step"),
        ("step=90", "step"),
        ("step=x", "step"),
        ("step=999999999", "step"),
        ("from=2026-11-24T09:30:00Z&to=2026-11-24T09:30:00Z", "from"),
        ("from=2026-11-25&to=2026-11-24", "from"),
        ("from=2026-11-22", "step"),
        ("from=2026-11-22&step=300", "from"),
        ("from=1970-01-01&step=3600", "step"),
        ("from=yesterday", "from"),
        ("to=0001-01-01&step=3600", "from"),
        ("to=1970-01-01T00:00:00Z&step=3600", "from"),
        ("to=9999-12-31T23:59:59Z", "to"),
        ("group=day", "group"),
        ("format=xml", "format"),
    ],
)
async def test_what_cannot_be_answered_is_refused_with_its_name(
    look: Look, query: str, where: str
) -> None:
    response = await look.get(f"{PATH}?{query}")
    assert response.status_code == 400, response.text
    assert response.json()["error"]["where"] == where


async def test_minutes_reach_back_two_days(look: Look) -> None:
    await accept_many(look.spool, look.account, 1)
    look.clock.now += 47 * HOUR_MS
    page = await look.json(f"{PATH}?from=2026-11-24T09:30:00Z&to=2026-11-24T10:00:00Z")
    assert page["steps"][0]["accepted"] == 1
    look.clock.now += 2 * HOUR_MS
    refused = await look.get(f"{PATH}?from=2026-11-24T09:30:00Z&to=2026-11-24T10:00:00Z")
    assert refused.status_code == 400
