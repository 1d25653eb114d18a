"""Who hands in mail during a soak: senders at a pace, and campaigns in every state they can be in.

What was promised stands in the ledger that all share. Local parts name what a receiver does with
them (`counting_receivers`), and domains which receiver that is.
"""

import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engine.rehearsal.engine_process import Credentials, HttpClient
from tests.scenarios.counting_receivers import ADDRESSES, MOODY_ADDRESSES
from tests.scenarios.senders import KINDS, RECIPIENTS_MAX, RETRY_S, Batch, Ledger

# Of these nothing but what the local part asks for happens, and nobody cancels their mail.
PLAIN: Final = ("fast", "near", "distant")
HOSTILE: Final = ("close-mail", "close-dot", "rubbish-rcpt", "twice-dot", "drip-dot", "huge-ehlo")
# These keep a mail until the engine gives up: a run has to be longer than that.
STALLING: Final = ("stall-mail", "stall-rcpt", "stall-data")
HOSTILE_SHARE: Final = 0.06
MESSAGES_MAX: Final = 8
RECIPIENTS_OF_CAMPAIGN: Final = (20, 120)
# The part of a list before a break.
BROKEN_AT: Final = (0.2, 0.9)


class Pace:
    """Lets so much through a second, all callers together; whoever asks too soon waits a moment."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._next_s = time.monotonic()
        self._lock = threading.Lock()

    def may_send(self, mails: float, stop: threading.Event) -> bool:
        """Wait until it is one's turn, or for a second; say whether it is."""
        with self._lock:
            now_s = time.monotonic()
            wait_s = self._next_s - now_s
            if wait_s <= 1.0:
                self._next_s = max(self._next_s, now_s) + mails / self._rate_per_s
        stop.wait(min(1.0, max(0.0, wait_s)))
        return wait_s <= 1.0


@dataclass(slots=True)
class Mailbag:
    """Makes requests; `hostile` are the receivers of the worst kind that are in this run."""

    hostile: Sequence[str]

    def receiver(self, rand: random.Random) -> str:
        if rand.random() < HOSTILE_SHARE:
            return rand.choice(list(self.hostile))
        return rand.choice((*ADDRESSES, *PLAIN, *MOODY_ADDRESSES))

    def batch(self, rand: random.Random, name: str) -> Batch:
        """Make some messages with one to three recipients each, all with addresses of their own."""
        addresses: list[str] = []
        messages: list[dict[str, object]] = []
        for number in range(rand.randint(1, MESSAGES_MAX)):
            tag = f"{name}-{number}"
            domain = f"d{rand.randrange(3)}.{self.receiver(rand)}.test"
            count = rand.randint(1, RECIPIENTS_MAX)
            kinds = rand.choices(list(KINDS), list(KINDS.values()), k=count)
            to = [f"{kind}+{tag}_{place}@{domain}" for place, kind in enumerate(kinds)]
            addresses += to
            message: dict[str, object] = {
                "From": {"Email": "shop@sender.test"},
                "To": [{"Email": address} for address in to],
                "Subject": f"An order {number}",
                "TextPart": f"tag<{tag}> " + "and some words about it\n" * rand.randint(1, 60),
                "CustomID": tag,
                "Priority": rand.choice((1, 2, 3)),
            }
            if rand.random() < 0.3:
                message["CustomCampaign"] = f"batch {rand.randrange(4)}"
            messages.append(message)
        return Batch(addresses, json.dumps({"Messages": messages}).encode())

    def people(self, rand: random.Random, name: str) -> list[tuple[str, str]]:
        """Return (address, tag) of the people of one campaign."""
        found = []
        for number in range(rand.randint(*RECIPIENTS_OF_CAMPAIGN)):
            tag = f"{name}-{number}"
            domain = f"d{number % 3}.{self.receiver(rand)}.test"
            found.append((f"to+{tag}_0@{domain}", tag))
        return found


@dataclass(slots=True)
class CampaignBook:
    """What its sender knows of one campaign. `complete`: each line of its list was answered for."""

    name: str
    addresses: list[str]
    is_complete: bool = False
    is_cancelled: bool = False
    shown: dict[str, Any] = field(default_factory=dict)


