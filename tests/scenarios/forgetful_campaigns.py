"""The engine with one promise broken: it does not remember who is in a campaign.

The control of the test that breaks lists off. `python -m tests.scenarios.forgetful_campaigns` takes
the words of `eilpost`.
"""

from engine.cli import main
from engine.spool.lmdb_campaigns import Listed


def forget(listed: Listed, place: int, envelope_id: int) -> None:
    """Note nothing of a recipient."""


if __name__ == "__main__":
    setattr(Listed, "take_in", forget)  # noqa: B010 - the fault that is rehearsed
    main()
