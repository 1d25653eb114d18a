"""A small spool that has something in every table, kept as a file for each format on disk.

    python -m tests.spool.format_sample FILE.mdb.xz

writes the sample of the format that this program writes. It is run once, when a format gets its
number; what it wrote then is kept, because the spools of that day are, too.
"""

import lzma
import sys
import tempfile
from pathlib import Path

import trio
import trio.testing

from engine.spool.campaign_calls import NewCampaign
from engine.spool.interface import ContentKind, Finish, Quota, Rest
from protocols.records import DestinationRecord, Reason, Status, parts_number
from tests.spool import harness as h
from tests.spool.harness import Harness

# Five chunks, so that the order of their keys matters.
LARGE_CONTENT = b"".join(b"line %07d\r\n" % number for number in range(10_000))
TEMPLATE = b"Subject: Hello {name}\r\n\r\nDear {name}\r\n"
LISTED = "listed@six.test"
REST = DestinationRecord(
    not_before_unix_ms=h.START_UNIX_MS + h.HOUR_MS,
    cause="destination_unreachable",
    since_unix_ms=h.START_UNIX_MS,
    failures=2,
    reply="connect: no route to host",
    reason=Reason.CONNECTION,
    bucket_level=1.5,
    bucket_unix_ms=h.START_UNIX_MS,
    site="mx.site.test",
    learned=b"\x01",
)


async def write_spool(harness: Harness) -> None:
    """Make the spool of the sample."""
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        other = await h.make_account(spool, "other", "Europe/Berlin")
        large = h.message("large@one.test", "copy@one.test", content=LARGE_CONTENT, lane=1)
        template = h.message(
            "tina@two.test",
            content=TEMPLATE,
            kind=ContentKind.TEMPLATE,
            campaign="Frühling ☀",
            parts=parts_number(has_text=True, has_html=True, attachments=0),
        )
        await h.accept(spool, acme, large, template, digest=bytes(range(16)))
        for address in ("delivered", "bounced", "cancelled"):
            await h.accept(spool, acme, h.message(f"{address}@three.test", custom_id=address))
        await h.accept(spool, other, h.message("deferred@four.test"), h.message("dead@five.test"))
        await h.accept(spool, other, h.message("paused@one.test"), quota=Quota(per_day=2))
        [delivered, bounced, cancelled] = await h.claim(spool, "three.test")
        spool.give_back([cancelled.fixed.envelope_id])
        [deferred] = await h.claim(spool, "four.test")
        later = h.START_UNIX_MS + 300_000
        await spool.settle(
            [
                h.result_of(spool, delivered),
                h.result_of(spool, bounced, Status.HARD_BOUNCED),
                h.result_of(spool, deferred, Status.DEFERRED, due_unix_ms=later),
            ],
            [
                Finish(cancelled.fixed.envelope_id, Status.CANCELLED, h.START_UNIX_MS, None),
                Rest("five.test", REST),
            ],
        )
        await spool.put_notes({"some/name": b"\x01\x02"})
        new = NewCampaign(other, "Herbst ☂", TEMPLATE, bytes(range(16)), "sender@out.example")
        campaign, _ = await spool.create_campaign(new)
        part = h.message(
            LISTED,
            content=b"",
            campaign=campaign.name,
            campaign_id=campaign.campaign_id,
            lane=1,
        )
        await h.accept(spool, other, part)


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        harness = Harness("lmdb", Path(directory))
        trio.run(write_spool, harness, clock=trio.testing.MockClock())
        data = (Path(directory) / "spool" / "data.mdb").read_bytes()
    target.write_bytes(lzma.compress(data))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
