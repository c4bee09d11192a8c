"""LiteLLM's calls for embeddings and reranking.

Owns the check of the response: a vector for each input, and scores only for documents of the request. Refuses to know the wire.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Awaitable, Mapping
from typing import Any

import litellm
from litellm.types.utils import CallTypes

from bridge_worker.backends.litellm import pricing, receipts, request_diff
from bridge_worker.backends.litellm.decoders import own_path_rehearsed
from bridge_worker.backends.litellm.model_names import Routed
from bridge_worker.backends.litellm.responses import counts
from bridge_worker.backends.litellm.router_errors import fault_of
from bridge_worker.backends.litellm.transport import REQUEST_TIMEOUT_SECONDS
from bridge_worker.backends.litellm.upstream import Target
from bridge_worker.backends.wire.decoder import UNREADABLE
from bridge_worker.backends.wire.json_values import count_of
from bridge_worker.core.exchange import heard
from bridge_worker.core.ports import Cost, Embeddings, EmbedRequest, Ranking, RerankRequest
from bridge_worker.errors import BridgeError
from bridge_worker.providers import price_map
from bridge_worker.schema.chat_result import Usage
from bridge_worker.security.error_text import MAX_TEXT

# PRIVATE: LiteLLM's words where it has a provider, but not for this method.
_NO_METHOD = re.compile(r"Unsupported provider: |Unmapped LLM provider|does not support (?:embedding|rerank)")
_DIRECT = {"timeout": REQUEST_TIMEOUT_SECONDS, "max_retries": 0}  # the Router has its own


async def embed(router: Any, request: EmbedRequest, routed: Routed | None = None) -> Embeddings:
    """Raises BridgeError. Cancelling the task closes the connection before it ends. ``routed``: what the Router gets."""
    await own_path_rehearsed()
    call = {"input": request.input, **request.options, **_model(request.model, routed)}
    made = router.aembedding(**call) if router else litellm.aembedding(**call, **_DIRECT)
    response, target = await _response_of(made, request, CallTypes.aembedding)
    try:
        return _embeddings(response, request, target)
    except UNREADABLE as error:
        raise _bad("the provider sent embeddings that can't be read", request.model) from error


def _embeddings(response: Any, request: EmbedRequest, target: Target) -> Embeddings:
    rows = sorted(getattr(response, "data", None) or [], key=lambda row: row["index"])
    if [row["index"] for row in rows] != list(range(len(request.input))):
        raise _bad(f"the provider sent {len(rows)} embeddings for {len(request.input)} inputs", request.model)
    count = counts(response.usage)
    input_tokens = count("prompt_tokens")
    counted = Usage(input_tokens=input_tokens, total_tokens=count("total_tokens")) if input_tokens else None
    hidden = _hidden(response)
    return Embeddings(
        vectors=[_vector(row["embedding"], request.model) for row in rows],
        usage=counted,
        cost=_cost(hidden, target) if counted else None,
        model=response.model,
        provider=hidden.get("custom_llm_provider") or target.provider,
    )


async def rerank(router: Any, request: RerankRequest, routed: Routed | None = None) -> Ranking:
    """Raises BridgeError. Cancelling the task closes the connection before it ends."""
    await own_path_rehearsed()
    call = {
        "query": request.query,
        "documents": request.documents,
        "return_documents": False,
        **request.options,
        **_model(request.model, routed),
    }
    made = router.arerank(**call) if router else litellm.arerank(**call, **_DIRECT)
    response, target = await _response_of(made, request, CallTypes.arerank)
    try:
        return _ranking(response, request, target)
    except UNREADABLE as error:
        raise _bad("the provider sent a ranking that can't be read", request.model) from error


def _ranking(response: Any, request: RerankRequest, target: Target) -> Ranking:
    scores = [(row["index"], row["relevance_score"]) for row in response.results or []]
    places = range(len(request.documents))
    if not scores or len({index for index, _ in scores} & set(places)) != len(scores):
        raise _bad("the provider ranked other documents than it was given", request.model)
    hidden = _hidden(response)
    return Ranking(
        scores=scores,
        usage=_rerank_usage(response.meta or {}),
        cost=_cost(hidden, target),
        model=hidden.get("model") or request.model.rpartition("/")[2],
        provider=hidden.get("custom_llm_provider") or target.provider,
    )


def _model(requested: str, routed: Routed | None) -> dict[str, Any]:
    return {"model": requested} if routed is None else {"model": routed.name, **routed.options}


async def _response_of(made: Awaitable[Any], request: EmbedRequest | RerankRequest, call_type: CallTypes) -> tuple[Any, Target]:
    """``made`` has not begun: the record is there before it does."""
    receipts.watch()
    record = receipts.Record(
        request.model, request.receipt, request_diff.ExpectedRequest(request.options, [], marked=False), call_type
    )
    try:
        with heard(record.tape):
            response = await made
        record.end("ok")
        return response, record.target
    except Exception as error:
        fault = _without_method(error, request.model, call_type) or fault_of(error) or record.fault(error)
        record.end(fault.kind, fault.status)
        raise fault from error
    finally:
        record.end("cancelled")


def _without_method(error: Exception, model: str, call_type: CallTypes) -> BridgeError | None:
    """The error for a provider that has no such call in LiteLLM. LiteLLM's text reports an unknown provider instead."""
    provider = model.partition("/")[0]
    unknown = isinstance(error, litellm.LiteLLMUnknownProvider) or _NO_METHOD.search(str(error)[:MAX_TEXT])
    if not unknown or provider not in litellm.provider_list:
        return None
    method = "embeddings" if call_type is CallTypes.aembedding else "reranking"
    return BridgeError("rejected_by_provider", f"{provider} has no {method} here", provider=provider, model=model)


def _cost(hidden: Mapping[str, Any], target: Target) -> Cost | None:
    usd = hidden.get("response_cost")
    if usd is not None and pricing.has_prices(target.deployment):
        return Cost(usd, "deployment")
    if usd is None or (not usd and pricing.is_unpriced(target.model, target.provider, target.deployment)):
        return None
    return Cost(usd, "price_map", price_map.DATE)


def _vector(given: Any, model: str) -> list[float]:
    """Some providers send base64 when numbers are requested, and numbers when base64 is."""
    try:
        raw = base64.b64decode(given, validate=True) if isinstance(given, str) else None
        vector = list(struct.unpack(f"<{len(raw) // 4}f", raw)) if raw is not None else [float(axis) for axis in given]
    except (ValueError, TypeError, struct.error):
        raise _bad("the provider sent an embedding that is no list of numbers", model) from None
    if not vector or not all(map(math.isfinite, vector)):
        raise _bad("the provider sent an embedding that is empty or not finite", model)
    return vector


def _rerank_usage(meta: Mapping[str, Any]) -> Usage | None:
    counted, billed = meta.get("tokens") or {}, meta.get("billed_units") or {}
    usage = Usage(
        input_tokens=count_of(counted.get("input_tokens")),
        output_tokens=count_of(counted.get("output_tokens")),
        total_tokens=count_of(billed.get("total_tokens")),
    )
    return usage if any(usage.model_dump().values()) else None


def _hidden(response: Any) -> Mapping[str, Any]:
    return getattr(response, "_hidden_params", None) or {}  # PRIVATE: cost and provider are nowhere else


def _bad(wrong: str, model: str) -> BridgeError:
    return BridgeError("bad_upstream_response", f"{wrong}; try again", model=model)
