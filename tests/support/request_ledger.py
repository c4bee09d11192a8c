"""What a worker owes its caller, and whether it has paid: the invariants that hold whatever happens.

Owns the count of requests and answers. Refuses to know what any of them was about.
"""

from __future__ import annotations

import threading
from collections import Counter

from tests.support.worker import Json, Worker, wait_until

Id = int | str


class Ledger:
    """Follows one worker's messages. ``owed`` are the ids of requests that were sent, ``open`` those without an answer yet."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._seen = len(worker.received)
        self._lock = threading.Lock()
        self.owed: set[Id] = set()
        self.responses: dict[Id, list[Json]] = {}
        self.seqs: dict[Id, list[int]] = {}
        self.text: dict[Id, str] = {}
        self.faults: list[str] = []

    def owe(self, id: Id) -> Id:
        self.owed.add(id)
        return id

    @property
    def open(self) -> list[Id]:
        self._read()
        return [id for id in list(self.owed) if id not in self.responses]  # another thread may add to it

    def wait_for_less_than(self, count: int) -> None:
        wait_until(lambda: len(self.open) < count, f"fewer than {count} requests in flight; open are {self.open[:9]}")

    def check(self) -> Counter[str]:
        """Waits for the last answer and holds all of it against the rules; returns how often each outcome was."""
        self.wait_for_less_than(1)
        assert not self.faults, self.faults[:5]
        assert set(self.responses) == self.owed, set(self.responses) ^ self.owed
        twice = {id: responses for id, responses in self.responses.items() if len(responses) != 1}
        assert not twice, twice
        for id, seqs in self.seqs.items():
            assert seqs == list(range(len(seqs))), f"gaps in the deltas of {id}: {seqs}"
            result = self.responses[id][0].get("result")
            assert result is None or (result["content"] or "") == self.text[id], f"the deltas of {id} do not make up its result"
        return Counter(outcome(responses[0]) for responses in self.responses.values())

    def _read(self) -> None:
        with self._lock:
            for message in self._worker.received[self._seen :]:
                self._seen += 1
                for one in message if isinstance(message, list) else [message]:
                    self._note(one)

    def _note(self, message: Json) -> None:
        if message.get("method") == "notifications/chat/delta":
            params = message["params"]
            id = params["requestId"]
            if id in self.responses or id not in self.owed:
                self.faults.append(f"a delta after the answer, or without a request: {message}")
            self.seqs.setdefault(id, []).append(params["seq"])
            self.text[id] = self.text.get(id, "") + (params["delta"].get("content") or "")
        elif "method" not in message and message["id"] is not None:
            self.responses.setdefault(message["id"], []).append(message)


def outcome(response: Json) -> str:
    return "ok" if "result" in response else str(response["error"]["data"]["kind"])
