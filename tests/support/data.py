"""Values that many test files use.

Owns names for them. Refuses to know a worker, an upstream or LiteLLM: unit tests import this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]

KEY = "sk-secret-123"  # a provider's key: no result, error, log line or trace may contain it
HELLO: list[Any] = [{"role": "user", "content": "Grüße 🦜"}]  # characters of one to four bytes
HELLO_ASCII: list[Any] = [{"role": "user", "content": "hello"}]


def tool(name: str, parameters: Json | None = None, **more: Any) -> Json:
    """A tool of a chat's params. ``more``: further members of its function."""
    parameters = {"type": "object"} if parameters is None else parameters
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}
