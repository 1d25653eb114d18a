"""The spool's map is full: new mail is refused, what was accepted goes, and room comes back."""

import sys
from pathlib import Path

import pytest

from tests.scenarios.scene import mails, scene
from tests.scenarios.small_map import MAP_OCTETS

pytestmark = pytest.mark.slow

TEXT = "words " * 5_000
# Held, all of it waits: twice of what the map has room for cannot be in it.
MAILS_MAX = 2 * MAP_OCTETS // len(TEXT)


def test_mail_is_refused_until_there_is_room(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.scenarios.small_map")
    with scene(tmp_path, command=command) as full:
        full.engine.run("suspend", "--campaign", "many")
        accepted: list[str] = []
        refusal: object = None
        for number in range(MAILS_MAX):
            address = f"to+{number}@d{number}.distant.test"
            status, answer = full.post(mails([address], TextPart=TEXT, CustomCampaign="many"))
            if status != 200:
                refusal = answer
                break
            accepted.append(address)
        assert isinstance(refusal, dict), f"{len(accepted)} mails fitted into {MAP_OCTETS} octets"
        assert refusal["StatusCode"] == 503
        assert "try again later" in refusal["ErrorMessage"]

        def taken() -> bool:
            return full.post(mails(["to+later@d0.fast.test"], TextPart=TEXT))[0] == 200

        # The part of the map that is kept for it is enough to let the mail go.
        full.engine.run("resume", "--campaign", "many")
        full.wait_for("room for new mail", taken)
        assert full.wait_until_final() == {"delivered": len(accepted) + 1}
        assert sorted(full.delivered()) == sorted([*accepted, "to+later@d0.fast.test"])
