"""Runs a plan to its end and checks it: what was said, what it cost, and that nothing is left over.

Owns the phases of a run and the checks at their ends. Refuses to know how a plan is made.
"""

from __future__ import annotations

import gc
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bridge_worker import invariants
from bridge_worker.runtime.exit_codes import EXIT_BROKEN
from tests.simulation import machine as machines
from tests.simulation.client import Client
from tests.simulation.machine import Machine
from tests.simulation.provider import INPUT_TOKENS, NANO_A_TOKEN
from tests.simulation.schedules import GRACE_SECONDS, MAX_TASK_REQUESTS, MAX_TOKENS, TOTAL_MS, Plan

_LAST_RESPONSE = TOTAL_MS / 1000 + 75  # a cancel, a deadline, an engine that does not load: the slowest of them
_STARTED = 2.0  # by then every engine has loaded, unless something befell it
_EXIT = 12.0
_RUNS_A_COLLECTION = 10  # what more runs leave is in no cache of the processor when it is collected
RESERVED = (INPUT_TOKENS + MAX_TOKENS) * NANO_A_TOKEN


@dataclass(slots=True)
class Outcome:
    plan: Plan
    problems: list[tuple[str, str]]
    transcript: list[tuple[float, str, str]] = field(repr=False, default_factory=list)
    digest: str = ""  # of the bytes that the client has read
    seconds: float = 0.0  # virtual
    steps: int = 0


def run(plan: Plan) -> Outcome:
    """Call it within `machine.virtual`."""
    invariants.reset()
    machine = Machine(plan)
    machines.current = machine
    client = Client(machine)
    machine.start()
    client.start()
    problems = _Run(machine, client).run()
    for fault in machine.kernel.faults:
        problems.append(("no_fault", fault))
    problems += [(name, f"found by the worker: {count} times") for name, count in invariants.violations().items()]
    digest = hashlib.sha256(b"".join(client.bytes_read)).hexdigest()[:16]
    return Outcome(plan, problems, client.transcript, digest, machine.kernel.now - 1000, machine.kernel.steps)


