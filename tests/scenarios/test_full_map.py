"""The spool's map is full: new mail is refused, what was accepted goes, and room comes back."""

import sys
from pathlib import Path

import pytest

from tests.scenarios.scene import mails, scene
from tests.scenarios.small_map import MAP_OCTETS

pytestmark = pytest.mark.slow

TEXT = "words " * 5_000
# More than fits, even if half of it were delivered meanwhile.
MAILS_MAX = 4 * MAP_OCTETS // len(TEXT)


def test_mail_is_refused_until_there_is_room(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.scenarios.small_map")
    with scene(tmp_path, "[delivery]\nretry_s = [1]\n", command=command) as full:
        accepted: list[str] = []
        refusal: object = None
        for number in range(MAILS_MAX):
            # Refused once and taken later, so that the map is full of mail that waits.
            address = f"451-after-rcpt.1+{number}@d{number}.distant.test"
            status, answer = full.post(mails([address], TextPart=TEXT))
            if status != 200:
                refusal = answer
                break
            accepted.append(address)
        assert isinstance(refusal, dict), f"{len(accepted)} mails fitted into {MAP_OCTETS} octets"
        assert refusal["StatusCode"] == 503
        assert "try again later" in refusal["ErrorMessage"]

        def taken() -> bool:
            return full.post(mails(["to+later@d0.fast.test"], TextPart=TEXT))[0] == 200

        full.wait_for("room for new mail", taken)
        assert full.wait_until_final() == {"delivered": len(accepted) + 1}
        assert sorted(full.delivered()) == sorted([*accepted, "to+later@d0.fast.test"])
