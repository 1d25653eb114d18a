"""What the running engine writes about itself."""

import json
from pathlib import Path

import pytest

from engine.rehearsal.engine_process import EngineProcess, HttpClient

DEAD = '[[route]]\ndomain = "*.test"\nnext_hop = "127.0.0.1:1"'
FORGED = "over\n2026-01-01 00:00:00,000 CRITICAL eilpost.spool: forged\r\x1b[2Jgone\u2028"


@pytest.mark.slow
def test_nobody_begins_a_line_of_the_log_with_a_reason(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, DEAD)
    try:
        credentials = engine.create_account("shop")
        engine.start()
        engine.wait_until_ready()
        client = HttpClient(engine.port, credentials)
        mail = {
            "From": {"Email": "a@out.example"},
            "To": [{"Email": "r@dead.test"}],
            "TextPart": "x",
            "CustomCampaign": FORGED,
        }
        body = json.dumps({"Messages": [mail]}).encode()
        assert client.request("POST", "/v3.1/send", body)[0] == 200
        wanted = json.dumps({"campaign": FORGED, "reason": FORGED}).encode()
        status, answer = client.request("POST", "/v1/cancel", wanted)
        client.close()
        assert status == 200
        assert isinstance(answer, dict)
        assert answer["changed"] == 1
    finally:
        engine.stop()
    written = engine.output_path.read_bytes()
    assert b"cancel by shop of campaign" in written
    assert b"\x1b" not in written
    assert not [line for line in written.decode().splitlines() if line.startswith("2026-01-01")]
