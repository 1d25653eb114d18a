"""Notes: durable when stored, found by the beginning of their names, on every adapter."""

from tests.spool import harness as h


async def test_notes_are_kept_in_order_until_they_are_removed(harness: h.Harness) -> None:
    async with harness.open() as spool:
        await spool.put_notes({"b/2": b"two", "b/1": b"one", "a": b"", "c": b"\0\xff" * 400})
        await spool.put_notes({"b/3": b"three", "b/1": None, "none": None})
        assert await spool.notes("b/") == [("b/2", b"two"), ("b/3", b"three")]
    async with harness.open() as spool:
        assert [name for name, _ in await spool.notes("")] == ["a", "b/2", "b/3", "c"]
        assert await spool.notes("c") == [("c", b"\0\xff" * 400)]
        assert await spool.notes("d") == []
        await spool.put_notes({"b/2": b"again"})
        assert dict(await spool.notes("b"))["b/2"] == b"again"
