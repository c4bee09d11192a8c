"""Runs LiteLLM's first, slow calls ahead of the first chat.

Owns the list of what is slow once: LiteLLM's own completion, plain and streamed, which a chat without a config does not use, and
the openai package. Refuses to send anything.
"""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import litellm
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER  # PRIVATE: its queue is flushed

from bridge_worker.backends.litellm import pricing
from bridge_worker.core.deltas import TokenUsage


@functools.cache
def warm_up() -> None:
    """Does once, in the calling thread, what would else stall the loop for half a second at the first call. A process that is
    forked from one where it was done does nothing."""

    async def first_calls() -> None:
        call: dict[str, Any] = {"model": "openai/warm-up", "messages": [{"role": "user", "content": "hi"}], "mock_response": "hi"}
        await litellm.acompletion(**call, _skip_mcp_handler=True)
        async for _ in await litellm.acompletion(**call, stream=True, _skip_mcp_handler=True):
            pass
        await GLOBAL_LOGGING_WORKER.flush()
        await GLOBAL_LOGGING_WORKER.stop()

    counts = litellm.disable_token_counter
    litellm.disable_token_counter = True  # else the stream loads a tokenizer, 0.1 s and 39 MiB, which only some chats need
    try:
        with asyncio.Runner() as runner:
            runner.get_loop().set_default_executor(ThreadPoolExecutor(1))
            runner.run(first_calls())
    finally:
        litellm.disable_token_counter = counts


def warm_up_pricing() -> None:
    """Imports LiteLLM's calculation of a price."""
    pricing.price(TokenUsage(1, 0, 1), provider="openai", deployment=None, models=("gpt-4.1",))


@functools.cache
def warm_up_openai() -> None:
    """Imports the openai package, which LiteLLM uses for Azure, embeddings and some others: 500 modules, 0.4 s."""
    from openai import AsyncOpenAI

    _ = AsyncOpenAI(api_key="none").chat.completions
