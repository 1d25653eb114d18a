"""Records of a kind that nobody has read before, read by several threads at once."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# A hundred kinds, each read for the first time by three threads that begin together. What goes
# wrong here is not an exception but the end of the process.
PROGRAM = """
import sys, threading
import msgspec
from protocols.records import pack_record, unpack_record

sys.setswitchinterval(1e-5)
fields = [(f"field{n}", int | str | None) for n in range(20)]
for number in range(100):
    nested = msgspec.defstruct("Nested", fields, array_like=True)
    kind = msgspec.defstruct("Kind", [*fields, ("nested", nested)], array_like=True)
    stored = pack_record([1] * 20 + [[1] * 20])
    together = threading.Barrier(3)

    def read():
        together.wait()
        assert unpack_record(stored, kind).nested.field19 == 1

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_a_kind_is_prepared_once() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
