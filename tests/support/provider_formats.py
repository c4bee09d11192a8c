"""The wire formats of providers, spoken as their documentation has them: one `Completion`, said in each, whole and streamed.

Owns what a good answer looks like on each wire. Refuses to know the bridge and LiteLLM: what is asserted, and of which format
LiteLLM can't do it, is in `tests.support.cases`. Each class names the page of the provider's that it follows.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from tests.support.data import Json

Events = list[bytes]


class Call(NamedTuple):
    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Completion:
    """``usage`` is (input with cached ones, output, cached, written to the cache, reasoning)."""

    text: str | None = None
    thoughts: str | None = None
    signature: str | None = None
    calls: Sequence[Call] = ()
    finish: str = "stop"
    usage: tuple[int, int, int, int, int] | None = (20, 10, 0, 0, 0)


def pieces(text: str | None, size: int = 5) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)] if text else []


def line(event: Json) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()


def sse(event: Json, name: str | None = None) -> bytes:
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + line(event) + b"\n\n"


class Format:
    """One wire. ``model`` is LiteLLM's name for a model that speaks it."""

    name: ClassVar[str]
    model: ClassVar[str]
    stream_type: ClassVar[str] = "text/event-stream"
    ends_with: ClassVar[bytes] = b""

    def whole(self, completion: Completion) -> Json:
        raise NotImplementedError

    def events(self, completion: Completion) -> Events:
        raise NotImplementedError

    def error(self, status: int, message: str) -> Json:
        return {"error": {"message": message, "type": "error", "code": status}}


class OpenAI(Format):
    """Chat completions, and what is compatible to it; reasoning as vLLM and DeepSeek have it."""

    name = "openai"
    model = "openai/gpt-4o-mini"
    ends_with = b"data: [DONE]\n\n"
    usage_in_last_choice = False

    def usage(self, completion: Completion) -> Json | None:
        if not completion.usage:
            return None
        prompt, output, cached, _, thought = completion.usage
        details = {"prompt_tokens_details": {"cached_tokens": cached}, "completion_tokens_details": {"reasoning_tokens": thought}}
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output, **details}

    def whole(self, completion: Completion) -> Json:
        message: Json = {"role": "assistant", "content": completion.text}
        if completion.thoughts:
            message["reasoning_content"] = completion.thoughts
        if completion.calls:
            message["tool_calls"] = [_openai_call(call) for call in completion.calls]
        choice = {"index": 0, "message": message, "finish_reason": completion.finish, "logprobs": None}
        body = _openai("chat.completion", [choice])
        return body | ({"usage": self.usage(completion)} if completion.usage else {})

    def events(self, completion: Completion) -> Events:
        deltas: list[Json] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": piece} for piece in pieces(completion.thoughts)]
        deltas += [{"content": piece} for piece in pieces(completion.text)]
        for index, call in enumerate(completion.calls):
            head = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
            deltas.append({"tool_calls": [head]})
            parts = ({"index": index, "function": {"arguments": piece}} for piece in pieces(call.arguments, 4))
            deltas += [{"tool_calls": [part]} for part in parts]
        chunks = [_openai_chunk(delta, None) for delta in deltas] + [_openai_chunk({}, completion.finish)]
        if completion.usage and self.usage_in_last_choice:
            chunks[-1]["usage"] = self.usage(completion)
        elif completion.usage:
            chunks.append(_openai("chat.completion.chunk", []) | {"usage": self.usage(completion)})
        return [*map(sse, chunks), self.ends_with]


def _openai(kind: str, choices: list[Json]) -> Json:
    return {"id": "chatcmpl-1", "object": kind, "created": 1_767_225_600, "model": "served-model", "choices": choices}


def _openai_chunk(delta: Json, finish: str | None) -> Json:
    return _openai("chat.completion.chunk", [{"index": 0, "delta": delta, "finish_reason": finish}])


def _openai_call(call: Call) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


class Azure(OpenAI):
    name = "azure"
    model = "azure/gpt-4o-mini"


class Vllm(OpenAI):
    name = "vllm"
    model = "hosted_vllm/Qwen/Qwen3-8B"


class Mistral(OpenAI):
    """docs.mistral.ai/api: usage comes with the last choice; a refusal for safety does not exist."""

    name = "mistral"
    model = "mistral/mistral-large-latest"
    usage_in_last_choice = True

    def error(self, status: int, message: str) -> Json:
        return {"object": "error", "message": message, "type": "invalid_request_error", "param": None, "code": str(status)}


