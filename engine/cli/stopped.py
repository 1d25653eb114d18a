"""The engine's answers while it is stopped: its routes, over the spool opened for one question.

Opening takes the spool's lock, so this and a running engine exclude each other. Only what needs no
delivery can be asked.
"""

import random
import secrets
from typing import Any

import msgspec
import trio

from engine.cli.control import EngineRefused, decoded, target_of
from engine.cli.options import text_of
from engine.clock import SystemClock
from engine.config import Config
from engine.http_server import HttpError, Identity, Request, Response, error_response
from engine.http_server.routing import Router
from engine.intake.accounts_http import AccountsDoor
from engine.spool import open_spool
from engine.spool.interface import SpoolError, SpoolSettings


class StoppedEngine:
    """Answers from the spool below the configured data directory."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def get(self, route: str, **query: object) -> Any:
        return self._ask("GET", target_of(route, query), b"")

    def post(self, route: str, body: object) -> Any:
        return self._ask("POST", route, msgspec.json.encode(body))

    def _ask(self, method: str, target: str, body: bytes) -> Any:
        try:
            response = trio.run(self._answer, method, target, body)
        except* (SpoolError, OSError) as group:
            raise EngineRefused(text_of(group)) from group
        return decoded(response.status, response.body)

    async def _answer(self, method: str, target: str, body: bytes) -> Response:
        path, _, raw_query = target.partition("?")
        clock = SystemClock()
        async with open_spool(
            self._config.spool.url,
            self._config.data_dir,
            settings=SpoolSettings(),
            clock=clock,
            run_blocking=trio.to_thread.run_sync,
            random=random.SystemRandom(),
        ) as spool:
            accounts = AccountsDoor(
                spool, self._config, clock=clock, random_octets=secrets.token_bytes
            )
            try:
                route, params, decoded_path = Router(accounts.routes()).find(method, path)
                identity = Identity(operator=True)
                return await route.handler(
                    Request(
                        method, decoded_path, raw_query, (), params, body, identity, secure=True
                    )
                )
            except HttpError as error:
                return error_response(error)
