"""A conversation with one model: its messages so far, the streamed response, and its usage.

Owns the messages and how a response is shown. Refuses to know where prompts come from. Ctrl-C during a response cancels that
request at the provider, and nothing else.
"""

from __future__ import annotations

import sys
from typing import Any

from bridge_worker.cli.command_error import from_wire_error
from bridge_worker.cli.terminal import in_colour, is_terminal, note, printable, styled
from bridge_worker.cli.worker_process import Json, PendingResponse, Worker


class Cancelled(Exception):
    """The user pressed Ctrl-C. A note that was printed reports whether the provider's connection is closed."""


class Conversation:
    def __init__(self, worker: Worker, model: str, *, system: str | None = None, options: Json | None = None) -> None:
        self.model = model
        self._worker = worker
        self._system = [{"role": "system", "content": system}] if system else []
        self._options = options or {}
        self._messages: list[Json] = []

    def clear(self) -> None:
        self._messages = []

    def send(self, text: str, *, quietly: bool = False) -> Json:
        """Sends a user message, shows the response while it streams (unless ``quietly``) and returns the result.

        A turn that fails is not kept in the history. Raises Cancelled and CommandError.
        """
        message = {"role": "user", "content": text}
        messages = [*self._system, *self._messages, message]
        pending = self._worker.request("chat", {"model": self.model, "messages": messages, "stream": True, **self._options})
        response = _shown_response(pending, _ResponseView(self.model, quietly))
        if "error" in response:
            raise from_wire_error(response["error"])
        result: Json = response["result"]
        self._messages += [message, result["message"]]
        return result


def _shown_response(pending: PendingResponse, view: _ResponseView) -> Json:
    try:
        for delta in pending:
            view.add(delta)
        return pending.response()
    except KeyboardInterrupt:
        view.end()
        closed = pending.cancel().get("error", {}).get("data", {}).get("upstream_closed")
        note("cancelled" if closed else "cancelled; it is unknown whether the provider has stopped")
        raise Cancelled from None
    finally:
        view.end()


class _ResponseView:
    """Writes the deltas of a response to stdout. A waiting mark and reasoning are shown on a terminal only."""

    def __init__(self, model: str, quietly: bool) -> None:
        self._quietly = quietly
        self._is_terminal = is_terminal(sys.stdout)
        self._last = "\n"  # the last character on stdout
        self._waiting = not quietly and self._is_terminal and in_colour(sys.stderr)
        self._reasoning = False
        if self._waiting:
            sys.stderr.write(styled(f"{printable(model):.40} ...", "dim", sys.stderr))
            sys.stderr.flush()

    def add(self, delta: Json) -> None:
        if self._quietly:
            return
        if self._is_terminal and (thought := delta.get("reasoning_content")):
            self._reasoning = True
            self._write(styled(printable(thought), "dim", sys.stdout), thought)
        if text := (delta.get("content") or "") + (delta.get("refusal") or ""):
            if self._reasoning:
                self._reasoning = False
                self._write("\n\n", "\n")
            self._write(printable(text) if self._is_terminal else text, text)

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


def usage_summary(result: Json) -> str:
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
