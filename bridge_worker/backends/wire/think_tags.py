"""Reasoning that a model writes into its text between ``<think>`` tags, apart from the text.

Owns the tags. Only a tag at the start of the text counts, so that a text about tags stays whole; a tag that is never closed means
that all is reasoning. Any cut of the text gives the same two joined texts, so a plain and a streamed response agree. Refuses
to know a provider.
"""

from __future__ import annotations

_TAGS = {"<think>": "</think>", "<thinking>": "</thinking>"}
_MAX_WHITE_SPACE = 256  # before a tag


class ThinkSplitter:
    """Splits text into reasoning and content. ``decided``: what follows is content, and `feed` need not be called."""

    __slots__ = ("_close", "_held", "decided")

    def __init__(self) -> None:
        self._held = ""
        self._close: str | None = None  # the tag that ends the reasoning, while within it
        self.decided = False

    def feed(self, text: str) -> tuple[str, str]:
        """The reasoning and the content that are certain with this text."""
        if self.decided:
            return "", text
        held, self._held = self._held + text, ""
        return self._inside(held) if self._close else self._at_start(held)

    def close(self) -> tuple[str, str]:
        """The text held back, at the end or where the provider sends reasoning apart."""
        held, self._held = self._held, ""
        inside, self.decided = self._close is not None, True
        return (held, "") if inside else ("", held)

    def _at_start(self, held: str) -> tuple[str, str]:
        start = held.lstrip()
        white_space = len(held) - len(start)
        if white_space <= _MAX_WHITE_SPACE and start[:1] in ("", "<"):
            for tag, close in _TAGS.items():
                if start.startswith(tag):
                    self._close = close
                    return self._inside(start[len(tag) :])
            if any(tag.startswith(start) for tag in _TAGS):
                self._held = held
                return "", ""
        self.decided = True
        return "", held

    def _inside(self, held: str) -> tuple[str, str]:
        close = self._close or ""
        end = held.find(close)
        if end >= 0:
            self.decided = True
            return held[:end], held[end + len(close) :]
        longest = min(len(close) - 1, len(held))
        tail = next((size for size in range(longest, 0, -1) if held.endswith(close[:size])), 0)
        self._held = held[len(held) - tail :]
        return held[: len(held) - tail], ""
