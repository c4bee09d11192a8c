"""Which of the two ways through LiteLLM there is in this process: the direct one in front of the ordinary one, or that alone.

Owns the decision at start, and the rehearsal that it rests on. Refuses to decide about a request: that is the direct one's part.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import httpx
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

from bridge_worker.backends.litellm.chat import LiteLLM
from bridge_worker.core.ports import ChatRequest
from bridge_worker.core.receipt import Receipt
from bridge_worker.schema.chat_request import Deadlines

if TYPE_CHECKING:
    from bridge_worker.backends.litellm.direct import Direct

_MODEL = "lm_studio/rehearsal"  # needs no key, and no setting of LiteLLM's leads it elsewhere

_log = logging.getLogger(__name__)


def chosen(ordinary: LiteLLM, way: str = "auto", *, remembers: bool = True) -> Direct | LiteLLM:
    """``way``: "litellm", "direct" or "auto". With "direct" it raises what a LiteLLM that has changed lacks. ``remembers`` as
    `Direct` has it. Not for a thread that has an event loop."""
    if way == "litellm" or (way == "auto" and ordinary.router is not None):
        return ordinary  # a Router needs the ordinary path, whoever asks; the rehearsal takes 0.2 s
    try:
        from bridge_worker.backends.litellm.direct import Direct  # here, because it may be what fails

        asyncio.run(_rehearse())
    except Exception as error:
        if way == "direct":
            raise
        _log.warning("this LiteLLM is not one that the direct engine knows (%s); its ordinary path serves everything", error)
        return ordinary
    return Direct(ordinary, only=way == "direct", remembers=remembers)


async def _rehearse() -> None:
    """Raises what breaks when a plain and a streamed answer, made up here, go the direct way. It is also the first, slow call."""
    from bridge_worker.backends.litellm.direct import Call
    from bridge_worker.backends.litellm.direct_http import Handler

    handler = Handler(AsyncHTTPHandler())
    handler.client = SimpleNamespace(build_request=httpx.AsyncClient().build_request, send=_as_openai)
    for stream in (False, True):
        receipt = Receipt(requested_model=_MODEL)
        asked = [{"role": "user", "content": "hello"}]
        request = ChatRequest(_MODEL, asked, {"temperature": 0.5}, stream, Deadlines(), time.monotonic(), receipt)
        heard = "".join([delta.content or "" async for delta in Call(request).deltas(handler)])
        if heard != "hi" or receipt.dropped != []:
            raise RuntimeError(f"an answer came out as {heard!r}, and {receipt.dropped} of it was dropped")


async def _as_openai(request: httpx.Request, *, stream: bool) -> httpx.Response:
    kind, said = ("chat.completion.chunk", "delta") if stream else ("chat.completion", "message")
    choice = {"index": 0, said: {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    body = json.dumps({"id": "chatcmpl-1", "object": kind, "created": 1, "model": "gpt-4o", "choices": [choice]})
    return httpx.Response(200, text=f"data: {body}\n\ndata: [DONE]\n\n" if stream else body, request=request)
