"""What the random programs of the contract are made of: steps, each with its argument.

A step names what it acts on by number, so that programs shrink well; what each does is with
`tests.spool.test_contract_programs`.
"""

from typing import Any

from hypothesis import strategies as st

from engine.spool.hold_calls import MailFilter
from engine.spool.interface import Quota, SpoolSettings
from protocols.records import CampaignState
from tests.spool import harness as h

DESTINATIONS = ("one.test", "two.test", "three.test")
# At each destination, so that few programs bounce them all.
PEOPLE = 5
SETTINGS = SpoolSettings(
    max_age_ms=3 * h.DAY_MS,
    paused_max_ms=5 * h.DAY_MS,
    finished_retention_ms=2 * h.DAY_MS,
    events_retention_ms=4 * h.DAY_MS,
    disk_free_bytes_min=0,
)

Step = tuple[str, Any]

messages = st.tuples(
    st.lists(st.sampled_from(DESTINATIONS), min_size=1, max_size=4),
    st.sampled_from([None, "spring", "autumn"]),
    st.sampled_from([0, 1, 1]),
)
accepts = st.tuples(
    st.just("accept"),
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.lists(messages, min_size=1, max_size=3),
            st.sampled_from([Quota(), Quota(per_day=3), Quota(per_day=4, per_month=9)]),
            st.sampled_from([None, None, b"a" * 16, b"b" * 16]),
        ),
        min_size=1,
        max_size=3,
    ),
)
lists = st.tuples(
    st.just("list"),
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["spring", "autumn"]),
        st.lists(
            st.tuples(st.integers(0, PEOPLE - 1), st.sampled_from(DESTINATIONS)),
            min_size=1,
            max_size=5,
        ),
        st.sampled_from([Quota(), Quota(), Quota(per_day=3)]),
    ),
)
ends = st.tuples(
    st.just("end"),
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["spring", "autumn"]),
        st.sampled_from([CampaignState.CLOSED, CampaignState.CANCELLED]),
    ),
)
windows = st.tuples(st.just("window"), st.tuples(st.integers(0, 2), st.integers(1, 9)))
outcomes = st.sampled_from(
    ["delivered", "deferred", "hard", "soft", "back", "finish", "retry", "keep"]
)
settles = st.tuples(st.just("settle"), st.lists(outcomes, min_size=1, max_size=8))
rests = st.tuples(
    st.just("rest"),
    st.tuples(
        st.sampled_from(DESTINATIONS),
        st.sampled_from([0, h.HOUR_MS]),
        st.sampled_from(["", "mx.site.test"]),
    ),
)
tries = st.tuples(st.just("try"), st.sampled_from(DESTINATIONS))
cancels = st.tuples(st.just("cancel"), st.integers(0, 30))
retries = st.tuples(
    st.just("retry"), st.tuples(st.integers(0, 30), st.sampled_from([-h.HOUR_MS, 0, h.HOUR_MS]))
)
rebooks = st.tuples(
    st.just("rebook"),
    st.tuples(st.integers(0, 1), st.sampled_from([Quota(), Quota(per_day=5), Quota(4, 12)])),
)
suppressions = st.tuples(
    st.sampled_from(["suppress", "unsuppress"]),
    st.tuples(st.integers(0, 1), st.integers(0, PEOPLE - 1), st.sampled_from(DESTINATIONS)),
)
clocks = st.tuples(
    st.just("clock"),
    st.sampled_from([1, h.SECOND_MS, h.HOUR_MS, h.DAY_MS, 4 * h.DAY_MS, -h.DAY_MS]),
)
filters = st.builds(
    MailFilter,
    account_id=st.sampled_from([None, None, 1, 2]),
    campaign=st.sampled_from([None, None, "spring"]),
    destination=st.sampled_from([None, "one.test", "two.test"]),
    site=st.sampled_from([None, None, None, "mx.site.test"]),
    reply=st.sampled_from([None, None, "LATER", "no such text"]),
    older_ms=st.sampled_from([None, None, h.HOUR_MS]),
    address=st.sampled_from([None, None, None, "r0@one.test"]),
)
holds = st.tuples(
    st.just("hold"), st.tuples(filters, st.sampled_from([None, h.SECOND_MS, h.HOUR_MS, h.DAY_MS]))
)
lifts = st.tuples(st.just("lift"), st.lists(st.integers(0, 3), min_size=1, max_size=2))
# What most programs would have to begin with anyway.
FIRST_REQUEST = [(0, [(list(DESTINATIONS), "spring", 1)], Quota(), None)]
plain = st.sampled_from([("release", 0), ("sweep", 0), ("repeat", 0), ("crash", 0), ("page", 2)])
# A clock and a release that come together by chance do so in few programs.
tomorrows = st.just(("tomorrow", 0))
programs = st.lists(
    st.one_of(
        *(accepts, windows, windows, windows, settles, settles, settles, clocks, lists, ends),
        *(rests, tries, cancels, retries, rebooks, suppressions, plain, holds, lifts, tomorrows),
    ),
    # Short programs reach nothing; what fails in a long one is shrunk by leaving steps out.
    min_size=15,
    max_size=40,
).map(lambda steps: [("accept", FIRST_REQUEST), *steps])
