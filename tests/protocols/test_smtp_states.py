"""The tables: complete, closed, and without dead ends."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest

from protocols.smtp_states import (
    CLIENT_TRANSITIONS,
    SERVER_TRANSITIONS,
    TRANSACTION_TRANSITIONS,
    ClientEvent,
    ClientState,
    ServerState,
    TransactionState,
)

TABLES = [
    (CLIENT_TRANSITIONS, ClientState, ClientState.BANNER, {ClientState.CLOSED}),
    (
        TRANSACTION_TRANSITIONS,
        TransactionState,
        TransactionState.ENVELOPE,
        {TransactionState.DONE},
    ),
    (SERVER_TRANSITIONS, ServerState, ServerState.CONNECTED, {ServerState.CLOSED}),
]


@pytest.mark.parametrize(("table", "states", "first", "last"), TABLES)
def test_every_state_has_a_row_and_can_be_reached(
    table: Mapping[Any, Mapping[Any, Any]], states: type[Enum], first: Any, last: set[Any]
) -> None:
    assert set(table) == set(states)
    reached = {first}
    while True:
        further = {target for state in reached for target in table[state].values()} - reached
        if not further:
            break
        reached |= further
    assert reached == set(states)


def test_our_end_can_close_from_everywhere() -> None:
    assert all(row[ClientEvent.CLOSE] is ClientState.CLOSED for row in CLIENT_TRANSITIONS.values())
