"""What the library's cursors leave to be known by everybody who uses them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lmdb


def delete_here(cursor: "lmdb.Cursor[bytes]") -> bool:
    """Delete the row that a cursor is on; return whether it now is on the one after it.

    The library answers only whether it has deleted something; behind the last row its key is empty,
    and no table has an empty key.
    """
    deleted = cursor.delete()
    assert deleted, "the cursor was on no row"
    return cursor.key() != b""
