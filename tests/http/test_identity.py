"""Who asks: keys, operators' sessions, the control socket; and where secrets may not travel."""

import base64
import http.client
import os
import socket
import ssl
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests
import trio
import trustme

from engine.http_server import (
    HttpServer,
    HttpSettings,
    HttpSetupError,
    OperatorSessions,
    unix_socket_address,
)
from tests.http.port import Port, authenticate, running_port

OWN = ("key", "sécret")


def get(port: Port, path: str, pair: tuple[str, str] | None = None) -> requests.Response:
    headers = {}
    if pair:
        encoded = base64.b64encode(":".join(pair).encode()).decode()
        headers["Authorization"] = f"Basic {encoded}"
    return requests.get(f"http://127.0.0.1:{port.port}{path}", headers=headers, timeout=10)


async def asked(*arguments: Any) -> requests.Response:
    return await trio.to_thread.run_sync(get, *arguments)


@pytest.mark.parametrize(
    ("path", "pair", "status"),
    [
        ("/open/a", None, 200),
        ("/open/a", ("key", "wrong"), 200),
        ("/own", None, 401),
        ("/own", ("key", "wrong"), 401),
        ("/own", ("", ""), 401),
        ("/own", OWN, 200),
        ("/optional", None, 200),
        ("/optional", OWN, 200),
        ("/optional", ("key", "wrong"), 401),
        ("/operator", None, 401),
        ("/operator", OWN, 403),
    ],
)
async def test_access(path: str, pair: tuple[str, str] | None, status: int) -> None:
    async with running_port() as port:
        response = await asked(port, path, pair)
        assert response.status_code == status
        if status == 401:
            assert response.headers["WWW-Authenticate"].startswith('Basic realm="')
            assert response.json()["error"]["code"] == "unauthorized"
        if status == 200 and pair == OWN and path != "/open/a":
            assert response.json()["account"] == "ann"


@pytest.mark.parametrize(
    "value",
    [
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Bearer x",
        "Basic \xe4\xe4\xe4\xe4",
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
    ],
)
async def test_faulty_credentials_are_no_credentials(value: str) -> None:
    async with running_port() as port:
        head = f"GET /own HTTP/1.1\r\nHost: x\r\nAuthorization: {value}\r\n"
        answer = await port.say(head.encode("latin-1") + b"Connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 401 ")


async def test_an_operators_token_serves_once() -> None:
    async with running_port() as port:
        token = port.operators.new_token()
        session = port.operators.exchange(token)
        assert session is not None
        assert port.operators.exchange(token) is None
        assert port.operators.exchange("guessed") is None
        response = await asked(port, "/operator", (session.api_key, session.secret_key))
        assert response.json()["operator"] is True
        assert (await asked(port, "/operator", (session.api_key, "x"))).status_code == 401


