"""Answers that are a table, as JSON or CSV: rows in slices, so that a long one stops nobody.

A table of statistics has a row for each key. Without `limit` all of them are in the answer; with
one, `after` names the place to go on from.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import msgspec
import trio.lowlevel

from engine.http_server import Request, Response
from engine.watch.queries import LIMIT_MAX, Query, refuse
from protocols.csv_tables import CSV_TYPE, csv_octets

FORMATS: Final = ("json", "csv")
# Some milliseconds of work: deliveries have their turn between two slices.
SLICE_ROWS: Final = 500
# So that no key is an empty token.
TOKEN_START: Final = "="


class Keyed(Protocol):
    @property
    def key(self) -> str: ...


Row = TypeVar("Row", bound=Keyed)


def wants_csv(request: Request, query: Query) -> bool:
    """`format` decides; without it `Accept`, where whoever names JSON too is given JSON."""
    named = query.one("format")
    if named is not None:
        if named not in FORMATS:
            refuse("format", f"{named[:40]!r} is none of {', '.join(FORMATS)}.")
        return named == "csv"
    accept = (request.header(b"accept") or "").lower().split(",")
    kinds = [each.partition(";")[0].strip() for each in accept]
    return "text/csv" in kinds and "application/json" not in kinds


def part_of(query: Query) -> tuple[str | None, int | None]:
    """Return the key that the rows asked for come after, and how many, None for all."""
    token = query.one("after")
    if token is not None and not token.startswith(TOKEN_START):
        refuse("after", "It is not the `after` of a page before.")
    limit = query.number("limit", 0, 1, LIMIT_MAX)
    return None if token is None else token.removeprefix(TOKEN_START), limit or None


async def table_answer(
    rows: Sequence[Row],
    view_of: Callable[[Row], msgspec.Struct],
    kind: type[msgspec.Struct],
    *,
    limit: int | None = None,
    csv_name: str | None,
) -> Response:
    """Answer with `rows`: `{"rows", "after"}`, or with a `csv_name` a file of that name.

    Of `limit` rows there may be one more, which tells that there is one.
    """
    shown = rows[:limit]
    after = None if len(shown) == len(rows) else f"{TOKEN_START}{shown[-1].key}"
    parts: list[bytes] = []
    for start in range(0, len(shown), SLICE_ROWS):
        views = [*map(view_of, shown[start : start + SLICE_ROWS])]
        if csv_name is None:
            parts.append(msgspec.json.encode(views)[1:-1])
        else:
            parts.append(csv_octets(None, [*map(msgspec.structs.astuple, views)]))
        await trio.lowlevel.checkpoint()
    if csv_name is not None:
        return csv_answer(kind, parts, csv_name)
    head = b'{"rows":[' + b",".join(parts) + b'],"after":'
    return Response(200, head + msgspec.json.encode(after) + b"}")


def csv_answer(kind: type[msgspec.Struct], parts: Sequence[bytes], name: str) -> Response:
    """Answer with a CSV of parts that have no heading; the names of the fields are it."""
    disposition = ("Content-Disposition", f'attachment; filename="statistics-{name}.csv"')
    heading = csv_octets(kind.__struct_fields__, [])
    return Response(200, heading + b"".join(parts), CSV_TYPE, [disposition])
