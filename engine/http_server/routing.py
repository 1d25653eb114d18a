"""From method and path to a route: a tree of segments, as deep as the path is long.

Ties go to the literal segment. Two routes for the same method and pattern are a
mistake of ours and refused at construction.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from engine.http_server.values import HttpError, Response, Route, error_response


@dataclass(slots=True)
class _Node:
    literals: dict[str, "_Node"] = field(default_factory=dict)
    folded: dict[str, "_Node"] = field(default_factory=dict)
    named: "_Node | None" = None
    routes: dict[str, tuple[Route, tuple[str, ...]]] = field(default_factory=dict)


class Router:
    """All routes of the port."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        self._renderers: dict[str, Callable[[HttpError], Response]] = {}
        for route in routes:
            self._add(route)
            self._renderers.setdefault(_first_segment(route.pattern), route.render_error)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str], str]:
        """Return the route, its parameters and the decoded path.

        `path` is as sent, without the query. Raises HttpError 404, 405 (naming
        what is allowed) or 400 for a path that is not UTF-8 when decoded.
        """
        segments = [_decoded(part) for part in path.split("/")[1:]]
        node, values = _walk(self._root, segments, 0)
        decoded = "/" + "/".join(segments)
        if node is None:
            raise HttpError(404, "not_found", f"There is nothing at {decoded}.")
        found = node.routes.get("GET" if method == "HEAD" else method)
        if found is None:
            allowed = sorted({*node.routes, *(["HEAD"] if "GET" in node.routes else [])})
            raise HttpError(
                405,
                "method_not_allowed",
                f"{decoded} does not take {method[:20]}, but {', '.join(allowed)}.",
                headers=(("allow", ", ".join(allowed)),),
            )
        route, names = found
        return route, dict(zip(names, reversed(values), strict=True)), decoded

    def renderer(self, target: str) -> Callable[[HttpError], Response]:
        """Return how errors look where there is no route: as with its neighbours.

        A client that guessed a path wrongly still reads only the form of its own API.
        """
        return self._renderers.get(_first_segment(target), error_response)

    def _add(self, route: Route) -> None:
        node = self._root
        names: list[str] = []
        for part in route.pattern.split("/")[1:]:
            if part.startswith("{"):
                names.append(part[1:-1])
                node.named = node.named or _Node()
                node = node.named
            elif route.folds_case:
                node = node.folded.setdefault(part.lower(), _Node())
            else:
                node = node.literals.setdefault(part, _Node())
        assert route.method not in node.routes, f"two routes for {route.method} {route.pattern}"
        node.routes[route.method] = (route, tuple(names))


def _first_segment(path: str) -> str:
    return path.partition("?")[0].removeprefix("/").partition("/")[0].lower()


def _walk(node: _Node, segments: Sequence[str], at: int) -> tuple[_Node | None, list[str]]:
    """Find the node for `segments[at:]`; the values of named segments come last first."""
    if at == len(segments):
        return (node if node.routes else None), []
    segment = segments[at]
    for next_node in (node.literals.get(segment), node.folded.get(segment.lower())):
        if next_node is not None:
            found, values = _walk(next_node, segments, at + 1)
            if found is not None:
                return found, values
    if node.named is not None and segment:
        found, values = _walk(node.named, segments, at + 1)
        if found is not None:
            values.append(segment)
            return found, values
    return None, []


def _decoded(segment: str) -> str:
    if "%" not in segment:
        return segment
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise HttpError(400, "bad_path", "The path is not UTF-8 when decoded.") from error