class _Run:
    def __init__(self, machine: Machine, client: Client) -> None:
        self.machine = machine
        self.client = client
        self.problems = client.conversation.problems

    def run(self) -> list[tuple[str, str]]:
        kernel, client, machine = self.machine.kernel, self.client, self.machine
        last_action = machine.plan.actions[-1][0] if machine.plan.actions else 0.0
        kernel.run(lambda: machine.exit_code is not None, kernel.now + last_action + 0.0005)
        client.read_on()
        ended = lambda: machine.exit_code is not None or client.is_complete()  # noqa: E731
        kernel.run(ended, kernel.now + _LAST_RESPONSE)
        if machine.exit_code is None and not self._is_ending():
            self._check_responses()
            quiet = max(kernel.now + machine.plan.quiet_seconds(), 1000 + _STARTED)
            kernel.run(lambda: machine.exit_code is not None, quiet)
            if machine.exit_code is None:
                self._check_rest()
        self._finish()
        return self.problems

    def _is_ending(self) -> bool:
        server = self.machine.server
        return server is None or server._drain.is_set()

    def _check_responses(self) -> None:
        self.client.conversation.end(whole=True)
        keys = {message["id"]: message["params"] for message in self._chats()}
        for (_, id), responses in self.client.conversation.responses.items():
            for response in responses:
                if id in keys and (response.get("error") or {}).get("data", {}).get("deadline") == "total_ms":
                    self._check_deadline(id, keys[id])

    def _check_deadline(self, id: object, params: Any) -> None:
        """The default deadline is a backstop: a request that only it ends was forgotten."""
        script = self.machine.plan.scripts.get(params["messages"][0]["content"])
        if script is not None and script.ends_by_itself() and "total_ms" not in params.get("deadlines", {}):
            self._broken("forgotten", f"{id!r} waited for its deadline, although its provider had responded")

    def _chats(self) -> list[Any]:
        messages = [one for _, kind, one in self.machine.plan.actions if isinstance(one, dict) or kind == "batch"]
        flat = [one for message in messages for one in (message if isinstance(message, list) else [message])]
        ids = Counter(str(one["id"]) for one in flat)
        return [one for one in flat if one["method"] == "chat" and ids[str(one["id"])] == 1]

    def _finish(self) -> None:
        kernel, client, machine = self.machine.kernel, self.client, self.machine
        client.end_input()
        kernel.run(lambda: machine.exit_code is not None, kernel.now + _LAST_RESPONSE + GRACE_SECONDS + _EXIT)
        kernel.run(lambda: client.is_read_to_its_end() and not machine.children, kernel.now + 3)
        if machine.exit_code is None:
            self._broken("exit", "the worker does not end")
        elif machine.exit_code not in ((0, EXIT_BROKEN) if self.client.may_lose_output else (0,)):
            self._broken("exit", f"exit code {machine.exit_code}")
        elif machine.exit_code == 0 and machine.lost_output:
            self._broken("exit", "exit code 0, although a write has failed")
        if machine.children:
            self._broken("exit", f"processes are left: {[child.name for child in machine.children.values()]}")
        if machine.exit_code == 0 and not machine.stdout.reader_gone:
            client.conversation.end(whole=not client.cut_off)
            if client.half_line():
                self._broken("one_line", f"half a line: {client.half_line()[:60]!r}")
        if machine.server and machine.most_queued > machine.server._checks.most_queued(machines.READ_QUEUE_BYTES):
            self._broken("outbox", f"{machine.most_queued} bytes were queued for the client")

    def _check_rest(self) -> None:
        """Every request has its response, and all that belonged to one has ended."""
        machine = self.machine
        server, app = machine.server, machine.app
        assert server is not None
        if server._requests or server._session.in_flight:
            self._broken("task_age", f"{len(server._requests)} requests are left")
        if opened := {key: count for key, count in machine.connections.items() if count}:
            self._broken("task_age", f"connections to the provider are open: {opened}")
        for engine in machine.engines.values():
            runs = engine.process.exit_code is None and not engine.process.hangs
            if runs and engine.engine is not None and (engine.engine._tasks or engine.engine._calls):
                self._broken("task_age", f"engine {engine.key} still has {len(engine.engine._tasks)} requests")
        if machine.plan.engines:
            pool: Any = app._pool  # type: ignore[union-attr]
            alive = [one.key for one in machine.engines.values() if one.process.exit_code is None]
            if len(alive) != machine.plan.engines:
                self._broken("engines", f"{len(alive)} engine processes instead of {machine.plan.engines}: {alive}")
            if pool._requests or pool._waiting or pool._pausing:
                self._broken("task_age", "the pool still has requests")
        counters: Any = app._counters if machine.plan.engines else app._dispatcher._counters  # type: ignore[union-attr]
        if counters._in_flight:
            self._broken("in_flight", f"status counts {counters._in_flight} requests in flight")
        self._check_money()

    def _check_money(self) -> None:
        app: Any = self.machine.app
        engines = self.machine.plan.engines
        store = app._shared._budgets._store if engines else app.spending._store
        for id, task in (app._shared._tasks._tasks if engines else app.spending.tasks)._tasks.items():
            if task.holds or task.requests > MAX_TASK_REQUESTS:
                self._broken("money", f"task {id}: {len(task.holds)} reservations are left, {task.requests} requests")
        for key, book in store._books.items():
            is_past = book.window and 1_700_000_000 + self.machine.kernel.now >= book.start + book.window
            if book.reserved and not is_past:
                self._broken("money", f"{key}: {len(book.reserved)} reservations are left")
            if book.used.nano_usd < 0 or book.used.tokens < 0:
                self._broken("money", f"{key}: {book.used} used")
        least, most = self._cost()
        if (whole := store._books.get("/:ever")) and not least <= whole.used.tokens * NANO_A_TOKEN <= most:
            self._broken("money", f"{whole.used.tokens} tokens used, of {least // NANO_A_TOKEN} to {most // NANO_A_TOKEN}")

    def _cost(self) -> tuple[int, int]:
        """Nano USD that all chats together have cost, at least and at most."""
        least = most = 0
        for responses in self.client.conversation.responses.values():
            for message in responses:
                result = message.get("result") or {}
                if "usage" in result and (result["usage"] or {}).get("total_tokens") and result.get("provider") == "sim":
                    least += result["usage"]["total_tokens"] * NANO_A_TOKEN
        most = least + RESERVED * len(self.machine.plan.scripts) + 1_000_000
        return least, most

    def _broken(self, invariant: str, what: str) -> None:
        self.problems.append((invariant, what))


def collect_garbage(number: int) -> None:
    """A collection in the middle of a run would close the coroutines of killed processes at any time."""
    if number % _RUNS_A_COLLECTION == 0:
        gc.collect()