class Responses(Format):
    """platform.openai.com/docs/api-reference/responses: items; each stream event has its type in it."""

    name = "responses"
    model = "openai/responses/gpt-4.1"

    def items(self, completion: Completion) -> list[Json]:
        items: list[Json] = []
        if completion.thoughts:
            summary = [{"type": "summary_text", "text": completion.thoughts}]
            items.append({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": completion.signature})
        if completion.text is not None:
            part = {"type": "output_text", "text": completion.text, "annotations": []}
            items.append({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]})
        for at, call in enumerate(completion.calls):
            called = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
            items.append({"type": "function_call", "id": f"fc_{at}", "status": "completed", **called})
        return items

    def whole(self, completion: Completion) -> Json:
        details = {"length": {"reason": "max_output_tokens"}, "content_filter": {"reason": "content_filter"}}.get(completion.finish)
        body: Json = {"id": "resp_1", "object": "response", "created_at": 1_767_225_600, "model": "served-model"}
        body |= {
            "status": "incomplete" if details else "completed",
            "incomplete_details": details,
            "output": self.items(completion),
        }
        body |= {
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "error": None,
            "instructions": None,
            "metadata": {},
        }
        if completion.usage:
            prompt, output, cached, _, thought = completion.usage
            body["usage"] = {
                "input_tokens": prompt,
                "output_tokens": output,
                "total_tokens": prompt + output,
                "input_tokens_details": {"cached_tokens": cached},
                "output_tokens_details": {"reasoning_tokens": thought},
            }
        return body

    def events(self, completion: Completion) -> Events:
        whole = self.whole(completion)
        started = whole | {"status": "in_progress", "output": []}
        events: list[Json] = [{"type": "response.created", "response": started}]
        for index, item in enumerate(whole["output"]):
            events += self._item_events(index, item)
        events.append({"type": f"response.{whole['status']}", "response": whole})
        return [sse(event | {"sequence_number": at}, event["type"]) for at, event in enumerate(events)]

    def _item_events(self, index: int, item: Json) -> Iterator[Json]:
        at = {"output_index": index, "item_id": item["id"]}
        empty = {"message": {"content": []}, "function_call": {"arguments": ""}, "reasoning": {"summary": []}}[item["type"]]
        yield {"type": "response.output_item.added", **at, "item": item | empty | {"status": "in_progress"}}
        if item["type"] == "message":
            for piece in pieces(item["content"][0]["text"]):
                yield {"type": "response.output_text.delta", **at, "content_index": 0, "delta": piece}
            yield {"type": "response.output_text.done", **at, "content_index": 0, "text": item["content"][0]["text"]}
        elif item["type"] == "function_call":
            for piece in pieces(item["arguments"], 4):
                yield {"type": "response.function_call_arguments.delta", **at, "delta": piece}
            yield {"type": "response.function_call_arguments.done", **at, "arguments": item["arguments"]}
        else:
            for piece in pieces(item["summary"][0]["text"]):
                yield {"type": "response.reasoning_summary_text.delta", **at, "summary_index": 0, "delta": piece}
        yield {"type": "response.output_item.done", **at, "item": item}


class Anthropic(Format):
    """docs.anthropic.com/en/api/messages and messages-streaming: content blocks, each started, grown and stopped."""

    name = "anthropic"
    model = "anthropic/claude-sonnet-4-5"
    reasons: ClassVar[Mapping[str, str]] = {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "content_filter": "refusal",
    }

    def blocks(self, completion: Completion) -> list[Json]:
        blocks: list[Json] = []
        if completion.thoughts:
            blocks.append({"type": "thinking", "thinking": completion.thoughts, "signature": completion.signature or ""})
        if completion.text:
            blocks.append({"type": "text", "text": completion.text})
        return blocks + [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments or "{}")}
            for call in completion.calls
        ]

    def usage(self, completion: Completion) -> Json:
        prompt, output, cached, written, _ = completion.usage or (0, 0, 0, 0, 0)
        used = {"input_tokens": prompt - cached - written, "output_tokens": output}
        return used | {"cache_read_input_tokens": cached, "cache_creation_input_tokens": written}

    def whole(self, completion: Completion) -> Json:
        body: Json = {"id": "msg_1", "type": "message", "role": "assistant", "model": "served-model"}
        body |= {"content": self.blocks(completion), "stop_reason": self.reasons[completion.finish], "stop_sequence": None}
        return body | {"usage": self.usage(completion)}

    def raw_events(self, completion: Completion) -> Iterator[Json]:
        usage = self.usage(completion)
        start = self.whole(completion) | {
            "content": [],
            "stop_reason": None,
            "usage": usage | {"output_tokens": 1 if completion.usage else 0},
        }
        yield {"type": "message_start", "message": start}
        yield {"type": "ping"}
        for index, block in enumerate(self.blocks(completion)):
            yield from self._block_events(index, block, completion)
        ending = {"stop_reason": self.reasons[completion.finish], "stop_sequence": None}
        yield {"type": "message_delta", "delta": ending, "usage": {"output_tokens": usage["output_tokens"]}}
        yield {"type": "message_stop"}

    def _block_events(self, index: int, block: Json, completion: Completion) -> Iterator[Json]:
        empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}[block["type"]]
        yield {"type": "content_block_start", "index": index, "content_block": block | empty}
        deltas: list[Json] = [{"type": "text_delta", "text": piece} for piece in pieces(block.get("text"))]
        deltas += [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block.get("thinking"))]
        if block.get("signature"):
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        if block["type"] == "tool_use":
            text = next(call.arguments for call in completion.calls if call.id == block["id"])
            deltas += [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces(text, 4)]]
        yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        yield {"type": "content_block_stop", "index": index}

    def events(self, completion: Completion) -> Events:
        return [sse(event, event["type"]) for event in self.raw_events(completion)]

    def error(self, status: int, message: str) -> Json:
        return {"type": "error", "error": {"type": "api_error", "message": message}}


