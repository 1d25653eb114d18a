"""Clients that hand in mail for as long as they are let, and the ledger of what was said to them.

A client whose connection breaks does not know what became of its batch. Most start another one;
those with an Idempotency-Key repeat theirs until they get an answer.
"""

import http.client
import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from engine.rehearsal.engine_process import Credentials
from tests.scenarios.counting_receivers import ADDRESSES

# Local parts that a receiver obeys, in thousandths: most mail goes at once. A 421 costs everybody
# at the destination a while, so there are few.
KINDS: Final = {"to": 848, "451-after-rcpt.1": 100, "421-after-rcpt.1": 2, "550-after-rcpt": 50}
REFUSED_KIND: Final = "550-after-rcpt"
DOMAINS_EACH: Final = 3
BATCH_MAX: Final = 30
RECIPIENTS_MAX: Final = 3
RETRY_S: Final = 0.02


@dataclass(slots=True)
class Ledger:
    """What was answered: an id for each address, no answer at all, or a refusal."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    unanswered: list[list[str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    refusals: set[str] = field(default_factory=set)
    repeats: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Batch:
    addresses: list[str]
    body: bytes


def batch(rand: random.Random, name: str) -> Batch:
    """Make a request of some messages with one to three recipients each, all with own addresses."""
    addresses: list[str] = []
    messages: list[dict[str, object]] = []
    for number in range(rand.randint(1, BATCH_MAX)):
        tag = f"{name}-{number}"
        domain = f"d{rand.randrange(DOMAINS_EACH)}.{rand.choice(list(ADDRESSES))}.test"
        kinds = rand.choices(list(KINDS), list(KINDS.values()), k=rand.randint(1, RECIPIENTS_MAX))
        to = [f"{kind}+{tag}_{place}@{domain}" for place, kind in enumerate(kinds)]
        addresses += to
        messages.append(
            {
                "From": {"Email": "shop@sender.test"},
                "To": [{"Email": address} for address in to],
                "Subject": "An order",
                "TextPart": f"tag<{tag}> " + "and some words about it\n" * rand.randint(1, 60),
                "CustomID": tag,
            }
        )
    return Batch(addresses, json.dumps({"Messages": messages}).encode())


def tag_of(address: str) -> str:
    """Return the tag of the message that an address was made for."""
    return address.partition("+")[2].partition("@")[0].rpartition("_")[0]


class Sender(threading.Thread):
    """One client. `may_send` holds it back while too much mail is open; `stop` ends it."""

    def __init__(
        self,
        name: str,
        port: int,
        credentials: Credentials,
        ledger: Ledger,
        *,
        seed: int,
        repeats: bool,
        may_send: Callable[[], bool],
        make: Callable[[random.Random, str], Batch] = batch,
    ) -> None:
        super().__init__(name=name)
        self.stop = threading.Event()
        self._port = port
        self._credentials = credentials
        self._ledger = ledger
        self._rand = random.Random(f"{seed} {name}")
        self._repeats = repeats
        self._may_send = may_send
        self._make = make
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def run(self) -> None:
        made = 0
        try:
            while not self.stop.is_set():
                if not self._may_send():
                    self.stop.wait(RETRY_S)
                    continue
                made += 1
                self._hand_in(self._make(self._rand, f"{self.name}.{made}"), f"{self.name}.{made}")
        finally:
            self._connection.close()

    def _hand_in(self, given: Batch, key: str) -> None:
        while True:
            try:
                status, octets = self._post(given.body, key)
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                # Refused connections carried nothing, so nothing is unsure about them.
                never_sent = isinstance(error, ConnectionRefusedError)
                if self.stop.is_set() or not (never_sent or self._repeats):
                    break
                self._ledger.repeats += not never_sent
                self.stop.wait(RETRY_S)
                continue
            self._note(given, status, octets)
            return
        with self._ledger.lock:
            self._ledger.unanswered.append(given.addresses)

    def _post(self, body: bytes, key: str) -> tuple[int, bytes]:
        headers = {
            "Authorization": self._credentials.authorization,
            "Content-Type": "application/json",
        }
        if self._repeats:
            headers["Idempotency-Key"] = key
        self._connection.request("POST", "/v3.1/send", body, headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def _note(self, given: Batch, status: int, octets: bytes) -> None:
        with self._ledger.lock:
            if status != 200:
                self._ledger.refused += given.addresses
                self._ledger.refusals.add(f"{status} {octets[:200]!r}")
                return
            for message in json.loads(octets)["Messages"]:
                for recipient in message["To"]:
                    self._ledger.acknowledged[recipient["Email"]] = recipient["MessageID"]