class CampaignSender(threading.Thread):
    """Makes one campaign after the other: broken off, handed in again, paused, cancelled."""

    def __init__(
        self,
        port: int,
        credentials: Credentials,
        ledger: Ledger,
        mailbag: Mailbag,
        pace: Pace,
        *,
        seed: int,
    ) -> None:
        super().__init__(name="campaigns")
        self.stop = threading.Event()
        self.campaigns: list[CampaignBook] = []
        self.surprises: list[str] = []
        self._port = port
        self._credentials = credentials
        self._ledger = ledger
        self._mailbag = mailbag
        self._pace = pace
        self._rand = random.Random(f"{seed} campaigns")

    def run(self) -> None:
        while not self.stop.is_set():
            name = f"campaign {len(self.campaigns) + 1}"
            people = self._mailbag.people(self._rand, f"c{len(self.campaigns) + 1}")
            while not self._pace.may_send(len(people), self.stop):
                if self.stop.is_set():
                    return
            book = CampaignBook(name, [address for address, _ in people])
            self.campaigns.append(book)
            self._one(book, people)

    def _one(self, book: CampaignBook, people: Sequence[tuple[str, str]]) -> None:
        rand, path = self._rand, f"/v1/campaigns/{book.name.replace(' ', '%20')}"
        definition = {
            "campaign": book.name,
            "from": {"email": "news@sender.test"},
            "subject": "News for {{tag}}",
            "text": "Dear {{address}},\ntag<{{tag}}>\n",
            "lane": rand.choice(("bulk", "transactional")),
        }
        self._until_answered("/v1/campaigns", json.dumps(definition).encode())
        lines = ["email,tag\n", *(f"{address},{tag}\n" for address, tag in people)]
        octets = "".join(lines).encode()
        if rand.random() < 0.4:
            self._break_off(f"{path}/recipients", octets, rand.uniform(*BROKEN_AT))
        if rand.random() < 0.5:
            self._until_answered(f"{path}/pause", b'{"reason": "soak"}')
            self.stop.wait(rand.uniform(0.0, 3.0))
        answer = self._until_answered(f"{path}/recipients", octets, kind="text/csv")
        if answer is not None:
            book.is_complete = True
            taken = answer["accepted"] + answer["repeated"]
            if taken != len(people):
                self.surprises.append(f"{book.name}: {len(people)} people, the answer is {answer}")
        if rand.random() < 0.4:
            self.stop.wait(rand.uniform(0.0, 0.5))
            book.is_cancelled = self._until_answered(f"{path}/cancel", b"{}") is not None
        else:
            self._until_answered(f"{path}/resume", b"{}")
            if rand.random() < 0.5:
                self._until_answered(f"{path}/close", b"{}")

    def _until_answered(
        self, path: str, body: bytes, *, kind: str = "application/json"
    ) -> dict[str, Any] | None:
        """Ask again until there is an answer; None if there is none before the end."""
        while not self.stop.is_set():
            client = HttpClient(self._port, self._credentials)
            client.headers["Content-Type"] = kind
            try:
                status, answer = client.request("POST", path, body)
            except OSError:
                self.stop.wait(RETRY_S * 10)
                continue
            finally:
                client.close()
            if status in (429, 503):
                self.stop.wait(RETRY_S * 10)
                continue
            if status >= 400 or not isinstance(answer, dict):
                self.surprises.append(f"POST {path}: {status} {answer!r:.300}")
                return None
            return answer
        return None

    def _break_off(self, path: str, octets: bytes, part: float) -> None:
        """Send the beginning of a list and vanish."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            f"Content-Length: {len(octets)}\r\n"
            f"Authorization: {self._credentials.authorization}\r\n\r\n"
        )
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=10) as plain:
                plain.sendall(head.encode() + octets[: round(len(octets) * part)])
                self.stop.wait(self._rand.uniform(0.0, 1.5))
        except OSError:
            return

    def look(self) -> None:
        """Ask what the engine shows of each campaign in the end."""
        client = HttpClient(self._port, self._credentials)
        try:
            for book in self.campaigns:
                path = f"/v1/campaigns/{book.name.replace(' ', '%20')}"
                status, shown = client.request("GET", path)
                if status == 200 and isinstance(shown, dict):
                    book.shown = shown
        except (OSError, http.client.HTTPException) as error:
            self.surprises.append(f"campaigns cannot be looked at: {error}")
        finally:
            client.close()
