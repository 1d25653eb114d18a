"""Requests for `POST /v3.1/send` that the tests begin with."""

from typing import Any

MESSAGE: dict[str, Any] = {
    "From": {"Email": "news@out.example", "Name": "News"},
    "To": [{"Email": "ann@in.example", "Name": "Ann"}],
    "Subject": "Hello",
    "TextPart": "text",
}
BAD = MESSAGE | {"To": [{"Email": "Tom@@ beispiel.de"}]}


def batch(*messages: object, **root: object) -> dict[str, object]:
    return {"Messages": messages, **root}
