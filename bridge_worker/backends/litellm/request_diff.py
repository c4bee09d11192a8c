"""A request on its way out: what of it is not for this provider, and what of it did not arrive.

Owns two comparisons. `for_provider` takes from a message what only the provider that said it can read (thinking with its signature,
encrypted reasoning, images it made). `changes` looks for what was asked in the body that LiteLLM made of it, by the names that
providers have for it, and so finds what LiteLLM dropped or changed without a word. Refuses to know when it is called, and to mend
anything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bridge_worker.core.ports import STATE, ChatRequest
from bridge_worker.core.receipt import Change

# What a parameter is called in a provider's body, beside its own name.
_NAMES: Mapping[str, frozenset[str]] = {
    name: frozenset([name, *others.split()])
    for name, others in {
        "tools": "toolConfig functionDeclarations",
        "tool_choice": "toolChoice tool_config functionCallingConfig",
        "parallel_tool_calls": "disable_parallel_tool_use",
        "temperature": "",
        "top_p": "topP p",
        "max_tokens": "max_completion_tokens max_output_tokens maxOutputTokens maxTokens num_predict",
        "max_completion_tokens": "max_tokens max_output_tokens maxOutputTokens maxTokens num_predict",
        "stop": "stop_sequences stopSequences",
        "seed": "random_seed",
        "response_format": "responseSchema response_schema responseJsonSchema response_json_schema responseMimeType"
        " response_mime_type format output_format output_config outputConfig",
        "reasoning_effort": "reasoning thinking thinkingConfig thinking_config think effort output_config",
        "thinking": "reasoning reasoning_effort thinkingConfig thinking_config think",
        "frequency_penalty": "frequencyPenalty",
        "presence_penalty": "presencePenalty",
        "logit_bias": "",
        "logprobs": "responseLogprobs",
        "top_logprobs": "logprobs topLogprobs",
        "user": "user_id safety_identifier",
        "metadata": "requestMetadata",
        "dimensions": "output_dimension output_dimensionality outputDimensionality outputEmbeddingLength embedding_dim",
        "top_n": "topN top_k topK numberOfResults",
    }.items()
}
_TOOL_CHOICES = {"none": ("none",), "auto": ("auto",), "required": ("required", "any")}
_ASSUMED = (("tool_choice", "auto"), ("parallel_tool_calls", True), ("logprobs", False))  # what a provider does anyway
_OTHER_WORDS = ("reasoning_effort", "logprobs", "top_logprobs")  # whose values are others elsewhere
_CONVERSATION = {"messages", "contents", "input", "system", "system_instruction", "systemInstruction", "instructions"}
_SCHEMA_TOOL = "json_tool_call"  # LiteLLM's name for the tool that stands for a response_format
_MIN_STATE = 16  # characters: shorter words of a provider's state may stand in any text
_PROBE = 64  # characters of an image's data that are looked for; its end is as good as a checksum


# --- what is not for this provider ----------------------------------------------------------------------------------------------


def for_provider(
    messages: list[dict[str, Any]], provider: str | None, model: str | None
) -> tuple[list[dict[str, Any]], list[Change]]:
    """The messages without other providers' state, and what was taken from them; the same list when nothing was."""
    if not any("origin" in message or "audio" in message or "images" in message for message in messages):
        return messages, []
    held_back: list[Change] = []
    sent = [_for_provider(message, f"messages[{index}]", provider, model, held_back) for index, message in enumerate(messages)]
    return sent, held_back


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
    """OpenAI wants the id of what it has said, any other provider its words."""
    if audio.get("id") and provider in ("openai", "azure"):
        sent["audio"] = {"id": audio["id"]}
        return
    sent["content"] = sent.get("content") or audio.get("transcript")
    held_back.append(Change(param=f"{path}.audio", change="dropped"))


def _family(provider: str | None, model: str | None) -> str | None:
    """Whose state it is: Claude's and Gemini's is the same wherever they are hosted."""
    name = (model or "").lower()
    if "claude" in name or provider == "anthropic":
        return "claude"
    if "gemini" in name or provider == "gemini":
        return "gemini"
    return provider


# --- what did not arrive --------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """What is looked for, taken before LiteLLM is called, because it writes into messages. ``probes`` are (where, a text)."""

    options: Mapping[str, Any]
    probes: list[tuple[str, str]]
    marked: bool  # for the provider's cache


def asked_of(request: ChatRequest) -> Asked:
    messages = request.messages
    probes = [found for index, message in enumerate(messages) for found in _probes(message, f"messages[{index}]")]
    marked = any(_is_marked(value) for value in [*messages, *request.options.get("tools", ())])
    return Asked(request.options, probes, marked)