def aws(event: Json, name: str) -> bytes:
    """A frame of AWS's binary event stream: lengths, header checksum, headers, payload, checksum."""
    fields = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode() for key, value in fields.items()
    )
    payload = line(event)
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return body + struct.pack(">I", zlib.crc32(body))


class BedrockInvoke(Anthropic):
    """docs.aws.amazon.com InvokeModelWithResponseStream: the model's own events, each as base64 in a `chunk`."""

    name = "bedrock invoke"
    model = "bedrock/invoke/anthropic.claude-sonnet-4-5-20250929-v1:0"
    stream_type = "application/vnd.amazon.eventstream"

    def events(self, completion: Completion) -> Events:
        return [aws({"bytes": base64.b64encode(line(event)).decode()}, "chunk") for event in self.raw_events(completion)]

    def error(self, status: int, message: str) -> Json:
        return {"message": message}


class BedrockConverse(Format):
    """docs.aws.amazon.com Converse and ConverseStream."""

    name = "bedrock converse"
    model = "bedrock/converse/anthropic.claude-sonnet-4-5-20250929-v1:0"
    stream_type = "application/vnd.amazon.eventstream"
    reasons: ClassVar[Mapping[str, str]] = {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "content_filter": "content_filtered",
    }

    def usage(self, completion: Completion) -> Json:
        prompt, output, cached, written, _ = completion.usage or (0, 0, 0, 0, 0)
        used = {"inputTokens": prompt - cached - written, "outputTokens": output, "totalTokens": prompt + output}
        return used | {"cacheReadInputTokens": cached, "cacheWriteInputTokens": written}

    def whole(self, completion: Completion) -> Json:
        blocks: list[Json] = []
        if completion.thoughts:
            blocks.append({"reasoningContent": {"reasoningText": {"text": completion.thoughts, "signature": completion.signature}}})
        if completion.text:
            blocks.append({"text": completion.text})
        blocks += [
            {"toolUse": {"toolUseId": c.id, "name": c.name, "input": json.loads(c.arguments or "{}")}} for c in completion.calls
        ]
        message = {"role": "assistant", "content": blocks}
        body = {"output": {"message": message}, "stopReason": self.reasons[completion.finish], "metrics": {"latencyMs": 5}}
        return body | ({"usage": self.usage(completion)} if completion.usage else {})

    def events(self, completion: Completion) -> Events:
        frames: list[tuple[str, Json]] = [("messageStart", {"role": "assistant"})]
        index = 0
        for kind, text in (("reasoningContent", completion.thoughts), ("text", completion.text)):
            if text:
                deltas: list[Json] = [{kind: {"text": piece} if kind == "reasoningContent" else piece} for piece in pieces(text)]
                if kind == "reasoningContent":
                    deltas.append({kind: {"signature": completion.signature}})
                frames += [("contentBlockDelta", {"contentBlockIndex": index, "delta": delta}) for delta in deltas]
                frames.append(("contentBlockStop", {"contentBlockIndex": index}))
                index += 1
        for call in completion.calls:
            start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
            frames.append(("contentBlockStart", {"contentBlockIndex": index, "start": start}))
            parts = ({"toolUse": {"input": piece}} for piece in pieces(call.arguments, 4))
            frames += [("contentBlockDelta", {"contentBlockIndex": index, "delta": part}) for part in parts]
            frames.append(("contentBlockStop", {"contentBlockIndex": index}))
            index += 1
        frames.append(("messageStop", {"stopReason": self.reasons[completion.finish]}))
        if completion.usage:
            frames.append(("metadata", {"usage": self.usage(completion), "metrics": {"latencyMs": 5}}))
        return [aws(event, name) for name, event in frames]

    def error(self, status: int, message: str) -> Json:
        return {"message": message}


