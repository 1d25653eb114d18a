"""`GET /v1/doctor/spool`: does everything hold between the tables, and what was set aside?

For operators, since it tells of everybody's mail. It looks at sums and at some mails, with
`look=all` at everything, which is a walk over the whole spool; one look at a time, and it repairs
nothing. What a machine or the DNS has to do with it is `eilpost doctor`'s.
"""

from typing import Final

import msgspec
import trio

from engine.http_server import Access, Request, Response, Route
from engine.spool.interface import Spool
from engine.watch.queries import Query, refuse
from protocols.timestamps import time_text

# A spool that is thoroughly wrong has a fault for each mail; the first ones say how.
FAULTS_MAX: Final = 100
LOOKS: Final = ("some", "all")


class SpoolCondition(msgspec.Struct, frozen=True):
    """`faults` are the first of `fault_count`; `now` is the spool's time, which never steps back.

    `looked_at` are how many of the `mails` that are kept were looked at one by one; `is_complete`
    says that everything was, and nothing left to sums and samples.
    `quarantined` counts damaged records that were set aside, `intake_open` is false on a full disk.
    """

    faults: list[str]
    fault_count: int
    quarantined: int
    intake_open: bool
    envelopes_open: int
    mails: int
    looked_at: int
    is_complete: bool
    now: str


def routes(spool: Spool) -> list[Route]:
    one_at_a_time = trio.CapacityLimiter(1)

    async def condition(request: Request) -> Response:
        look = Query(request, ("look",)).one("look") or "some"
        if look not in LOOKS:
            refuse("look", f"{look[:40]!r} is none of {', '.join(LOOKS)}.")
        is_complete = look == "all"
        async with one_at_a_time:
            some = await spool.check_some()
            faults, looked_at = some.faults, some.looked_at
            if is_complete:
                faults, looked_at = await spool.check_invariants() or faults, some.mails
        statistics = spool.spool_statistics()
        return Response.json(
            SpoolCondition(
                faults=faults[:FAULTS_MAX],
                fault_count=len(faults),
                quarantined=statistics.quarantined,
                intake_open=statistics.intake_open,
                envelopes_open=statistics.envelopes_open,
                mails=some.mails,
                looked_at=looked_at,
                is_complete=is_complete,
                now=time_text(spool.now_unix_ms()),
            )
        )

    return [Route("GET", "/v1/doctor/spool", condition, Access.OPERATOR)]
