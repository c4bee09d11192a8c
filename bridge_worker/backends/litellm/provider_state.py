"""Removes from a message the state of another provider, which this one cannot read, and names what was removed.

Owns which members of a message are a provider's state (thinking with its signature, encrypted reasoning, images that it made) and
which providers share it, and the thinking that Claude rejects in a tool loop without its blocks. Refuses to change anything else of
a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge_worker.core.ports import STATE
from bridge_worker.core.receipt import Change

# These providers accept the members of earlier messages under the original names (OpenRouter: reasoning_details). LiteLLM would
# send them in an object that no provider knows.
_AS_THEY_CAME = ("openrouter",)
_THINKING = ("thinking", "reasoning_effort")


def for_provider(
    messages: list[dict[str, Any]], provider: str | None, model: str | None
) -> tuple[list[dict[str, Any]], list[Change]]:
    """The messages without other providers' state, and the removed members; the same list when there are none."""
    if not any("origin" in message or "audio" in message or "images" in message for message in messages):
        return messages, []
    held_back: list[Change] = []
    sent = [_for_provider(message, f"messages[{index}]", provider, model, held_back) for index, message in enumerate(messages)]
    return sent, held_back


def without_thinking(
    call: Mapping[str, Any], provider: str | None, model: str | None, messages: list[dict[str, Any]]
) -> tuple[Mapping[str, Any], list[Change]]:
    """``call`` without its thinking, where Claude would reject it: in a tool loop that another model began, or without its blocks.

    Anthropic: "a final assistant message must start with a thinking block" when thinking is enabled and a tool's result is last.
    """
    enabled = [name for name in _THINKING if _enables_thinking(call.get(name))]
    if not enabled or _family(provider, model) != "claude" or messages[-1].get("role") != "tool":
        return call, []
    last: Mapping[str, Any] = next((message for message in reversed(messages) if message.get("role") == "assistant"), {})
    if not last.get("tool_calls") or last.get("thinking_blocks"):
        return call, []
    kept = {name: value for name, value in call.items() if name not in enabled}
    return kept, [Change(param=name, change="dropped") for name in enabled]


def _enables_thinking(value: Any) -> bool:
    """Adaptive thinking does not need the blocks."""
    return value.get("type") == "enabled" if isinstance(value, dict) else value not in (None, "none")


def _for_provider(
    message: dict[str, Any], path: str, provider: str | None, model: str | None, held_back: list[Change]
) -> dict[str, Any]:
    if message.get("role") != "assistant":
        return message
    origin = message.get("origin") or {}
    at_home = _family(origin.get("provider"), origin.get("model")) == _family(provider, model)
    foreign = set() if at_home else set(STATE)
    sent = {name: value for name, value in message.items() if name != "origin" and not (name in foreign and origin)}
    held_back += [Change(param=f"{path}.{name}", change="dropped") for name in message if name not in sent and name != "origin"]
    if origin and not at_home and message.get("tool_calls"):
        sent["tool_calls"] = [
            _stateless(call, f"{path}.tool_calls[{at}]", held_back) for at, call in enumerate(message["tool_calls"])
        ]
    if at_home and provider in _AS_THEY_CAME and (fields := sent.pop("provider_specific_fields", None)):
        sent |= {name: value for name, value in fields.items() if name not in sent}
    for name in ("images", "annotations"):  # there is no provider that takes them back in an assistant's message
        if sent.pop(name, None) and name == "images":
            held_back.append(Change(param=f"{path}.images", change="dropped"))
    if audio := sent.pop("audio", None):
        _send_audio(sent, audio, path, provider, held_back)
    return sent


def _stateless(call: dict[str, Any], path: str, held_back: list[Change]) -> dict[str, Any]:
    if "provider_specific_fields" not in call:
        return call
    held_back.append(Change(param=f"{path}.provider_specific_fields", change="dropped"))
    return {name: value for name, value in call.items() if name != "provider_specific_fields"}


def _send_audio(sent: dict[str, Any], audio: dict[str, Any], path: str, provider: str | None, held_back: list[Change]) -> None:
    """OpenAI gets the id of its earlier audio, any other provider the transcript."""
    if audio.get("id") and provider in ("openai", "azure"):
        sent["audio"] = {"id": audio["id"]}
        return
    sent["content"] = sent.get("content") or audio.get("transcript")
    held_back.append(Change(param=f"{path}.audio", change="dropped"))


def _family(provider: str | None, model: str | None) -> str | None:
    """The family of models that can read the state; Claude's and Gemini's is the same with every host."""
    name = (model or "").lower()
    if "claude" in name or provider == "anthropic":
        return "claude"
    if "gemini" in name or provider == "gemini":
        return "gemini"
    return provider