class Gemini(Format):
    """ai.google.dev/api/generate-content: each event is a whole response with a few parts more."""

    name = "gemini"
    model = "gemini/gemini-2.5-flash"
    reasons: ClassVar[Mapping[str, str]] = {
        "stop": "STOP",
        "length": "MAX_TOKENS",
        "tool_calls": "STOP",
        "content_filter": "SAFETY",
    }

    def parts(self, completion: Completion, size: int) -> list[Json]:
        parts: list[Json] = [{"text": piece, "thought": True} for piece in pieces(completion.thoughts, size)]
        texts: list[Json] = [{"text": piece} for piece in pieces(completion.text, size)]
        calls: list[Json] = [{"functionCall": {"name": c.name, "args": json.loads(c.arguments or "{}")}} for c in completion.calls]
        if completion.signature and (calls or texts):  # on the first call, else on the last text
            (calls[0] if calls else texts[-1])["thoughtSignature"] = completion.signature
        return parts + texts + calls

    def usage(self, completion: Completion) -> Json:
        if not completion.usage:
            return {}
        prompt, output, cached, _, thought = completion.usage
        counts = {"promptTokenCount": prompt, "candidatesTokenCount": output - thought, "totalTokenCount": prompt + output}
        return {"usageMetadata": counts | {"cachedContentTokenCount": cached, "thoughtsTokenCount": thought}}

    def _body(self, parts: list[Json], finish: str | None, completion: Completion) -> Json:
        candidate: Json = {"index": 0, "content": {"role": "model", "parts": parts}} | ({"finishReason": finish} if finish else {})
        body = {"candidates": [candidate], "modelVersion": "served-model", "responseId": "resp-1"}
        return body | self.usage(completion)

    def whole(self, completion: Completion) -> Json:
        return self._body(self.parts(completion, 10**9), self.reasons[completion.finish], completion)

    def events(self, completion: Completion) -> Events:
        parts = self.parts(completion, 5) or [{"text": ""}]
        return [
            sse(self._body([part], self.reasons[completion.finish] if at == len(parts) - 1 else None, completion))
            for at, part in enumerate(parts)
        ]

    def error(self, status: int, message: str) -> Json:
        return {"error": {"code": status, "message": message, "status": "UNKNOWN"}}


class Ollama(Format):
    """github.com/ollama/ollama docs/api.md: one JSON object a line; a call comes whole and has no id."""

    name = "ollama"
    model = "ollama_chat/llama3.1"
    stream_type = "application/x-ndjson"

    def message(self, completion: Completion) -> Json:
        message: Json = {"role": "assistant", "content": completion.text or ""}
        if completion.thoughts:
            message["thinking"] = completion.thoughts
        if completion.calls:
            functions = [{"name": c.name, "arguments": json.loads(c.arguments or "{}")} for c in completion.calls]
            message["tool_calls"] = [{"function": function} for function in functions]
        return message

    def _line(self, message: Json, completion: Completion | None) -> Json:
        body: Json = {
            "model": "served-model",
            "created_at": "2026-01-01T00:00:00Z",
            "message": message,
            "done": completion is not None,
        }
        if completion:
            body["done_reason"] = "length" if completion.finish == "length" else "stop"
            if completion.usage:
                body |= {"prompt_eval_count": completion.usage[0], "eval_count": completion.usage[1]}
        return body

    def whole(self, completion: Completion) -> Json:
        return self._line(self.message(completion), completion)

    def events(self, completion: Completion) -> Events:
        message = self.message(completion)
        messages: list[Json] = [{"role": "assistant", "content": "", "thinking": piece} for piece in pieces(completion.thoughts)]
        messages += [{"role": "assistant", "content": piece} for piece in pieces(completion.text)]
        messages += [{"role": "assistant", "content": "", "tool_calls": [call]} for call in message.get("tool_calls", ())]
        lines = [self._line(message, None) for message in messages]
        lines.append(self._line({"role": "assistant", "content": ""}, completion))
        return [line(one) + b"\n" for one in lines]

    def error(self, status: int, message: str) -> Json:
        return {"error": message}


