"""Chat requests as the methods make them, with the default deadlines.

Owns the shortcut `chat_request`. Refuses to validate: params here are right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge_worker.config.settings import DEFAULTS
from bridge_worker.core.ports import ChatRequest
from bridge_worker.methods import chat
from bridge_worker.schema.chat_request import Deadlines

DEADLINES = Deadlines(**DEFAULTS.deadlines)


def chat_request(params: Mapping[str, Any], received: float) -> ChatRequest:
    return chat.chat_request(params, received, DEADLINES)
