"""Facts to levels and conditions, and what has lasted long enough to be an incident."""

from dataclasses import replace
from typing import Any

import pytest

from engine.spool.disk_calls import DiskRoom
from engine.watch.status.components import Component, Level
from engine.watch.status.judging import (
    OPENS_AFTER_MS,
    RESOLVES_AFTER_MS,
    RESOLVES_AFTER_MS_MAX,
    Facts,
    Steady,
    judge,
    levels_now,
    resolves_after_ms,
)
from engine.watch.status.sites import SitesSeen, SiteTrouble

GIB = 2**30
SITE = SiteTrouble("mx.one.test", "one.test", is_unreachable=True)
SLOW = SiteTrouble("mx.two.test", "two.test", is_unreachable=False)
NAMELESS = SiteTrouble("three.test", "three.test", is_unreachable=True, is_dns=True)


@pytest.mark.parametrize(
    ("facts", "lowered", "conditions"),
    [
        ({}, {}, []),
        ({"has_dns": True, "disk": DiskRoom(10 * GIB, GIB)}, {}, []),
        ({"is_running": False}, {"http_intake": 3, "delivery": 3, "stream": 3}, []),
        ({"is_intake_open": False}, {"http_intake": 3, "disk": 3}, ["intake_closed"]),
        ({"commit_s": 1.5}, {"http_intake": 1, "delivery": 1}, ["intake_impaired"]),
        ({"commit_s": 20.0}, {"http_intake": 2, "delivery": 2}, ["intake_impaired"]),
        ({"answers": 1000, "errors": 4}, {}, []),
        ({"answers": 1000, "errors": 49}, {}, []),
        ({"answers": 1000, "errors": 51}, {"http_intake": 1}, ["intake_impaired"]),
        ({"answers": 10, "errors": 6}, {"http_intake": 2}, ["intake_impaired"]),
        ({"behind_s": 3.0}, {"stream": 1}, ["stream_behind"]),
        ({"behind_s": 40.0}, {"stream": 3}, ["stream_behind"]),
        ({"has_dns": False}, {"dns": 3, "delivery": 2}, ["dns_down"]),
        ({"refuses_results": True}, {"delivery": 3, "disk": 3}, ["results_refused"]),
        ({"disk": DiskRoom(GIB + 1, GIB)}, {"disk": 1}, ["disk_low"]),
        ({"disk": DiskRoom(0, 0)}, {}, []),
        ({"sites": SitesSeen((SITE, SLOW), 9, 1)}, {}, ["site:mx.one.test", "site:mx.two.test"]),
        # Names that cannot be looked up are no site's fault while nobody can be looked up.
        (
            {"sites": SitesSeen((SITE, NAMELESS), 9, 2), "has_dns": False},
            {"dns": 3, "delivery": 2},
            ["dns_down", "site:mx.one.test"],
        ),
        ({"sites": SitesSeen((NAMELESS,), 9, 1)}, {}, ["site:three.test"]),
        # Half of all sites at once: it is us, and nobody is blamed.
        ({"sites": SitesSeen((SITE,), 8, 4)}, {"delivery": 2}, ["sites_unreachable"]),
        ({"sites": SitesSeen((SITE,), 3, 3)}, {}, ["site:mx.one.test"]),
    ],
)
def test_facts_are_judged(
    facts: dict[str, Any], lowered: dict[str, int], conditions: list[str]
) -> None:
    verdict = judge(replace(Facts(), **facts))
    levels = [*Level]
    assert verdict.levels == {each: levels[lowered.get(each.value, 0)] for each in Component}
    assert [each.key for each in verdict.conditions] == conditions


def test_a_condition_opens_after_a_minute_and_ends_after_two() -> None:
    steady = Steady()
    assert steady.look(0, ["a"], {}) == ([], [])
    assert steady.look(OPENS_AFTER_MS - 1, ["a"], {}) == ([], [])
    assert steady.look(OPENS_AFTER_MS, ["a"], {}) == (["a"], [])
    assert steady.since_unix_ms("a") == 0
    now = OPENS_AFTER_MS
    assert steady.look(now + 1, [], {"a": 0}) == ([], [])
    assert steady.look(now + RESOLVES_AFTER_MS, [], {"a": 0}) == ([], [])
    assert steady.look(now + RESOLVES_AFTER_MS + 1, [], {"a": 0}) == ([], ["a"])


def test_what_comes_and_goes_neither_opens_nor_ends() -> None:
    steady = Steady()
    for now in range(0, 600_000, 30_000):
        keys = ["a"] if now // 30_000 % 2 else []
        assert steady.look(now, keys, {}) == ([], [])
        assert steady.look(now, keys, {"a": 0})[1] == []


def test_a_restart_in_the_middle_still_resolves() -> None:
    # Open in the book, and this process has never seen it be so.
    steady = Steady()
    assert steady.look(5_000, [], {"a": 0}) == ([], [])
    assert steady.look(5_000 + RESOLVES_AFTER_MS, [], {"a": 0}) == ([], ["a"])


def test_what_a_person_resolved_opens_again_only_after_it_was_over() -> None:
    steady = Steady()
    steady.look(0, ["a"], {})
    assert steady.look(OPENS_AFTER_MS, ["a"], {}) == (["a"], [])
    steady.dismiss("a", OPENS_AFTER_MS)
    assert steady.look(10 * OPENS_AFTER_MS, ["a"], {}) == ([], [])
    # Not to be seen for a moment, as after a restart, is not over.
    steady.look(11 * OPENS_AFTER_MS, [], {})
    steady.look(12 * OPENS_AFTER_MS, ["a"], {})
    assert steady.look(13 * OPENS_AFTER_MS, ["a"], {}) == ([], [])
    steady.look(13 * OPENS_AFTER_MS + RESOLVES_AFTER_MS, [], {})
    assert steady.dismissed == frozenset()
    steady.look(20 * OPENS_AFTER_MS, ["a"], {})
    assert steady.look(21 * OPENS_AFTER_MS, ["a"], {}) == (["a"], [])


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    steady = Steady()
    steady.look(1_000_000, ["a"], {})
    assert steady.look(0, ["a"], {}) == ([], [])
    assert steady.look(OPENS_AFTER_MS, ["a"], {}) == (["a"], [])


def test_open_incidents_lower_what_is_measured() -> None:
    measured = judge(Facts(behind_s=3.0)).levels
    levels = levels_now(
        measured,
        [
            {"stream": "operational"},
            {"delivery": "partial_outage"},
            {"delivery": "degraded_performance"},
        ],
    )
    assert levels[Component.STREAM] is Level.DEGRADED
    assert levels[Component.DELIVERY] is Level.PARTIAL
    assert levels[Component.DNS] is Level.OPERATIONAL


def test_what_comes_back_has_to_stay_away_for_longer() -> None:
    waits = [resolves_after_ms(times) for times in range(8)]
    assert waits[:4] == [RESOLVES_AFTER_MS * factor for factor in (1, 2, 4, 8)]
    assert waits[4:] == [RESOLVES_AFTER_MS_MAX] * 4
    steady = Steady()
    steady.look(0, [], {"a": 1})
    assert steady.look(RESOLVES_AFTER_MS, [], {"a": 1}) == ([], [])
    assert steady.look(2 * RESOLVES_AFTER_MS, [], {"a": 1}) == ([], ["a"])
