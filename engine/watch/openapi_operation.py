"""What the OpenAPI document says of one route, and the errors that all of them share."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec


class ErrorDetail(msgspec.Struct):
    """`code` is for programs, `message` for people, `where` the parameter or place at fault."""

    code: str
    message: str
    where: str


class Error(msgspec.Struct):
    error: ErrorDetail


class V3Error(msgspec.Struct, rename="pascal"):
    """Errors below /v3. A 401 has no body."""

    error_info: str
    error_message: str
    status_code: int


@dataclass(frozen=True, slots=True)
class Operation:
    """What is to be said of a route. `parameters` are names of `PARAMETERS`.

    `answer` None is JSON whose form others have fixed, `error` None likewise. `lists` are the types
    of a body that is lines of a list.
    """

    summary: str
    parameters: Sequence[str] = ()
    body: type | None = None
    lists: Sequence[str] = ()
    answer: type | None = None
    answer_type: str = "application/json"
    error: type | None = Error
    status: str = "200"