def changes(asked: Asked, body: Any, known: list[Change]) -> list[Change]:
    """What of ``asked`` is not in ``body``, or has another value there; without what is ``known`` already."""
    if isinstance(body, str | bytes):
        body = json.loads(body)
    settings: dict[str, list[Any]] = {}
    for name, value in _settings(body):
        settings.setdefault(name, []).append(value)
    found = [change for name, value in asked.options.items() if (change := _change(name, value, settings))]
    told = {change.param for change in known}
    return found + [change for change in _lost(asked, body) if change.param not in told]


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """The members of a body, however deep, but for the conversation and the tools' schemas, where names are a caller's own."""
    if not isinstance(value, dict):
        return
    for name, member in value.items():
        yield name, member
        if name not in _CONVERSATION and name not in ("schema", "tools"):
            yield from _settings(member)


def _change(name: str, asked: Any, settings: Mapping[str, list[Any]]) -> Change | None:
    sent = [value for alias in _NAMES.get(name, frozenset([name])) for value in settings.get(alias, ())]
    if not sent and name == "response_format":
        return _format_change(asked, settings)
    if not sent:
        return None if (name, asked) in _ASSUMED else Change(param=name, change="dropped")
    scalars = [value for value in sent if isinstance(value, int | float | str) and not isinstance(value, bool)]
    rewritten = Change(param=name, change="rewritten", sent=scalars[0] if scalars else None)
    if name == "tool_choice":
        words = _TOOL_CHOICES[asked] if isinstance(asked, str) else (asked["function"]["name"],)
        told = json.dumps(sent)
        return None if any(word in told or word.upper() in told for word in words) else rewritten
    if name in _OTHER_WORDS or isinstance(asked, bool | dict | list) or not scalars:
        return None
    return None if asked in scalars or asked in _flat(sent) else rewritten


def _format_change(asked: Any, settings: Mapping[str, list[Any]]) -> Change | None:
    """Of a ``response_format`` that is none of the body's members: OpenAI's Responses have it in ``text``, others as a tool."""
    in_text = any(isinstance(value, dict) and "format" in value for value in settings.get("text", ()))
    if in_text or asked == {"type": "text"}:
        return None
    if _SCHEMA_TOOL in json.dumps(settings.get("tools", ())):
        return Change(param="response_format", change="rewritten", sent="a tool")
    return Change(param="response_format", change="dropped")


def _flat(values: list[Any]) -> Iterator[Any]:
    for value in values:
        yield from value if isinstance(value, list) else ()


def _lost(asked: Asked, body: Any) -> Iterator[Change]:
    """Of the messages: state, images, sound, files and cache marks. The body is searched only where there are any."""
    if not asked.probes and not asked.marked:
        return
    texts = list(_texts(body))
    for path in dict.fromkeys(path for path, _ in asked.probes):
        probes = [probe for other, probe in asked.probes if other == path]
        if not all(any(probe in text for text in texts) for probe in probes):
            yield Change(param=path, change="dropped")
    if asked.marked and not {"cache_control", "cachePoint", "cachedContent"} & set(texts):
        yield Change(param="cache_control", change="dropped")


def _probes(message: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """A text that must be somewhere in the body, for each part that is no plain text."""
    content = message.get("content")
    for index, part in enumerate(content if isinstance(content, list) else ()):
        told = _source(part)
        if told and not told.startswith("https:"):  # LiteLLM may fetch it and send what it got
            yield f"{path}.content[{index}]", told[-_PROBE:]
    for name in STATE:
        yield from ((f"{path}.{name}", text) for text in _leaves(message.get(name)) if len(text) >= _MIN_STATE)
    for index, call in enumerate(message.get("tool_calls") or ()):
        state = _leaves(call.get("provider_specific_fields"))
        yield from ((f"{path}.tool_calls[{index}].provider_specific_fields", text) for text in state if len(text) >= _MIN_STATE)


def _source(part: Mapping[str, Any]) -> str | None:
    """The data, URL or id of an image, of sound or of a file."""
    kind = str(part.get("type"))
    source = part.get(kind) if kind in ("image_url", "input_audio", "file") else None
    if isinstance(source, dict):
        return next((source[name] for name in ("url", "data", "file_data", "file_id") if source.get(name)), None)
    return source


def _is_marked(value: dict[str, Any]) -> bool:
    content = value.get("content")
    return "cache_control" in value or any("cache_control" in part for part in (content if isinstance(content, list) else ()))


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _leaves(member)


def _texts(value: Any) -> Iterator[str]:
    """All strings of a body, the names of its members too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from _texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member)
