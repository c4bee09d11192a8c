"""LiteLLM's calls for embeddings and reranking, with a recorded response instead of a provider's.

Owns what LiteLLM needs for a request that is never sent. Refuses to know a cassette, and to open a connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

import httpx

from bridge_worker.backends.litellm import bounded_http, embed_rerank
from bridge_worker.backends.litellm.capture import is_call
from bridge_worker.core.ports import Embeddings, EmbedRequest, Ranking, RerankRequest
from bridge_worker.core.receipt import Receipt
from bridge_worker.errors import BridgeError

_KEYS = {"api_key": "recorded"}
_KEYS_OF_AWS = {"aws_access_key_id": "recorded", "aws_secret_access_key": "recorded", "aws_region_name": "us-east-1"}
_HOST = {"api_base": "http://recorded.invalid"}  # of providers without a default host


async def read(method: str, params: Mapping[str, Any], response: Mapping[str, Any], body: bytes) -> Embeddings | Ranking | None:
    """``response`` is a cassette's, to the canonical ``params`` of ``method``: "embed" or "rerank".

    Raises BridgeError as the call itself. None where LiteLLM made no request: it needs more than a key, such as a cloud's token.
    """
    model, provider = str(response["model"]), response["provider"]
    if provider and not model.startswith(f"{provider}/"):
        model = f"{provider}/{model}"
    receipt = Receipt(model)

    def call(options: dict[str, Any]) -> Awaitable[Embeddings | Ranking]:
        if method == "embed":
            return embed_rerank.embed(None, EmbedRequest(model, list(params["input"]), receipt, options))
        return embed_rerank.rerank(None, RerankRequest(model, params["query"], list(params["documents"]), receipt, options))

    given = {name: value for name, value in params.items() if name not in ("model", "input", "query", "documents")}
    keys = _KEYS_OF_AWS if model.startswith(("bedrock", "sagemaker")) else _KEYS
    for host in ({}, _HOST):
        player = _Player(response, body)
        token = bounded_http.played.set(player.respond)
        try:
            return await call(given | keys | host)
        except BridgeError:
            if player.was_called:
                raise
        finally:
            bounded_http.played.reset(token)
    return None


class _Player:
    def __init__(self, response: Mapping[str, Any], body: bytes) -> None:
        self._response = response
        self._body = body
        self.was_called = False

    def respond(self, request: httpx.Request) -> httpx.Response:
        if not is_call(request):
            raise httpx.ConnectError("no request is sent", request=request)
        self.was_called = True
        response = self._response
        if response["end"] == "cut":
            failed = httpx.ReadTimeout if response["timed_out"] else httpx.ReadError
            raise failed(response["failure"], request=request)
        return httpx.Response(response["status"], headers=response["response_headers"], content=self._body, request=request)
