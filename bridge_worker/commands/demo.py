"""``omni-bridge demo``: the protocol at work, for whoever sees it for the first time.

Owns a script of requests, and how the lines that go over the pipe are shown. It is a client like any other: the worker it starts is
the real one, and nothing shown is made up. Refuses to be imported by what serves.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

import click

from bridge_worker import __version__
from bridge_worker.local_models import DEFAULT, PREFIX, packaged_file

WAIT_SECONDS = 120.0  # a slow machine's first load; nothing waits as long that works
_COMMAND = (sys.executable, "-I", "-X", "utf8", "-m", "bridge_worker", "--stdio", "--local")
_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"],
        },
    },
}
_STYLES = {"title": "1", "sent": "36", "received": "32", "error": "31", "time": "2", "plain": "0"}

Json = dict[str, Any]


class DemoError(Exception):
    """One line for a person."""


@click.command()
def demo() -> int:
    """Show the protocol at work, with a model on this machine."""
    return run()


def run(out: TextIO = sys.stdout) -> int:
    """The exit code."""
    try:
        with _Conversation(_Screen(out)) as talk:
            _play(talk, PREFIX + DEFAULT if packaged_file() else "offline/echo")
    except DemoError as error:
        out.flush()
        sys.stderr.write(f"omni-bridge: demo: {error}\n")
        return 70
    except BrokenPipeError:  # | head
        return 0
    except KeyboardInterrupt:
        return 130
    return 0


def _play(talk: _Conversation, model: str) -> None:
    show = talk.screen
    show.title(f"omni-bridge {__version__}: lines of JSON-RPC over a child's pipe.   --> to the worker   <-- from it   times in ms")

    show.title("1. A handshake. It is optional; an agent learns the limits by it.")
    client = {"name": "demo", "version": __version__}
    talk.call("initialize", {"protocolVersion": "omni-bridge/1", "clientInfo": client, "processId": os.getpid()})
    talk.notify("notifications/initialized", {})

    if model.startswith(PREFIX):
        show.title(f"2. A streamed chat. {model} is a real language model, on this machine: no key, no network, no port.")
    else:
        show.title("2. A streamed chat. llama.cpp is not installed, so offline/echo answers; bin/omni-bridge demo installs it.")
    question = [{"role": "user", "content": "In one short sentence: why is the sky blue?"}]
    result = talk.call("chat", {"model": model, "stream": True, "max_tokens": 40, "temperature": 0, "messages": question})
    show.text(f"The answer: {result['result']['content']}")

    show.title("3. An agent's turn: the model calls a tool, the agent runs it, the model answers. Here offline/tools plays it.")
    messages: list[Json] = [{"role": "user", "content": "What is the weather in Oslo?"}]
    turn = talk.call("chat", {"model": "offline/tools", "messages": messages, "tools": [_WEATHER]})["result"]
    call = turn["tool_calls"][0]
    show.text(f"The agent runs {call['function']['name']}({call['function']['arguments']}) itself, and appends the result.")
    messages += [turn["message"], {"role": "tool", "tool_call_id": call["id"], "content": "4 degrees, rain"}]
    talk.call("chat", {"model": "offline/tools", "messages": messages, "tools": [_WEATHER]})

    show.title("4. A cancel: the model is stopped at once, and the request still gets its one answer, with what had come.")
    story = [{"role": "user", "content": "Tell me a very long story."}]
    id = talk.request("chat", {"model": model, "stream": True, "messages": story})
    talk.wait_for_delta(id)
    talk.notify("notifications/cancelled", {"requestId": id})
    data = talk.response(id).get("error", {}).get("data", {})
    show.text(f"Stopped, upstream_closed: {data.get('upstream_closed')}; what had come: {data.get('partial', {}).get('content')!r}")

    show.title("5. An error: a kind to decide by, whether to try again, and a sentence for a person.")
    error = talk.call("chat", {"model": "nobody/knows-me", "messages": question})["error"]
    show.text(f"{error['data']['kind']}, retryable: {error['data']['retryable']}; {error['message']}")

    show.title("6. The end. In-flight requests are finished first.")
    talk.call("shutdown", {})
    show.title("What to try next")
    for line in _NEXT:
        show.text(line)


_NEXT = (
    "your own key   export OPENAI_API_KEY=...   then the same chat with the model openai/gpt-4o-mini",
    'one line       echo \'{"jsonrpc":"2.0","id":1,"method":"chat","params":{"model":"local/smollm2","messages":'
    '[{"role":"user","content":"hello"}]}}\' | bin/omni-bridge --stdio',
    "your gateway   bin/omni-bridge --stdio --config config.yaml   with a LiteLLM gateway's file",
    "from Rust      the README shows it; protocol.md is the whole contract",
)


class _Conversation:
    """A worker, and every line that goes to it or comes from it, shown as it goes."""

    def __init__(self, screen: _Screen) -> None:
        self.screen = screen
        self._ids = 0
        self._received: list[Json] = []
        self._changed = threading.Condition()
        self._ended = False

    def __enter__(self) -> _Conversation:
        self._process = subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin  # noqa: S101  # for mypy
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join(1)

    def call(self, method: str, params: Json) -> Json:
        return self.response(self.request(method, params))

    def request(self, method: str, params: Json) -> int:
        self._ids += 1
        self._send({"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params})
        return self._ids

    def notify(self, method: str, params: Json) -> None:
        self._send({"jsonrpc": "2.0", "method": method, "params": params})

    def response(self, id: int) -> Json:
        return self._wait_for(lambda message: message.get("id") == id)

    def wait_for_delta(self, id: int) -> None:
        """Returns when its first delta, or its response, is there."""
        self._wait_for(lambda message: message.get("id") == id or message.get("params", {}).get("requestId") == id)

    def _send(self, message: Json) -> None:
        line = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        self.screen.line("-->", line, "sent")
        assert self._process.stdin  # noqa: S101  # for mypy
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout  # noqa: S101  # for mypy
        for line in self._process.stdout:
            message = json.loads(line)
            with self._changed:
                self.screen.line("<--", line.decode().rstrip("\n"), "error" if "error" in message else "received")
                self._received.append(message)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _wait_for(self, wanted: Callable[[Json], bool]) -> Json:
        def found() -> Json | None:
            return next((message for message in self._received if wanted(message)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, WAIT_SECONDS)
            message = found()
        if message is None:
            raise DemoError("the worker gave no answer; its log is above")
        return message


class _Screen:
    """Where a terminal looks: colours, and lines cut to its width. Elsewhere the whole lines, plainly."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._looked_at = out.isatty()
        self._colours = self._looked_at and "NO_COLOR" not in os.environ
        self._width = shutil.get_terminal_size().columns if self._looked_at else None

    def title(self, text: str) -> None:
        self._print("\n" + self._styled(text, "title"))

    def text(self, text: str) -> None:
        self._print("            " + self._styled(" ".join(text.split()) if text.startswith("The answer") else text, "plain"))

    def line(self, arrow: str, text: str, style: str) -> None:
        ms = (time.monotonic() - self._started) * 1000
        before = f"{ms:8.1f} {arrow} "
        if self._width and len(before) + len(text) > self._width:
            text = text[: max(self._width - len(before) - 1, 20)] + "…"
        self._print(self._styled(before, "time") + self._styled(text, style))

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._colours else text

    def _print(self, text: str) -> None:
        with self._lock:
            self._out.write(text + "\n")
            self._out.flush()
