"""Answers that are a table may be had as CSV: who wants one, and the answer itself."""

from collections.abc import Sequence
from typing import Final

import msgspec

from engine.http_server import Request, Response
from engine.watch.queries import Query, refuse
from protocols.csv_tables import CSV_TYPE, csv_octets

FORMATS: Final = ("json", "csv")


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


def as_csv(kind: type[msgspec.Struct], rows: Sequence[msgspec.Struct], name: str) -> Response:
    """Answer with rows of one kind, the names of its fields above them."""
    disposition = ("Content-Disposition", f'attachment; filename="statistics-{name}.csv"')
    cells = [msgspec.structs.astuple(row) for row in rows]
    return Response(200, csv_octets(kind.__struct_fields__, cells), CSV_TYPE, [disposition])
