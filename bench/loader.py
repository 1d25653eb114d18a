"""Hand mail in over HTTP, as a sender's program would: `python -m bench.loader`.

Several kept connections post batches to /v3.1/send. It prints a JSON line when it
is ready and starts at the order "go"; the answer comes when all is handed in. The
bodies are put together from octets, so that what this costs is little beside what
it measures.
"""

import argparse
import http.client
import json
import sys
import threading
import time

from bench.name_server import ZONE
from bench.prefill import content_of


class Loader:
    """Batches shared out among connections, at full speed or at a given rate."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._next = 0
        self._started_at = 0.0
        self.accepted = 0
        self.faults: list[str] = []
        text = json.dumps(content_of(options.octets).decode()).encode()
        self._before = (
            b'{"From":{"Email":"bench@out.example","Name":"Bench"},"Subject":"A figure",'
            b'"CustomCampaign":"bench","To":[{"Email":"'
        )
        self._after = b'"}],"TextPart":' + text + b"}"

    def run(self) -> dict[str, object]:
        self._started_at = time.monotonic()
        threads = [threading.Thread(target=self._post) for _ in range(self._options.connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {
            "accepted": self.accepted,
            "seconds": time.monotonic() - self._started_at,
            "cpu_s": time.process_time(),
            "started_ns": int(self._started_at * 1e9),
            "faults": self.faults[:3],
        }

    def _post(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._options.port, timeout=60)
        headers = {
            "Authorization": self._options.authorization,
            "Content-Type": "application/json",
        }
        while numbers := self._take():
            connection.request("POST", "/v3.1/send", self._body(numbers), headers)
            response = connection.getresponse()
            answer = response.read()
            with self._lock:
                if response.status != 200:
                    self.faults.append(f"{response.status} {answer[:300]!r}")
                    return
                self.accepted += len(numbers)
        connection.close()

    def _take(self) -> range:
        """Return the numbers of the next batch, when its time has come; empty at the end."""
        with self._lock:
            start = self._next
            self._next = min(start + self._options.batch, self._options.messages)
            numbers = range(start, self._next)
        if self._options.per_second:
            due_at = self._started_at + start / self._options.per_second
            time.sleep(max(0.0, due_at - time.monotonic()))
        return numbers

    def _body(self, numbers: range) -> bytes:
        destinations, group = self._options.destinations, self._options.group
        first = self._options.first
        items = (
            self._before
            + f"r{first + number}@d{number % destinations}.{group}.{ZONE}".encode()
            + self._after
            for number in numbers
        )
        return b'{"Messages":[' + b",".join(items) + b"]}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.loader")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--authorization", required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--destinations", type=int, required=True)
    parser.add_argument("--octets", type=int, required=True)
    parser.add_argument("--group", default="good")
    parser.add_argument("--first", type=int, default=0, help="the first recipient's number")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--per-second", type=int, default=0, help="0: as fast as it goes")
    options = parser.parse_args()
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(Loader(options).run()), flush=True)


if __name__ == "__main__":
    main()
