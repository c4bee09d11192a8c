"""Ways around what LiteLLM does for nobody: a stream's text made anew three times a chunk, prices and logs that no one reads.

Owns every replacement in LiteLLM that is there for speed alone; all are PRIVATE. Each does the same as what it replaces, in less
time, for the plain case, and leaves every other case to LiteLLM. tests/upstream_contract/test_speed_patches.py holds them
against the originals, and
fails when an upgrade changes what they stand on. Refuses to change what an answer says: that is what `mends` does.
"""

from __future__ import annotations

import time
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.litellm_logging import Logging
from litellm.types.utils import CallTypes, ModelResponseStream, StreamingChoices

_make_chunk = litellm.CustomStreamWrapper.chunk_creator
_price_answer = Logging.response_cost_calculator
_log_success = Logging.async_success_handler
_log_stream = Logging.dispatch_success_handlers

# Their streams have branches of their own in LiteLLM's chunk_creator.
_OTHER_SHAPES = frozenset(
    """
    aleph_alpha azure azure_ai azure_text cached_response nlp_cloud petals sagemaker text-completion-codestral
    text-completion-openai triton vertex_ai vllm
    """.split()
)
_NO_LIMIT = 1_000_000  # of equal chunks; models/__init__.py sets it beyond
_CHOICE = frozenset(("finish_reason", "index", "delta", "logprobs"))
_DELTA = frozenset(("provider_specific_fields", "reasoning_content"))


class Unheard(CustomLogger):  # type: ignore[misc]  # LiteLLM's types are not read
    """A callback to which LiteLLM need not tell that a chat has gone well."""


# --- a piece of text -----------------------------------------------------------------------------------------------------------


def make_chunk(self: Any, chunk: Any) -> Any:
    """LiteLLM's makes two more chunks and three more deltas of a chunk that is as it should be: half of a stream's time."""
    if not _is_text_in_mid_stream(self, chunk):
        return _make_chunk(self, chunk)
    if litellm.REPEATED_STREAMING_CHUNK_LIMIT < _NO_LIMIT:
        self.raise_on_model_repetition()
    self.intermittent_finish_reason = None
    self.response_id, self.system_fingerprint = chunk.id, chunk.system_fingerprint
    self._provider_response_model = chunk.model or self._provider_response_model
    told = {"provider_response_model": self._provider_response_model} if self._provider_response_model else {}
    chunk.hidden_params = {
        **told,
        "custom_llm_provider": self._cached_logging_llm_provider,
        "created_at": time.time(),
        **self._base_hidden_params,
        "received_model_id": chunk.id,
    }
    chunk.model, chunk.created = self.model, self.created
    chunk.__pydantic_fields_set__.add("system_fingerprint")
    if "citations" not in chunk.__pydantic_extra__:
        chunk.citations = None
    delta = chunk.choices[0].delta
    delta.__pydantic_extra__["role"] = None
    delta.__pydantic_fields_set__.add("provider_specific_fields")
    return chunk


def _is_text_in_mid_stream(stream: Any, chunk: Any) -> bool:
    """Whether there is nothing in ``chunk`` but text, or thinking, of the one choice, neither first nor last."""
    if type(chunk) is not ModelResponseStream or len(chunk.choices) != 1 or not isinstance(chunk.id, str) or not chunk.id.strip():
        return False
    choice = chunk.choices[0]
    if type(choice) is not StreamingChoices or choice.__dict__ or choice.__pydantic_extra__.keys() != _CHOICE:
        return False
    choice, delta = choice.__pydantic_extra__, choice.__pydantic_extra__["delta"]
    said = delta.__pydantic_extra__
    return (
        stream.sent_first_chunk
        and stream.created is not None
        and stream.received_finish_reason is None
        and not stream.merge_reasoning_content_in_choices
        and stream.custom_llm_provider not in _OTHER_SHAPES
        and stream.custom_llm_provider not in litellm._custom_providers
        and "usage" not in chunk.__pydantic_extra__
        and chunk.provider_specific_fields is None
        and not chunk.__pydantic_private__["_hidden_params"]
        and choice["finish_reason"] is None
        and choice["logprobs"] is None
        and delta.__dict__.keys() <= _DELTA
        and delta.__dict__["provider_specific_fields"] is None
        and bool(said["content"] or delta.__dict__.get("reasoning_content"))
        and all(value is None for name, value in said.items() if name not in ("content", "role"))
    )


def _set_extra(model: Any, name: str, value: Any) -> None:
    """What pydantic does for a member that a type does not declare, without looking up each time that it does not."""
    model.__pydantic_extra__[name] = value
    model.__pydantic_fields_set__.add(name)


# --- prices and logs -----------------------------------------------------------------------------------------------------------


def price_answer(self: Any, result: Any, *arguments: Any, **options: Any) -> Any:
    """LiteLLM prices an answer twice more than the bridge, for callbacks and its own budget. An embedding's is read."""
    return None if _nobody_listens(self) else _price_answer(self, result, *arguments, **options)


async def log_success(self: Any, *arguments: Any, **options: Any) -> None:
    """LiteLLM writes a payload of some eighty members for each answer, whoever reads it."""
    if not _nobody_listens(self):
        await _log_success(self, *arguments, **options)


async def log_stream(self: Any, *arguments: Any, **options: Any) -> None:
    """The same for a stream."""
    if not _nobody_listens(self):
        await _log_stream(self, *arguments, **options)


def _nobody_listens(log: Any) -> bool:
    """No callback but the bridge's, no budget and no cache: asked at each answer, for a config may bring some at any time."""
    if log.call_type != CallTypes.acompletion.value or litellm.cache is not None or litellm.max_budget:
        return False
    here = (log.dynamic_success_callbacks, log.dynamic_async_success_callbacks)
    everywhere = (litellm.callbacks, litellm.success_callback, litellm._async_success_callback, litellm.service_callback)
    return all(isinstance(callback, Unheard) for callbacks in (*here, *everywhere) for callback in callbacks or ())


litellm.CustomStreamWrapper.chunk_creator = make_chunk
StreamingChoices.__pydantic_setattr_handlers__.update(dict.fromkeys(_CHOICE, _set_extra))
ModelResponseStream.__pydantic_setattr_handlers__["citations"] = _set_extra
Logging.response_cost_calculator = price_answer
Logging.async_success_handler = log_success
Logging.dispatch_success_handlers = log_stream
