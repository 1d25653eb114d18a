"""The books of a soak, kept by those who handed in, who took, and who listened; and what must hold.

As in `crash.py`, none of the three can be influenced by the engine. Here there are several
accounts, campaigns, an operator who cancels, and lives that end in order.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.delivery.disposition import UNSETTLED_ENVELOPES_MAX
from tests.scenarios.follower import FINAL, Heard, Story
from tests.scenarios.senders import REFUSED_KIND, Ledger, tag_of
from tests.scenarios.soak_mail import PLAIN, CampaignBook

OPEN: Final = ("queued", "paused", "deferred")
# Holds, rates and a busy machine may keep a mail for its whole short life; many they may not.
EXPIRED_SHARE_MAX: Final = 0.02
# A receiver that breaks off may have taken what it can no longer say yes to.
BREAK_OFF: Final = ("sometimes", "close-dot", "drip-dot", "twice-dot", "tarpit")


@dataclass(slots=True)
class Life:
    """One process. `is_killed` is false for one that was asked to end, and for the last."""

    begun_at: str
    is_killed: bool = False
    taken: int = 0


@dataclass(slots=True)
class Books:
    """What is known of all mail."""

    ledger: Ledger
    heard: Heard
    # What one account alone has heard over its own stream.
    heard_by_shop: Heard
    lives: list[Life] = field(default_factory=list)
    # Of each recipient: the number of the life in which it was taken, and the content's digest.
    taken: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    campaigns: list[CampaignBook] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    # Rows of the engine's own statistics in the end, by grouping and key.
    statistics: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)

    def take(self, taken: Sequence[tuple[str, str, str]]) -> None:
        """Add what receivers took from the life that goes on, or has just ended."""
        for recipient, digest, tag in taken:
            self.taken.setdefault(recipient, []).append((len(self.lives), digest))
            self.lives[-1].taken += 1
            if tag != tag_of(recipient):
                self.faults.append(f"content: {recipient} got the mail of {tag!r}")

    def duplicates(self) -> list[int]:
        """Return for each life how many of its mails were taken again in a later one."""
        again = Counter(life for places in self.taken.values() for life, _ in places[:-1])
        return [again[number] for number in range(1, len(self.lives) + 1)]

    def summary(self) -> str:
        kills = sum(life.is_killed for life in self.lives)
        # A copy, because others go on writing meanwhile.
        stories = list(self.heard.stories.values())
        finals = Counter(story.statuses[-1] for story in stories)
        return (
            f"{len(self.lives)} lives, {kills} killed; {len(self.ledger.acknowledged)} single "
            f"mails acknowledged, {len(self.campaigns)} campaigns with "
            f"{sum(len(each.addresses) for each in self.campaigns)} people; "
            f"{sum(map(len, self.taken.values()))} taken, {sum(self.duplicates())} again, at worst "
            f"{max(self.duplicates(), default=0)} after one end (the bound is "
            f"{UNSETTLED_ENVELOPES_MAX}); {self.heard.events} events, "
            f"{len(self.heard.holes)} holes; {dict(sorted(finals.items()))}"
        )


def by_address(books: Books) -> dict[str, Story]:
    return {story.address: story for story in books.heard.stories.values()}


def lost(books: Books) -> Iterator[str]:
    """Promised mail without exactly one end, or with one that is not true."""
    stories = by_address(books)
    expired: list[str] = []
    promised = set(books.ledger.acknowledged)
    for campaign in books.campaigns:
        if campaign.is_complete:
            promised.update(campaign.addresses)
    for address in promised:
        story = stories.get(address)
        if story is None:
            yield f"{address}: no event"
            continue
        if story.statuses[-1] not in FINAL or sum(each in FINAL for each in story.statuses) != 1:
            yield f"{address}: {story.statuses}"
        elif story.statuses[-1] == "delivered" and address not in books.taken:
            yield f"{address} is delivered, and no receiver has it"
        elif receiver_of(address) in PLAIN and story.account != "lists":
            wanted = "soft_bounced" if address.startswith(REFUSED_KIND) else "delivered"
            if story.last_reason == "expired":
                expired.append(address)
            elif story.statuses[-1] != wanted:
                yield f"{address}: {story.statuses} {story.last_reply}, not {wanted}"
    if len(expired) > len(promised) * EXPIRED_SHARE_MAX:
        yield f"{len(expired)} of {len(promised)} expired where all could go: {expired[0]}"


def told_wrong(books: Books) -> Iterator[str]:
    """Mail that a receiver took and that ended as if it had not."""
    for address, story in by_address(books).items():
        places = books.taken.get(address)
        if not places or story.statuses[-1] in ("delivered", *OPEN):
            continue
        # Whoever took it in a life that was killed, nobody could tell.
        is_known = not books.lives[places[-1][0] - 1].is_killed
        if is_known and not receiver_of(address).startswith(BREAK_OFF):
            yield f"{address} was taken and is {story.statuses}: {story.last_reply}"


def torn(books: Books) -> Iterator[str]:
    """Requests of which a part was kept; mail that was refused, or that nobody has handed in."""
    known = {story.address for story in books.heard.stories.values()}
    handed_in = {*books.ledger.acknowledged, *books.ledger.refused}
    for addresses in books.ledger.unanswered:
        handed_in.update(addresses)
        kept = sum(address in known for address in addresses)
        if kept not in (0, len(addresses)):
            yield f"{kept} of {len(addresses)} of one request were kept: {addresses[0]}"
    for campaign in books.campaigns:
        handed_in.update(campaign.addresses)
    yield from (
        f"{address} was refused and kept" for address in books.ledger.refused if address in known
    )
    for refusal in books.ledger.refusals:
        if not refusal.startswith("503"):
            yield f"refused for no reason: {refusal}"
    yield from (f"{address} was never handed in" for address in known - handed_in)


def repeated(books: Books) -> Iterator[str]:
    """Mail that was taken twice though nobody died between its final dot and its commit."""
    stories = by_address(books)
    for address, places in books.taken.items():
        lives = [life for life, _ in places]
        if len({digest for _, digest in places}) > 1:
            yield f"{address} got two different contents"
        if receiver_of(address).startswith(BREAK_OFF):
            continue
        if len(set(lives)) < len(lives):
            yield f"{address} was taken twice in one life: {lives}"
        elif any(not books.lives[life - 1].is_killed for life in lives[:-1]):
            yield f"{address} was taken again after an end in order: {lives}"
        story = stories.get(address)
        if len(lives) > 1 and story and not story.doubts:
            yield f"{address} was taken again, and nobody was told that it may be: {lives}"
        if len(lives) > 1 and story and story.last_at < books.lives[lives[-1] - 1].begun_at:
            yield f"{address} was taken again after its end had been committed: {lives}"
    for number, count in enumerate(books.duplicates(), 1):
        if count > UNSETTLED_ENVELOPES_MAX:
            yield f"{count} mails of life {number} were taken again"


def unheard(books: Books) -> Iterator[str]:
    """Holes in a stream, and two streams that do not tell the same."""
    yield from books.heard.holes
    yield from books.heard_by_shop.holes
    addresses: set[str] = set()
    for message_id, story in books.heard.stories.items():
        if story.statuses[0] not in ("queued", "paused", "blocked"):
            yield f"{message_id} {story.address} begins with {story.statuses}"
        if story.address in addresses:
            yield f"{story.address} was accepted twice"
        addresses.add(story.address)
        if books.ledger.acknowledged.get(story.address, message_id) != message_id:
            yield f"{story.address} was acknowledged with another id"
    own = {key: each for key, each in books.heard.stories.items() if each.account == "shop"}
    if own != books.heard_by_shop.stories:
        yield f"the shop has heard {len(books.heard_by_shop.stories)} stories of its {len(own)}"


def unbalanced(books: Books) -> Iterator[str]:
    """The engine's statistics against a rebuild from every event that was heard."""
    groupings: dict[str, Callable[[Story], str]] = {
        "": lambda story: "total",
        "account": lambda story: story.account,
        "destination": lambda story: story.address.rpartition("@")[2],
        "campaign": lambda story: story.campaign or "",
    }
    for grouping, key_of in groupings.items():
        rebuilt: dict[str, Counter[str]] = {}
        for story in books.heard.stories.values():
            rebuilt.setdefault(key_of(story), Counter())[story.statuses[-1]] += 1
        told = {
            key: Counter({name: n for name, n in counts.items() if n})
            for key, counts in books.statistics[grouping].items()
        }
        told = {key: counts for key, counts in told.items() if counts}
        if told != rebuilt:
            keys = sorted(told.keys() | rebuilt.keys())
            differ = [key for key in keys if told.get(key) != rebuilt.get(key)]
            first = differ[0]
            yield (
                f"by {grouping or 'total'} {len(differ)} rows differ; {first}: "
                f"{told.get(first)}, the log says {rebuilt.get(first)}"
            )


