"""`GET /v1/doctor/spool`: does everything hold between the tables, and what was set aside?

For operators, since it tells of everybody's mail. It walks over the whole spool, so one walk at a
time; it repairs nothing. What a machine or the DNS has to do with it is `eilpost doctor`'s.
"""

from typing import Final

import msgspec
import trio

from engine.http_server import Access, Request, Response, Route
from engine.spool.interface import Spool
from engine.watch.queries import Query
from protocols.timestamps import time_text

# A spool that is thoroughly wrong has a fault for each mail; the first ones say how.
FAULTS_MAX: Final = 100


class SpoolCondition(msgspec.Struct, frozen=True):
    """`faults` are the first of `fault_count`; `now` is the spool's time, which never steps back.

    `quarantined` counts damaged records that were set aside, `intake_open` is false on a full disk.
    """

    faults: list[str]
    fault_count: int
    quarantined: int
    intake_open: bool
    envelopes_open: int
    now: str


def routes(spool: Spool) -> list[Route]:
    one_at_a_time = trio.CapacityLimiter(1)

    async def condition(request: Request) -> Response:
        Query(request, ())
        async with one_at_a_time:
            faults = await spool.check_invariants()
        statistics = spool.spool_statistics()
        return Response.json(
            SpoolCondition(
                faults=faults[:FAULTS_MAX],
                fault_count=len(faults),
                quarantined=statistics.quarantined,
                intake_open=statistics.intake_open,
                envelopes_open=statistics.envelopes_open,
                now=time_text(spool.now_unix_ms()),
            )
        )

    return [Route("GET", "/v1/doctor/spool", condition, Access.OPERATOR)]
