"""The client's end of both pipes: writes the actions of a plan, reads as it likes, checks what it reads.

Owns the bytes that are not in a pipe yet. Refuses to know the server.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]
from typing import Any

from tests.simulation.machine import Machine
from tests.simulation.schedules import Plan
from tests.support.conversation import Conversation

# json.dumps() makes one at every call.
_encode: Any = c_make_encoder(None, json.JSONEncoder().default, encode_basestring, None, ":", ",", False, False, False)

# of a client that has closed its end of the input
_AFTER_INPUT = ("break_pipe", "sigterm", "sigterm_twice", "stop_reading", "read_on")


class Client:
    """``transcript`` has (time, direction, text) for the diagram."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.conversation = Conversation()
        self.transcript: list[tuple[float, str, str]] = []
        self.bytes_read: list[bytes] = []
        self.cut_off = False  # it has closed, or requested an end: not every request gets its response
        self.may_lose_output = False  # it has closed its end, or left no time for all of it
        self._outgoing = bytearray()
        self._ends_input = False
        self._reads = True
        self._line = bytearray()
        self._chat_keys = _chat_keys(machine.plan)
        self._reading = self._writing = False
        machine.stdout.on_data = self._poll
        machine.stdin.on_room = self._continue

    def start(self) -> None:
        for when, kind, argument in self.machine.plan.actions:
            self.machine.kernel.after(when, self._act, kind, argument)

    def is_complete(self) -> bool:
        return not self._outgoing and not self.machine.stdin.data and self.conversation.is_complete()

    def read_on(self) -> None:
        self._reads = True
        self._poll()

    def end_input(self) -> None:
        self._ends_input = True
        self._continue()

    def is_read_to_its_end(self) -> bool:
        return self.machine.stdout.reader_gone or not self.machine.stdout.data

    # Actions.

    def _act(self, kind: str, argument: Any) -> None:
        if self.machine.exit_code is not None or (self._ends_input and kind not in _AFTER_INPUT):
            return
        action: Callable[[Any], None] = getattr(self, f"_{kind}", self._send)
        action(argument)

    def _send(self, message: Any) -> None:
        self._write("".join(_encode(message, 0)).encode(), message)

    def _flood(self, argument: Any) -> None:
        messages, stops_reading = argument
        if stops_reading:
            self._reads = False
        for message in messages:
            self._send(message)

    def _junk(self, line: bytes) -> None:
        self._write(line, None)

    def _big(self, line: bytes) -> None:
        self._write(line, json.loads(line))

    def _cancel(self, argument: Any) -> None:
        id, is_lsp = argument
        name, member = ("$/cancelRequest", "id") if is_lsp else ("notifications/cancelled", "requestId")
        self._send({"jsonrpc": "2.0", "method": name, "params": {member: id}})

    def _stop_reading(self, _: object) -> None:
        self._reads = False

    def _read_on(self, _: object) -> None:
        self.read_on()

    def _shutdown(self, _: object) -> None:
        self._send({"jsonrpc": "2.0", "id": "end", "method": "shutdown"})

    def _shutdown_cancel(self, _: object) -> None:
        self.may_lose_output = True
        self._send({"jsonrpc": "2.0", "id": "end", "method": "shutdown", "params": {"mode": "cancel"}})

    def _end_input(self, _: object) -> None:
        self.end_input()

    def _break_pipe(self, _: object) -> None:
        self.cut_off = self.may_lose_output = True
        self._note("!", "closes the reading end")
        self.machine.close_reading_end()

    def _sigterm(self, _: object) -> None:
        self.cut_off = self.may_lose_output = True
        self._note("!", "SIGTERM")
        self.machine.server_process.signal(signal.SIGTERM)

    def _sigterm_twice(self, _: object) -> None:
        self._sigterm(None)
        self._sigterm(None)

    def _hang_up(self, _: object) -> None:
        self._note("!", "SIGHUP")
        self.machine.server_process.signal(signal.SIGHUP)

    def _crash_engine(self, which: float) -> None:
        if engine := self._engine(which):
            self._note("!", f"engine {engine.key} crashes")
            engine.process.end(-signal.SIGSEGV)

    def _hang_engine(self, argument: Any) -> None:
        which, seconds = argument
        if engine := self._engine(which):
            self._note("!", f"engine {engine.key} hangs for {seconds} s")
            engine.process.hang(seconds)

    def _crash_template(self, _: object) -> None:
        for template in self.machine.templates[-1:]:
            self._note("!", "the template crashes")
            self.machine.kill(template.pid)

    def _engine(self, which: float) -> Any:
        alive = [engine for engine in self.machine.engines.values() if engine.process.exit_code is None]
        return alive[int(which * len(alive))] if alive else None

    # Writing.

    def _write(self, line: bytes, value: object) -> None:
        if self._ends_input:
            return
        if value is not None:
            self.conversation.sent(value)
        self._note(">", line.decode("utf-8", "replace"))
        self._outgoing += line + b"\n"
        self._continue()

    def _continue(self) -> None:
        if not self._writing and (self._outgoing or (self._ends_input and not self.machine.stdin.writer_gone)):
            self._writing = True
            self.machine.kernel.after(self.machine.kernel.random.random() * self.machine.plan.latency, self._put)

    def _put(self) -> None:
        self._writing = False
        stdin, chance = self.machine.stdin, self.machine.kernel.random.random
        if self._outgoing:
            count = len(self._outgoing)
            if self.machine.plan.cuts and chance() < 0.5:
                count = 1 + int(chance() * min(count, 300))
            data = bytes(self._outgoing[: min(count, stdin.room())])
            del self._outgoing[: len(data)]  # before the pipe reports it
            try:
                stdin.put(data)
            except BrokenPipeError:
                self._outgoing.clear()
            if stdin.room():
                self._continue()
        elif self._ends_input and not stdin.writer_gone:
            stdin.lose_writer()

    # Reading.

    def _poll(self) -> None:
        out = self.machine.stdout
        if self._reads and not self._reading and out.data and not out.reader_gone:
            self._reading = True
            self.machine.kernel.after(self.machine.kernel.random.random() * self.machine.plan.latency, self._read)

    def _read(self) -> None:
        self._reading = False
        out, chance = self.machine.stdout, self.machine.kernel.random.random
        if not self._reads or out.reader_gone:
            return
        count = len(out.data)
        if self.machine.plan.cuts and chance() < 0.4:
            count = 1 + int(chance() * count)
        self._take(out.take(count))
        self._poll()

    def _take(self, data: bytes) -> None:
        self.bytes_read.append(data)
        *lines, rest = data.split(b"\n")
        for line in lines:
            whole = bytes(self._line) + line
            self._line.clear()
            self._note("<", whole.decode("utf-8", "replace"))
            for message in self.conversation.received(whole):
                self._check_upstream(message)
        self._line += rest

    def _check_upstream(self, message: Any) -> None:
        """What a response says of the connection to the provider is so."""
        key = self._chat_keys.get(message.get("id")) if "error" in message else None
        if key and message["error"]["data"].get("upstream_closed") and self.machine.connections.get(key):
            self.conversation.problems.append(("task_age", f"the connection of {message['id']!r} is open, the response denies it"))

    def half_line(self) -> bytes:
        return bytes(self._line)

    def _note(self, direction: str, text: str) -> None:
        self.transcript.append((self.machine.kernel.now, direction, text))


def _chat_keys(plan: Plan) -> dict[Any, str]:
    """The key of the script of each chat, by the id that no other request has."""
    values = [argument for _, kind, argument in plan.actions if isinstance(argument, dict) or kind == "batch"]
    messages = [one for value in values for one in (value if isinstance(value, list) else [value])]
    ids = Counter(message["id"] for message in messages)
    chats = [one for one in messages if one["method"] == "chat" and one["params"]["model"].startswith("sim/")]
    return {chat["id"]: chat["params"]["messages"][0]["content"] for chat in chats if ids[chat["id"]] == 1}
