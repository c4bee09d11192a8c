"""What happens in one run, made from its seed: the client's actions, the provider's scripts, the failures of processes.

Owns the plan and its random choice. Refuses to run it. ``actions`` can be shortened (`without`): everything else stays as it is, so
that a failing plan can be reduced to the actions that it needs.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cache
from typing import Any

from bridge_worker.budgets.limits import read_budgets
from bridge_worker.config.settings import Settings
from bridge_worker.config.source import Config

MAX_IN_FLIGHT = 6
MAX_MESSAGE_BYTES = 3000
HANG_SECONDS = 2.0
GRACE_SECONDS = 1.0
TOTAL_MS = 20_000  # the default deadline: everything without a response before is a fault
_FIRST_IDLE_MS = 10_000
_BUDGETS = read_budgets(
    [
        {"path": "a", "max_usd": 0.0002},
        {"path": "a/b", "max_tokens": 60},
        {"path": "w", "max_usd": 0.0003, "window": "2s"},
        {"path": "/", "max_tokens": 100_000},
    ]
)
PATHS = ("a", "a/b", "w", "other")
TASKS, MAX_TASK_REQUESTS = ("t1", "t2"), 3
MAX_TOKENS = 20  # each chat's: 30,000 nano USD are reserved for it

Message = dict[str, Any]
Action = tuple[float, str, Any]  # when, what, with what


@dataclass(frozen=True, slots=True)
class Script:
    steps: tuple[tuple[str, Any], ...]
    latency: float = 0.01
    deaf_seconds: float = 0.0  # after which it heeds a cancel
    is_stubborn: bool = False  # it goes on then, if it was deaf

    def ends_by_itself(self) -> bool:
        return ("wait", 60.0) not in self.steps

    def is_slow(self) -> bool:
        return self.deaf_seconds > 0 or any(step in ("crash", "block") for step, _ in self.steps)


@dataclass(frozen=True, slots=True)
class Plan:
    seed: object
    engines: int
    actions: tuple[Action, ...]
    scripts: dict[str, Script] = field(repr=False)
    latency: float = 0.002
    cuts: bool = True
    stdin_bytes: int = 4096
    stdout_bytes: int = 4096
    link_bytes: int = 4096
    partial_writes: bool = False
    load_seconds: float = 0.1
    max_requests: int | None = None
    reloads: tuple[str, ...] = ()
    open_failures: float = 0.0  # how often no descriptor is left for an engine

    def quiet_seconds(self) -> float:
        """Until everything that may outlive a request has ended: a deaf provider, an engine that hangs, a reload."""
        if any(one.deaf_seconds and one.is_stubborn for one in self.scripts.values()):
            return 100.0  # it goes on to its next piece, whatever a deadline says
        if self.open_failures:
            return 40.0  # it pauses for five seconds after three of them
        return 8.0 if self.is_slow() else 0.5

    def ends(self) -> bool:
        """Whether an action of the client ends the worker."""
        return any(kind in _ENDS for _, kind, _ in self.actions)

    def is_slow(self) -> bool:
        slow = any(kind in _SLOW for _, kind, _ in self.actions) or any(one.is_slow() for one in self.scripts.values())
        return slow or self.open_failures > 0 or self._link_seconds() > 0.5

    def _link_seconds(self) -> float:
        """For what the longest chat puts on an engine's link: each text in a delta and in the response, in their envelopes. A
        response that is behind it waits."""
        longest = max((sum(len(text) for step, text in one.steps if step == "text") for one in self.scripts.values()), default=0)
        return 3 * longest * self.latency / self.link_bytes if self.engines else 0.0

    def literal(self) -> str:
        """One line that `from_literal` reads: it stays the same plan when the random choice changes."""
        return repr({name: getattr(self, name) for name in self.__slots__} | {"scripts": self._used_scripts()})

    def _used_scripts(self) -> dict[str, Any]:
        used = repr(self.actions)
        return {key: astuple(script) for key, script in self.scripts.items() if f"'{key}'" in used}

    def without(self, positions: Sequence[int]) -> Plan:
        return replace(self, actions=tuple(one for at, one in enumerate(self.actions) if at not in positions))

    def config(self, generation: int) -> Config:
        return _config(generation, self.engines, self.max_requests)

    def generation(self, config: Config) -> int:
        return config.settings.deadline_idle_ms - _FIRST_IDLE_MS

    def reload(self, number: int) -> Config | None:
        return None if self._kind(number) == "invalid" else self.config(number)

    def load_failure(self, config: Config) -> str | None:
        kind = self._kind(self.generation(config))
        return kind if kind in ("crash", "unservable") else None

    def _kind(self, number: int) -> str:
        return self.reloads[number - 1] if 0 < number <= len(self.reloads) else "ok"


@cache
def _config(generation: int, engines: int, max_requests: int | None) -> Config:
    settings = Settings(
        max_message_bytes=MAX_MESSAGE_BYTES,
        max_in_flight=MAX_IN_FLIGHT,
        grace_seconds=GRACE_SECONDS,
        deadline_total_ms=TOTAL_MS,
        deadline_idle_ms=_FIRST_IDLE_MS + generation,
        budgets=_BUDGETS,
        engines=engines,
        engine_hang_seconds=HANG_SECONDS,
        engine_max_requests=max_requests,
    )
    return Config(settings)


def from_literal(line: str) -> Plan:
    values = ast.literal_eval(line)
    return Plan(**values | {"scripts": {key: Script(*script) for key, script in values["scripts"].items()}})


def plan(seed: int) -> Plan:
    return _Maker(seed).plan()


_WEIGHTS = {
    "chat": 34,
    "echo": 5,
    "ping": 6,
    "status": 3,
    "budgets": 2,
    "batch": 5,
    "junk": 6,
    "cancel": 14,
    "repeat": 5,
    "flood": 2,
    "stop_reading": 5,
    "read_on": 4,
    "initialize": 2,
    "mcp_call": 3,
    "big": 3,
}
_WITH_ENGINES = {"crash_engine": 5, "hang_engine": 4, "crash_template": 2, "reload": 4, "hang_up": 1}
# Several actions each, timed so that they meet: chance alone would need thousands of schedules for it.
_SCENES = {"cancel_at_the_end": 4, "slow_end": 3, "id_of_a_batch": 3}
_SCENES_WITH_ENGINES = {"crash_at_sweep": 4, "cancelled_reload": 2, "late_hand_back": 3}
_SWEEP_SECONDS = 0.25  # of `engines.pool`
_ENDS = {"none": 50, "end_input": 12, "shutdown": 10, "shutdown_cancel": 10, "break_pipe": 8, "sigterm": 7, "sigterm_twice": 3}
_JUNK = (
    b"",
    b"   ",
    b"{",
    b'{"jsonrpc":"2.0"}',
    b"[]",
    b"\xff\xfe",
    b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
    b"[1,2]",
    b"x" * 60,
)
_FAILURES = ("rate_limited", "provider_unavailable", "stream_interrupted", "bad_upstream_response", "authentication")


_SLOW = ("crash_engine", "hang_engine", "crash_template", "reload", "hang_up")
_MCP = "io.modelcontextprotocol/"


class _Maker:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.chance = self.random.random
        self.choice = self.random.choice
        self.scripts: dict[str, Script] = {}
        self.ids: list[Any] = []
        self.ids_of_mcp: list[Any] = []
        self.count = 0

    def plan(self) -> Plan:
        choice = self.choice
        engines = choice((0, 0, 1, 2))
        weights = _WEIGHTS | _SCENES | (_WITH_ENGINES | _SCENES_WITH_ENGINES if engines else {})
        kinds = self.random.choices(list(weights), list(weights.values()), k=1 + int(self.chance() ** 2 * 14))
        now, actions = 0.0, []
        for kind in kinds:
            now += choice((0.0, 0.0, 0.001, 0.01, 0.05, 0.3, 1.0)) * self.chance()
            scene = getattr(self, f"_scene_{kind}", None)
            actions += [(now, kind, self._argument(kind))] if scene is None else scene(now)
        end = self.random.choices(list(_ENDS), list(_ENDS.values()))[0]
        if end != "none":
            now += choice((0.0, 0.005, 0.1, 1.0)) * self.chance()
            actions.append((now, end, None))
            if self.chance() < 0.2:  # with the last responses on their way
                actions.append((now + 0.03 * self.chance(), "break_pipe", None))
            if self.chance() < 0.3:
                actions.append((now + self.chance(), "ping", {"jsonrpc": "2.0", "id": "late", "method": "ping"}))
        return Plan(
            self.seed,
            engines,
            tuple(sorted(actions, key=lambda action: action[0])),
            self.scripts,
            latency=choice((0.0005, 0.002, 0.02)),
            cuts=self.chance() < 0.7,
            stdin_bytes=choice((64, 700, 4096)),
            stdout_bytes=choice((256, 600, 4096)),
            link_bytes=choice((150, 500, 2048)),
            partial_writes=self.chance() < 0.3,
            load_seconds=choice((0.01, 0.05, 0.5)),
            max_requests=choice((None, None, 2)),
            open_failures=choice((0.0, 0.0, 0.0, 0.0, 0.3)),
            reloads=tuple(choice(("ok", "ok", "invalid", "unservable", "crash")) for _ in range(6)),
        )

    def _scene_cancel_at_the_end(self, now: float) -> list[Action]:
        """A chat with a budget fails, and is cancelled while its cost is settled."""
        chat = self._chat()
        chat["params"]["metadata"] = {"budget": self.choice(PATHS)}
        steps = (("text", "ab "), ("fail", self.choice(("stream_interrupted", "bad_upstream_response"))))
        self.scripts[_key(chat)] = Script(steps, 0.0)
        return [(now, "chat", chat), (now + 0.03 * self.chance(), "cancel", (chat["id"], False))]

    def _scene_slow_end(self, now: float) -> list[Action]:
        """A chat has its last delta to send, and the client does not read until after the chat's deadline."""
        chat = self._chat()
        chat["params"] |= {"stream": True, "deadlines": {"total_ms": 500}}
        self.scripts[_key(chat)] = Script((("call", ""), ("wait", 0.2)), 0.0)
        pings = [self._request("ping", {}, f"flood-{'f' * 40}-{self._next()}") for _ in range(70)]
        flood = (now + 0.1, "flood", (pings, True))
        return [(now, "stop_reading", None), (now, "chat", chat), flood, (now + 0.5 + self.chance(), "read_on", None)]

    def _scene_id_of_a_batch(self, now: float) -> list[Action]:
        """The id of a request that has its response, in a batch that waits for another."""
        ping, chat = self._ping(), self._chat()
        again = self._chat(ping["id"]) if self.chance() < 0.5 else ping
        return [(now, "batch", [ping, chat]), (now + 0.05 * self.chance(), "repeat", again)]

    def _scene_crash_at_sweep(self, now: float) -> list[Action]:
        """An engine with requests is lost when the deadlines are looked at."""
        sweep = (now // _SWEEP_SECONDS + 1 + int(self.chance() * 3)) * _SWEEP_SECONDS
        chats = [(now + 0.02 * self.chance(), "chat", self._chat()) for _ in range(2)]
        return [*chats, (sweep - 0.004 * self.chance(), "crash_engine", self._crash_engine())]

    def _scene_late_hand_back(self, _: float) -> list[Action]:
        """The first engine, which serves until another has loaded, hangs with a request until after its deadline."""
        chat, when = self._chat(), 0.02 + 0.04 * self.chance()
        chat["params"]["deadlines"] = {"total_ms": 5}
        return [(when, "hang_engine", (0.0, HANG_SECONDS + 0.3)), (when, "chat", chat)]

    def _scene_cancelled_reload(self, now: float) -> list[Action]:
        reload = self._reload()
        when = now + self.choice((0.005, 0.05, 0.5)) * self.chance()
        return [(now, "reload", reload), (when, "cancel", (reload["id"], False))]

    def _argument(self, kind: str) -> Any:
        make = getattr(self, f"_{kind}", None)
        return None if make is None else make()

    def _echo(self) -> Message:
        params = {"model": "offline/echo", "messages": [_user("one two three")], "stream": self.chance() < 0.5}
        return self._request("chat", params)

    def _ping(self) -> Message:
        return self._request("ping", {})

    def _status(self) -> Message:
        return self._request("status", {})

    def _reload(self) -> Message:
        return self._request("config/reload", {})

    def _initialize(self) -> Message:
        return self._request("initialize", {"protocolVersion": self.choice(("omni-bridge/1", "2025-06-18"))})

    def _budgets(self) -> Message:
        return self._request("budgets/get", {"path": self.choice(PATHS)})

    def _batch(self) -> list[Message]:
        return [self._chat() if self.chance() < 0.6 else self._ping() for _ in range(1 + int(self.chance() * 4))]

    def _junk(self) -> bytes:
        return self.choice(_JUNK)

    def _big(self) -> bytes:
        line = b'{"jsonrpc":"2.0","id":"big%d","method":"ping","params":{"x":"%s"}}'
        return line % (self._next(), b"y" * MAX_MESSAGE_BYTES)

    def _cancel(self) -> tuple[Any, bool]:
        kind, ids = self.chance(), self.ids + self.ids_of_mcp
        newest = self.ids[-1:] or ids
        id = "unknown" if kind < 0.1 or not ids else self.choice(newest if kind < 0.6 else ids)
        return id, self.chance() < 0.3

    def _repeat(self) -> Message:
        return self._chat(self.choice(self.ids) if self.ids else None)

    def _flood(self) -> tuple[list[Message], bool]:
        count = self.choice((5, 10, 10, 70, 400))
        return [self._request("ping", {}, f"flood-{'f' * 40}-{self._next()}") for _ in range(count)], self.chance() < 0.5

    def _mcp_call(self) -> Message:
        arguments = self._chat(known=False)["params"]
        arguments.pop("stream", None)
        version = {f"{_MCP}protocolVersion": "2026-07-28", f"{_MCP}clientCapabilities": {}}
        request = self._request("tools/call", {"name": "chat", "arguments": arguments, "_meta": version}, known=False)
        self.ids_of_mcp.append(request["id"])  # not sent again: its response may be left out
        return request

    def _hang_engine(self) -> tuple[float, float]:
        return self.chance(), self.choice((0.3, 3.0, 60.0))

    def _crash_engine(self) -> float:
        return self.chance()

    def _chat(self, id: Any = None, *, known: bool = True) -> Message:
        key = f"k{self._next()}"
        self.scripts[key] = self._script()
        params: Message = {"model": "sim/one", "messages": [_user(key)], "max_tokens": MAX_TOKENS}
        if self.chance() < 0.6:
            params["stream"] = True
        if self.chance() < 0.4:
            params["metadata"] = {"budget": self.choice(PATHS)}
        if self.chance() < 0.2:
            params["task"] = {"id": self.choice(TASKS), "max_requests": MAX_TASK_REQUESTS, "max_usd": 0.0001}
        if self.chance() < 0.3:
            name = self.choice(("total_ms", "first_token_ms", "idle_ms"))
            params["deadlines"] = {name: self.choice((5, 50, 500))}
        if self.chance() < 0.04:
            params["nonsense"] = 1
        return self._request("chat", params, id, known=known)

    def _script(self) -> Script:
        steps: list[tuple[str, Any]] = []
        for _ in range(int(self.chance() ** 2 * 12)):
            steps.append(
                self.choice((("text", "ab "), ("text", "é☃"), ("wait", 0.01 * self.chance()), ("burst", "word "), ("wait", 0.1)))
            )
        kind = self.chance()
        if kind < 0.05:
            steps += [("text", "long text " * 40)] * self.choice((4, 18))
        elif kind < 0.12:
            steps.append(("call", self.choice(("", '{"x":1}', "{"))))
        elif kind < 0.22:
            steps.append(("fail", self.choice(_FAILURES)))
        elif kind < 0.3:
            steps.append(("wait", 60.0))
        elif kind < 0.33:
            steps.append(("crash", None))
        elif kind < 0.36:
            steps.append(("block", self.choice((0.2, 2.5))))
        deaf = self.choice((0.05, 3.0, 5.0)) if self.chance() < 0.12 else 0.0
        if deaf:  # a cancel finds it here, and more comes after that
            steps = [("wait", 1.0), *steps, ("text", "late")]
        return Script(tuple(steps), self.choice((0.0, 0.003, 0.05)), deaf, self.chance() < 0.5)

    def _request(self, method: str, params: Message, id: Any = None, *, known: bool = True) -> Message:
        if id is None:
            id = self.choice((self._next(), f"s{self._next()}"))
            if known:
                self.ids.append(id)
        return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}

    def _next(self) -> int:
        self.count += 1
        return self.count


def _key(chat: Message) -> str:
    return str(chat["params"]["messages"][0]["content"])


def _user(text: str) -> Message:
    return {"role": "user", "content": text}
