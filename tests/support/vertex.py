"""Vertex AI's models in tests: the formats of `provider_formats` under another host and another credential.

Owns the models, and a token in the place of Google's, whose package the tests' environment does not have. Refuses to know a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.provider_formats import Anthropic, Gemini

TOKEN = "ya29.test-token-0009"


class VertexGemini(Gemini):
    name = "vertex gemini"
    model = "vertex_ai/gemini-2.5-flash"


class VertexClaude(Anthropic):
    name = "vertex claude"
    model = "vertex_ai/claude-sonnet-4-5"


def environment(origin: str) -> Mapping[str, str]:
    return {"VERTEXAI_PROJECT": "p1", "VERTEXAI_LOCATION": "us-central1", "VERTEXAI_API_BASE": origin}


@contextmanager
def credentials(origin: str) -> Iterator[None]:
    """Within it LiteLLM sends Vertex's requests to ``origin``, with `TOKEN`."""
    from litellm.llms.vertex_ai.vertex_llm_base import VertexBase  # late: a test module prepares LiteLLM first

    async def get_token_async(self: Any, *_: Any, **__: Any) -> tuple[str, str]:
        return TOKEN, "p1"

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(origin).items():
            patch.setenv(name, value)
        patch.setattr(VertexBase, "get_access_token_async", get_token_async)
        patch.setattr(VertexBase, "get_access_token", lambda self, *_, **__: (TOKEN, "p1"))
        yield
