"""`GET /v1/doctor/spool`: for operators, and what it says."""

from unittest.mock import ANY, patch

from engine.watch.doctor import FAULTS_MAX
from tests.spool.harness import accept_many
from tests.watch.looking import Look


async def test_a_sound_spool_has_no_fault(look: Look) -> None:
    await accept_many(look.spool, look.account, 3)
    condition = await look.json("/v1/doctor/spool", look.operator())
    assert condition.pop("now").startswith("2026-11-24T09")
    assert condition == {
        "faults": [],
        "fault_count": 0,
        "quarantined": 0,
        "intake_open": True,
        "envelopes_open": 3,
        "mails": 3,
        "looked_at": 3,
        "is_complete": False,
    }
    assert await look.json("/v1/doctor/spool?look=all", look.operator()) == {
        **condition,
        "is_complete": True,
        "now": ANY,
    }


async def test_a_spool_full_of_faults_is_told_by_the_first_of_them(look: Look) -> None:
    async def faults() -> list[str]:
        return [f"queue: {number}" for number in range(FAULTS_MAX + 5)]

    with patch.object(look.spool, "check_invariants", faults):
        condition = await look.json("/v1/doctor/spool?look=all", look.operator())
    assert condition["fault_count"] == FAULTS_MAX + 5
    assert condition["faults"] == (await faults())[:FAULTS_MAX]


async def test_it_is_for_operators(look: Look) -> None:
    assert (await look.get("/v1/doctor/spool")).status_code == 403
    assert (await look.get("/v1/doctor/spool?x=1", look.operator())).status_code == 400
    assert (await look.get("/v1/doctor/spool?look=none", look.operator())).status_code == 400