def miscounted(books: Books) -> Iterator[str]:
    """Campaigns whose counts are not those of their people; cancelled mail that was sent."""
    stories = by_address(books)
    for campaign in books.campaigns:
        own = [stories[address] for address in campaign.addresses if address in stories]
        shown = campaign.shown
        if not shown:
            if own:
                yield f"{campaign.name} is not shown, and has {len(own)} mails"
            continue
        if not shown["accepted"] == shown["total"] == len(own):
            yield f"{campaign.name}: {shown['accepted']}, {shown['total']} shown, {len(own)} heard"
        counts = Counter(story.statuses[-1] for story in own)
        told = Counter({name: n for name, n in shown["counts"].items() if n})
        if told != counts:
            yield f"{campaign.name} shows {dict(told)}, its events say {dict(counts)}"
        if campaign.is_complete and len(own) != len(campaign.addresses):
            yield f"{campaign.name}: {len(own)} of {len(campaign.addresses)} have mail"


CHECKS: Final = (lost, told_wrong, torn, repeated, unheard, unbalanced, miscounted)


def faults(books: Books) -> list[str]:
    """Return what does not hold, a line each."""
    found = [f"{check.__name__}: {fault}" for check in CHECKS for fault in check(books)]
    return books.faults + found


def receiver_of(address: str) -> str:
    """Return the name of the receiver that an address is at."""
    return address.rpartition("@")[2].split(".")[1]