class Cohere(Format):
    """docs.cohere.com/v2/reference/chat and chat-stream."""

    name = "cohere"
    model = "cohere_chat/command-a-03-2025"
    reasons: ClassVar[Mapping[str, str]] = {
        "stop": "COMPLETE",
        "length": "MAX_TOKENS",
        "tool_calls": "TOOL_CALL",
        "content_filter": "ERROR_TOXIC",
    }

    def usage(self, completion: Completion) -> Json:
        if not completion.usage:
            return {}
        tokens = {"input_tokens": completion.usage[0], "output_tokens": completion.usage[1]}
        return {"usage": {"billed_units": tokens, "tokens": tokens}}

    def whole(self, completion: Completion) -> Json:
        message: Json = {"role": "assistant"}
        content = [{"type": "thinking", "thinking": completion.thoughts}] if completion.thoughts else []
        content += [{"type": "text", "text": completion.text}] if completion.text is not None else []
        if content:
            message["content"] = content
        if completion.calls:
            message["tool_calls"] = [_openai_call(call) for call in completion.calls]
        return {"id": "cohere-1", "finish_reason": self.reasons[completion.finish], "message": message} | self.usage(completion)

    def events(self, completion: Completion) -> Events:
        events: list[Json] = [{"type": "message-start", "id": "cohere-1", "delta": {"message": {"role": "assistant"}}}]
        for index, (kind, text) in enumerate((("thinking", completion.thoughts), ("text", completion.text))):
            if text:
                events.append(_content("content-start", index, {"type": kind, kind: ""}))
                events += [_content("content-delta", index, {kind: piece}) for piece in pieces(text)]
                events.append({"type": "content-end", "index": index})
        for index, call in enumerate(completion.calls):
            head = _openai_call(call._replace(arguments=""))
            events.append({"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": head}}})
            for piece in pieces(call.arguments, 4):
                part = {"message": {"tool_calls": {"function": {"arguments": piece}}}}
                events.append({"type": "tool-call-delta", "index": index, "delta": part})
            events.append({"type": "tool-call-end", "index": index})
        events.append({"type": "message-end", "delta": {"finish_reason": self.reasons[completion.finish]} | self.usage(completion)})
        return [sse(event, event["type"]) for event in events]

    def error(self, status: int, message: str) -> Json:
        return {"id": "cohere-1", "message": message}


def _content(kind: str, index: int, content: Json) -> Json:
    return {"type": kind, "index": index, "delta": {"message": {"content": content}}}


FORMATS: Mapping[str, Format] = {
    wire.name: wire
    for wire in (
        OpenAI(),
        Responses(),
        Anthropic(),
        Gemini(),
        BedrockConverse(),
        BedrockInvoke(),
        Ollama(),
        Mistral(),
        Cohere(),
        Azure(),
        Vllm(),
    )
}


def environment(origin: str) -> Mapping[str, str]:
    """What makes LiteLLM send each format's requests to ``origin``, with keys that are none."""
    return {
        "OPENAI_API_KEY": "sk-test-openai-0001",
        "OPENAI_BASE_URL": f"{origin}/v1",
        "ANTHROPIC_API_KEY": "sk-ant-test-0002",
        "ANTHROPIC_BASE_URL": origin,
        "GEMINI_API_KEY": "test-gemini-key-0003",
        "GEMINI_API_BASE": f"{origin}/v1beta",
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST0004",
        "AWS_SECRET_ACCESS_KEY": "test-secret-access-key-0004",
        "AWS_REGION_NAME": "us-east-1",
        "AWS_BEDROCK_RUNTIME_ENDPOINT": origin,
        "OLLAMA_API_BASE": origin,
        "MISTRAL_API_KEY": "test-mistral-key-0005",
        "MISTRAL_AZURE_API_BASE": f"{origin}/v1",
        "COHERE_API_KEY": "test-cohere-key-0006",
        "COHERE_API_BASE": f"{origin}/v2/chat",
        "AZURE_API_KEY": "test-azure-key-0007",
        "AZURE_API_BASE": origin,
        "AZURE_API_VERSION": "2024-10-21",
        "HOSTED_VLLM_API_KEY": "test-vllm-key-0008",
        "HOSTED_VLLM_API_BASE": f"{origin}/v1",
    }
