"""Compares a chat with the body that LiteLLM made of it: dropped and rewritten parameters, lost parts, and additions.

Owns the providers' names for OpenAI's parameters. Refuses to know when it is called, and to correct anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bridge_worker.core.ports import STATE, ChatRequest
from bridge_worker.core.receipt import Addition, Change

# Names of a parameter in a provider's body, besides its own name.
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
_OTHER_WORDS = ("reasoning_effort", "logprobs", "top_logprobs")  # providers have different values for these
_CONVERSATION = {"messages", "contents", "input", "system", "system_instruction", "systemInstruction", "instructions"}
_STRUCTURE = {"model", "modelId", "model_id", "stream"}  # each request has them
_CONTAINERS = {"options", "generationConfig", "generation_config", "inferenceConfig", "parameters"}
_SCHEMA_TOOL = "json_tool_call"  # LiteLLM's name for the tool that stands for a response_format
_MIN_STATE = 16  # characters: shorter words of a provider's state may stand in any text
MAX_INVENTED = 16  # texts that are named
MAX_TEXT = 200  # characters of one
_LONG = 1_000_000  # characters of a text that LiteLLM has not written, and that is not copied to be compared
_PROBE = 64  # characters at the end of an image's data that are compared, instead of a checksum


class ExpectedRequest(NamedTuple):
    """The values to find in the provider's request, copied before LiteLLM changes the messages. ``probes`` are (path, text)."""

    options: Mapping[str, Any]
    probes: list[tuple[str, str]]
    marked: bool  # for the provider's cache
    names: Sequence[tuple[str, str]] = ()  # (path, name) of each participant of the conversation
    texts: frozenset[str] | None = None  # of the conversation; None where it is in the body as it is


def expected_request(request: ChatRequest) -> ExpectedRequest:
    messages = request.messages
    probes = [found for index, message in enumerate(messages) for found in _probes(message, f"messages[{index}]")]
    marked = any(_is_marked(value) for value in [*messages, *request.options.get("tools", ())])
    names = [(f"messages[{index}].name", message["name"]) for index, message in enumerate(messages) if _is_participant(message)]
    return ExpectedRequest(
        request.options, probes, marked, names, frozenset(text.strip() for text in _leaves(messages) if len(text) < _LONG)
    )


def changes(expected: ExpectedRequest, body: Any, known: list[Change]) -> list[Change]:
    """The values of ``expected`` that ``body`` lacks or has changed, without the ``known`` changes."""
    if isinstance(body, str | bytes):
        body = json.loads(body)
    settings: dict[str, list[Any]] = {}
    for name, value in _settings(body):
        settings.setdefault(name, []).append(value)
    found = [change for name, value in expected.options.items() if (change := _change(name, value, settings))]
    reported = {change.param for change in known}
    return found + [
        change for change in [*_less_strict(expected, settings), *_lost(expected, body)] if change.param not in reported
    ]


def additions(expected: ExpectedRequest, body: Any) -> list[Addition]:
    """The settings of ``body`` that no parameter of the caller's has become."""
    names = {alias for name in expected.options for alias in _NAMES.get(name, frozenset([name]))}
    return list(_added(body, names, ""))


def invented(expected: ExpectedRequest, body: Mapping[str, Any]) -> list[Addition]:
    """Texts in the conversation of ``body`` that the caller did not write: LiteLLM fills empty messages and describes schemas."""
    found: list[Addition] = []
    known = expected.texts or frozenset()
    for place in sorted(_CONVERSATION & body.keys()) if expected.texts is not None else ():
        for text in _spoken(body[place]):
            rest = text.strip() if len(text) < _LONG else ""
            if rest and rest not in known and (rest := _without(rest, known)) and len(found) < MAX_INVENTED:
                found.append(Addition(place, rest[:MAX_TEXT]))
    return found


def _spoken(value: Any, name: str = "text") -> Iterator[str]:
    """The texts that a model reads as such; ids, types and arguments are none."""
    if isinstance(value, str):
        if name in ("text", "content"):
            yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _spoken(member, key if isinstance(member, str) else name)
    elif isinstance(value, list):
        for member in value:
            yield from _spoken(member, name)


def _without(text: str, known: frozenset[str]) -> str:
    """What remains of a text that LiteLLM joined of several."""
    if any(text in own or json.dumps(text)[1:-1] in own or json.dumps(text, ensure_ascii=False)[1:-1] in own for own in known):
        return ""
    for own in sorted(known, key=len, reverse=True):
        if own:
            text = text.replace(own, "").strip()
    return text


