"""A conversation with one model: what was said so far, the answer as it comes, and what it took.

Owns the messages and how an answer is shown. Refuses to know where the questions come from. A Ctrl-C while an answer comes cancels
that answer at its provider, and nothing else.
"""

from __future__ import annotations

import sys
from typing import Any

from bridge_worker.cli.command_error import of_answer
from bridge_worker.cli.terminal import in_colour, looked_at, note, printable, styled
from bridge_worker.cli.worker_process import Answer, Json, Worker


class Cancelled(Exception):
    """By Ctrl-C; the provider's connection is closed by now, or the line that was printed says that it is not known."""


class Conversation:
    def __init__(self, worker: Worker, model: str, *, system: str | None = None, options: Json | None = None) -> None:
        self.model = model
        self._worker = worker
        self._system = [{"role": "system", "content": system}] if system else []
        self._options = options or {}
        self._messages: list[Json] = []

    def clear(self) -> None:
        self._messages = []

    def say(self, text: str, *, quietly: bool = False) -> Json:
        """The result. Shows it as it comes, but ``quietly``. What fails is forgotten: the next turn does not repeat it.

        Raises Cancelled, and Problem.
        """
        asked = {"role": "user", "content": text}
        messages = [*self._system, *self._messages, asked]
        answer = self._worker.request("chat", {"model": self.model, "messages": messages, "stream": True, **self._options})
        response = _of(answer, _Shown(self.model, quietly))
        if "error" in response:
            raise of_answer(response["error"])
        result: Json = response["result"]
        self._messages += [asked, result["message"]]
        return result


def _of(answer: Answer, shown: _Shown) -> Json:
    try:
        for delta in answer:
            shown.add(delta)
        return answer.response()
    except KeyboardInterrupt:
        shown.end()
        closed = answer.cancel().get("error", {}).get("data", {}).get("upstream_closed")
        note("cancelled" if closed else "cancelled; whether the provider has stopped is not known")
        raise Cancelled from None
    finally:
        shown.end()


class _Shown:
    """An answer on stdout, piece by piece. Only a terminal sees that something is awaited, and how it was reasoned."""

    def __init__(self, model: str, quietly: bool) -> None:
        self._quietly = quietly
        self._looked_at = looked_at(sys.stdout)
        self._last = "\n"  # what stdout ends with
        self._waiting = not quietly and self._looked_at and in_colour(sys.stderr)
        self._reasoning = False
        if self._waiting:
            sys.stderr.write(styled(f"{printable(model):.40} ...", "dim", sys.stderr))
            sys.stderr.flush()

    def add(self, delta: Json) -> None:
        if self._quietly:
            return
        if self._looked_at and (thought := delta.get("reasoning_content")):
            self._reasoning = True
            self._write(styled(printable(thought), "dim", sys.stdout), thought)
        if text := (delta.get("content") or "") + (delta.get("refusal") or ""):
            if self._reasoning:
                self._reasoning = False
                self._write("\n\n", "\n")
            self._write(printable(text) if self._looked_at else text, text)

    def end(self) -> None:
        """Leaves the cursor at the start of a line; may be called again."""
        self._no_longer_waiting()
        if self._last != "\n":
            self._write("\n", "\n")

    def _write(self, text: str, plain: str) -> None:
        self._no_longer_waiting()
        sys.stdout.write(text)
        sys.stdout.flush()
        self._last = plain[-1]

    def _no_longer_waiting(self) -> None:
        if self._waiting:
            self._waiting = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def what_it_took(result: Json) -> str:
    """Tokens, cost and time, on one line."""
    usage: dict[str, Any] = result.get("usage") or {}
    tokens = [f"{usage[name]:,} {word}" for name, word in _COUNTED.items() if usage.get(name)]
    cost = result.get("cost_usd")
    price = (
        "cost unknown" if cost is None else "no cost" if not cost else f"${cost:.6f}".rstrip("0") if cost < 0.01 else f"${cost:.4f}"
    )
    seconds = f"{result['timing']['total_ms'] / 1000:.1f} s"
    end = {"length": "cut short at max tokens", "content_filter": "stopped by a content filter"}.get(result["finish_reason"] or "")
    parts = [result["model"] or result["requested_model"], ", ".join(tokens) or "tokens unknown", price, seconds, end]
    return "  ".join(part for part in parts if part)


_COUNTED = {
    "input_tokens": "tokens in",
    "output_tokens": "out",
    "reasoning_tokens": "of them reasoning",
    "cached_input_tokens": "cached",
}