async def test_whoever_opens_the_control_socket_is_an_operator(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    control = deep / "control.sock"
    control.write_bytes(b"left behind by a killed engine")
    async with running_port(HttpSettings(control_socket=control)) as port:
        mode = control.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        assert port.control == control

        def ask() -> bytes:
            with unix_socket_address(control) as address, socket.socket(socket.AF_UNIX) as client:
                client.connect(address)
                client.sendall(b"GET /operator HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return client.makefile("rb").read()

        answer = await trio.to_thread.run_sync(ask)
        assert b'"operator":true' in answer
    assert not control.exists()


async def test_the_proxys_word_counts_only_behind_a_proxy() -> None:
    request = (
        b"GET /open/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"X-Forwarded-For: 198.51.100.7, 203.0.113.9\r\n\r\n"
    )
    async with running_port() as port:
        assert b'"peer":"127.0.0.1"' in await port.say(request)
    async with running_port(HttpSettings(behind_proxy=True)) as port:
        assert b'"peer":"203.0.113.9"' in await port.say(request)


@pytest.mark.slow
async def test_tls(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    settings = HttpSettings(tls_certificate=tmp_path / "own.pem")
    async with running_port(settings) as port:
        context = ssl.create_default_context()
        ca.configure_trust(context)

        def ask() -> bytes:
            connection = http.client.HTTPSConnection("127.0.0.1", port.port, context=context)
            bodies = []
            for _ in range(2):
                connection.request("POST", "/open", b"a" * 150_000)
                bodies.append(connection.getresponse().read())
            connection.close()
            return b"".join(bodies)

        answer = await trio.to_thread.run_sync(ask)
        assert answer.count(b'"body":150000') == 2
        # A client that speaks plain HTTP hears nothing but the end, and others go on.
        assert b"HTTP" not in await port.say(b"GET /open/a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b'"body":150000' in await trio.to_thread.run_sync(ask)


def server_for(settings: HttpSettings) -> HttpServer:
    return HttpServer(
        settings,
        [],
        authenticate=authenticate,
        operators=OperatorSessions(now_unix_ms=lambda: 0, secret_text=str, signing_key=bytes(32)),
        now_unix_ms=lambda: 0,
    )


async def test_secrets_do_not_cross_a_network_in_the_clear() -> None:
    with pytest.raises(HttpSetupError, match=r"0\.0\.0\.0:0.*tls_certificate"):
        await server_for(HttpSettings(listen=("0.0.0.0:0",))).serve()


async def test_a_port_in_use_is_named() -> None:
    async with running_port() as port:
        listen = f"127.0.0.1:{port.port}"
        with pytest.raises(HttpSetupError, match=f"{listen}.*in use"):
            await server_for(HttpSettings(listen=(listen,))).serve()


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(HttpSetupError, match=r"none\.pem"):
        server_for(HttpSettings(tls_certificate=tmp_path / "none.pem"))
    (tmp_path / "bad.pem").write_text("not a certificate")
    with pytest.raises(HttpSetupError, match=r"bad\.pem"):
        server_for(HttpSettings(tls_certificate=tmp_path / "bad.pem"))
    with pytest.raises(HttpSetupError, match="tls_key"):
        server_for(HttpSettings(tls_key=tmp_path / "bad.pem"))


async def test_curl_waits_to_be_asked_and_sends_a_large_body(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(os.urandom(190_000))
    async with running_port() as port:
        command = ["curl", "-sS", "-H", "Expect: 100-continue", "--data-binary", f"@{body}"]
        command += [f"http://127.0.0.1:{port.port}/open"]
        try:
            done = await trio.run_process(command, capture_stdout=True)
        except FileNotFoundError:
            pytest.skip("needs Debian package curl")
        assert b'"body":190000' in done.stdout
        assert isinstance(done, subprocess.CompletedProcess)


async def test_words_of_a_path_match_in_any_case_only_where_asked() -> None:
    async with running_port() as port:
        assert (await asked(port, "/fOlDeD/Ab")).json()["params"] == {"id": "Ab"}
        assert (await asked(port, "/Open/a")).status_code == 404
        assert (await asked(port, "/open/literal")).status_code == 500
        refused = await asked(port, "/refused")
        assert refused.status_code == 409
        assert refused.json() == {
            "error": {"code": "conflict", "message": "It is there already.", "where": "name"}
        }
        wrong_method = await trio.to_thread.run_sync(
            lambda: requests.delete(f"http://127.0.0.1:{port.port}/own", timeout=10)
        )
        assert wrong_method.status_code == 405
        assert wrong_method.headers["Allow"] == "GET, HEAD, POST"


async def test_pages_of_other_origins_may_change_nothing() -> None:
    """What a browser sends along when it still knows a key from its own sign-in box."""
    pair = base64.b64encode("key:sécret".encode())

    async def status(port: Port, method: str, origin: str) -> int:
        head = (
            f"{method} /own HTTP/1.1\r\nHost: 127.0.0.1:{port.port}\r\nOrigin: {origin}\r\n"
            f"Authorization: Basic {pair.decode()}\r\nConnection: close\r\n\r\n"
        )
        return int((await port.say(head.encode())).split()[1])

    async with running_port(HttpSettings(public_url="https://mail.example")) as port:
        for foreign in (
            "https://evil.example",
            "null",
            "https://mail.example.evil.example",
            "http://mail.example",
        ):
            assert await status(port, "POST", foreign) == 403, foreign
            # What is only read stays unread: we never tell a browser to hand it over.
            assert await status(port, "GET", foreign) == 200
        assert await status(port, "POST", "https://mail.example") == 200
        assert await status(port, "POST", f"http://127.0.0.1:{port.port}") == 200
