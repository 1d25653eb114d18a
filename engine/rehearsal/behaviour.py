"""How a simulated receiver treats what it is sent: the choices, without a wire or a clock.

Everything random comes from a seed and a name, never from a generator's state:
the same recipient is unknown on each attempt and in each run, whatever order
mail arrives in. Times are seconds since the receiver started, as arguments.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b

from protocols.smtp_server import ServerSettings


class Stage(Enum):
    """The points of a session where a receiver can misbehave, in the order they are met."""

    CONNECT = "connect"
    EHLO = "ehlo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"
    DOT = "dot"
    QUIT = "quit"


class Action(Enum):
    """What it does there instead of the reply that belongs there."""

    REPLY = "says a code of its own"
    CLOSE = "closes the connection without a word"
    STALL = "says nothing more and keeps the connection"
    HUGE = "answers with a line of a million octets"
    ENDLESS = "sends continuation lines for as long as they are read"
    RUBBISH = "answers with octets that are no reply"
    TWICE = "gives its reply two times"
    DRIP = "gives its reply octet by octet"


@dataclass(frozen=True, slots=True)
class Mischief:
    """One action at one stage; `code` is for REPLY; `times` limits it to the first so many."""

    action: Action
    stage: Stage
    code: int = 0
    times: int | None = None


# "421-after-rcpt", "close-after-dot.1+4711": what, where, how often, and a tag that
# keeps addresses apart.
_NAMED = re.compile(r"(?P<what>[a-z]+|[2-5]\d\d)-after-(?P<stage>[a-z]+)(\.(?P<times>\d+))?(\+.*)?")


def mischief_named_by(recipient: str) -> Mischief | None:
    """Return what the local part of `recipient` asks for, None for an ordinary address."""
    found = _NAMED.fullmatch(recipient.rpartition("@")[0].lower())
    if found is None:
        return None
    times = int(found["times"]) if found["times"] else None
    try:
        stage = Stage(found["stage"])
        if found["what"].isdigit():
            return Mischief(Action.REPLY, stage, int(found["what"]), times)
        return Mischief(Action[found["what"].upper()], stage, 0, times)
    except (KeyError, ValueError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What one receiver does. The defaults take everything at once."""

    # Before each write: a tarpit's delay, or the round trip of a long line.
    reply_delay_s: float = 0.0
    # More messages a second than this get 421 and the end of the connection.
    rate_per_s: float | None = None
    rate_burst: int = 10
    # A (client, reverse path, recipient) not seen this long ago gets 451.
    greylist_s: float | None = None
    # (from, until) in which connections are refused.
    down_s: tuple[tuple[float, float], ...] = ()
    # Shares of all addresses, by the seed. Full ones empty themselves at `full_until_s`.
    unknown_share: float = 0.0
    full_share: float = 0.0
    full_until_s: float | None = None
    # Connections beyond this get 421 instead of a banner.
    connections_max: int | None = None
    mischief: Mischief | None = None
    settings: ServerSettings = field(default_factory=ServerSettings)

    def is_down(self, now_s: float) -> bool:
        return any(start <= now_s < end for start, end in self.down_s)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A reply that stands in the way: its code and text. After a 421 the receiver hangs up."""

    code: int
    text: str


@dataclass(slots=True)
class Memory:
    """What a receiver remembers between sessions: greylisted triplets, its rate, its tricks."""

    seed: int
    first_seen_s: dict[tuple[str, str, str], float] = field(default_factory=dict)
    tokens: float = -1.0
    tokens_at_s: float = 0.0
    tricks_played: dict[str, int] = field(default_factory=dict)


def judge_recipient(
    behaviour: Behaviour, memory: Memory, client: str, sender: str, recipient: str, now_s: float
) -> Verdict | None:
    """Return why RCPT is refused, or None to accept it. Remembers a new triplet."""
    share = _share_of(memory.seed, "user", recipient)
    if share < behaviour.unknown_share:
        return Verdict(550, f"5.1.1 <{recipient}>: no such user here")
    full = behaviour.full_until_s is None or now_s < behaviour.full_until_s
    if full and _share_of(memory.seed, "box", recipient) < behaviour.full_share:
        return Verdict(452, f"4.2.2 <{recipient}>: mailbox full")
    if behaviour.greylist_s is not None:
        first_s = memory.first_seen_s.setdefault((client, sender, recipient), now_s)
        if now_s - first_s < behaviour.greylist_s:
            return Verdict(451, "4.7.1 Greylisted, please try again later")
    return None


def judge_rate(behaviour: Behaviour, memory: Memory, now_s: float) -> Verdict | None:
    """Take one message's token; return the refusal if there is none left."""
    if behaviour.rate_per_s is None:
        return None
    if memory.tokens < 0:
        memory.tokens = float(behaviour.rate_burst)
    gained = (now_s - memory.tokens_at_s) * behaviour.rate_per_s
    memory.tokens = min(float(behaviour.rate_burst), memory.tokens + gained)
    memory.tokens_at_s = now_s
    if memory.tokens < 1.0:
        return Verdict(421, "4.7.0 Too many messages, slow down")
    memory.tokens -= 1.0
    return None


def plays_trick(memory: Memory, trick: Mischief, key: str) -> bool:
    """Say whether `trick` is still played on `key`, and count it."""
    played = memory.tricks_played.get(key, 0)
    memory.tricks_played[key] = played + 1
    return trick.times is None or played < trick.times


def _share_of(seed: int, purpose: str, name: str) -> float:
    """Return a number in [0, 1) that depends on nothing but the arguments."""
    digest = blake2b(f"{seed}/{purpose}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64