def _added(body: Mapping[str, Any], names: set[str], path: str) -> Iterator[Addition]:
    for name, value in body.items():
        place = f"{path}{name}"
        if name in names or name in _CONVERSATION or name in _STRUCTURE or value in ({}, [], None, ""):
            continue
        if name in _CONTAINERS and isinstance(value, dict):
            yield from _added(value, names, f"{place}.")
        else:
            yield Addition(place, value if isinstance(value, str | int | float | bool) else None)


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """The members of a body at any depth, except the conversation and the tools' schemas, which have names of the caller."""
    if not isinstance(value, dict):
        return
    for name, member in value.items():
        yield name, member
        if name not in _CONVERSATION and name not in ("schema", "tools"):
            yield from _settings(member)


def _change(name: str, wanted: Any, settings: Mapping[str, list[Any]]) -> Change | None:
    sent = [value for alias in _NAMES.get(name, frozenset([name])) for value in settings.get(alias, ())]
    if not sent and name == "response_format":
        return _format_change(wanted, settings)
    if not sent:
        return None if (name, wanted) in _ASSUMED else Change(param=name, change="dropped")
    scalars = [value for value in sent if isinstance(value, int | float | str) and not isinstance(value, bool)]
    rewritten = Change(param=name, change="rewritten", sent=scalars[0] if scalars else None)
    if name == "tool_choice":
        words = _TOOL_CHOICES[wanted] if isinstance(wanted, str) else (wanted["function"]["name"],)
        text = json.dumps(sent)
        return None if any(word in text or word.upper() in text for word in words) else rewritten
    if name in _OTHER_WORDS or isinstance(wanted, bool | dict | list) or not scalars:
        return None
    return None if wanted in scalars or wanted in _flat(sent) else rewritten


def _format_change(wanted: Any, settings: Mapping[str, list[Any]]) -> Change | None:
    """The change of a ``response_format`` without a member of that name: OpenAI's Responses have it in ``text``, others as a
    tool."""
    in_text = any(isinstance(value, dict) and "format" in value for value in settings.get("text", ()))
    if in_text or wanted == {"type": "text"}:
        return None
    if _SCHEMA_TOOL in json.dumps(settings.get("tools", ())):
        return Change(param="response_format", change="rewritten", sent="a tool")
    return Change(param="response_format", change="dropped")


def _less_strict(expected: ExpectedRequest, settings: Mapping[str, list[Any]]) -> Iterator[Change]:
    """The tools that lose `strict`: no tool of the body has it."""
    tools = expected.options.get("tools") or ()
    strict = [index for index, tool in enumerate(tools) if (tool.get("function") or {}).get("strict")]
    if strict and "strict" not in _texts(settings.get("tools", [])):
        yield from (Change(param=f"tools[{index}].function.strict", change="dropped") for index in strict)


def _flat(values: list[Any]) -> Iterator[Any]:
    for value in values:
        yield from value if isinstance(value, list) else ()


def _lost(expected: ExpectedRequest, body: Any) -> Iterator[Change]:
    """Lost parts of the messages: state, images, audio, files, participants' names and cache marks. The body is searched only if
    the messages have some."""
    if not expected.probes and not expected.marked and not expected.names:
        return
    texts = list(_texts(body))
    for path in dict.fromkeys(path for path, _ in expected.probes):
        probes = [probe for other, probe in expected.probes if other == path]
        if not all(any(probe in text for text in texts) for probe in probes):
            yield Change(param=path, change="dropped")
    whole = set(texts)
    yield from (Change(param=path, change="dropped") for path, name in expected.names if name not in whole)
    if expected.marked and not {"cache_control", "cachePoint", "cachedContent"} & whole:
        yield Change(param="cache_control", change="dropped")


def _probes(message: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """A text that must be somewhere in the body, for each part that is no plain text."""
    content = message.get("content")
    for index, part in enumerate(content if isinstance(content, list) else ()):
        source = _source(part)
        if source and not source.startswith("https:"):  # LiteLLM may fetch it and send what it got
            yield f"{path}.content[{index}]", source[-_PROBE:]
    for name in STATE:
        yield from ((f"{path}.{name}", text) for text in _leaves(message.get(name)) if len(text) >= _MIN_STATE)
    for index, call in enumerate(message.get("tool_calls") or ()):
        state = _leaves(call.get("provider_specific_fields"))
        yield from ((f"{path}.tool_calls[{index}].provider_specific_fields", text) for text in state if len(text) >= _MIN_STATE)


def _is_participant(message: Mapping[str, Any]) -> bool:
    """Whether its name is one of the conversation, not that of a function."""
    return bool(message.get("name")) and message.get("role") not in ("tool", "function")


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
