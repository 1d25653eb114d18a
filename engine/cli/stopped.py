"""The engine's answers while it is stopped: its routes, over the spool opened for one question.

Opening takes the spool's lock, so this and a running engine exclude each other.
"""

from pathlib import Path
from typing import Any

import click
import msgspec
import trio

from engine.cli.control import EngineRefused, decoded, target_of
from engine.cli.options import text_of
from engine.compose import Seams, intake_routes, spool_settings
from engine.config import Config
from engine.http_server import HttpError, Identity, Request, Response, error_response
from engine.http_server.routing import Router
from engine.spool import is_there, open_spool
from engine.spool.interface import Spool, SpoolError
from engine.watch.service import Watch


class StoppedEngine:
    """Answers from the spool below the configured data directory."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._seams = Seams()
        if not is_there(config.spool.url, config.data_dir):
            # Most likely it is the wrong directory, and "no mail is waiting" a trap.
            click.echo(
                f"No engine has run here: there is no spool below {config.data_dir}. Its directory "
                "is where `eilpost serve` was started, or what --config names.",
                err=True,
            )

    def get(self, route: str, **query: object) -> Any:
        return self._ask("GET", target_of(route, query), b"")

    def post(self, route: str, body: object) -> Any:
        return self._ask("POST", route, msgspec.json.encode(body))

    def delete(self, route: str, **query: object) -> Any:
        return self._ask("DELETE", target_of(route, query), b"")

    def _ask(self, method: str, target: str, body: bytes) -> Any:
        try:
            response = trio.run(self._answer, method, target, body)
        except (SpoolError, OSError) as error:
            raise EngineRefused(str(error)) from error
        except BaseExceptionGroup as group:
            raise EngineRefused(text_of(group, SpoolError, OSError)) from group
        return decoded(response.status, response.body)

    async def _answer(self, method: str, target: str, body: bytes) -> Response:
        path, _, raw_query = target.partition("?")
        place: tuple[str, Path] = (self._config.spool.url, self._config.data_dir)
        if method == "GET" and not is_there(*place):
            # A question makes no spool: it is answered from an empty one in memory, whose name
            # makes it the same for the next page.
            place = ("memory:asked-where-nothing-is", Path())
        async with open_spool(
            *place,
            settings=spool_settings(self._config),
            clock=self._seams.clock,
            run_blocking=self._seams.run_blocking,
            random=self._seams.rand,
        ) as spool:
            try:
                route, params, path = self._router(spool).find(method, path)
                identity = Identity(operator=True)
                return await route.handler(
                    Request(method, path, raw_query, (), params, body, identity)
                )
            except HttpError as error:
                return error_response(error)

    def _router(self, spool: Spool) -> Router:
        # Nothing is delivered, so there is no live destination; nobody signs in here.
        watch = Watch(
            spool,
            self._config,
            now_unix_ms=spool.now_unix_ms,
            secret_text=lambda: "",
            live=dict,
        )
        return Router([*intake_routes(spool, self._config, spool, self._seams), *watch.routes()])
