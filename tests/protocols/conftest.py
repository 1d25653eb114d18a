"""Each dialogue twice: as it comes, and one octet at a time."""

from functools import partial
from typing import Any

import pytest

from tests.protocols.dialogue import Begin, Dialogue


@pytest.fixture(params=["whole", "octet by octet"])
def begin(request: Any) -> Begin:
    return partial(Dialogue, one_by_one=request.param != "whole")
