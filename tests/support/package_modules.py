"""The package's modules by name, and what the tests of its imports know about them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import bridge_worker

PACKAGE = Path(bridge_worker.__file__).parent
HEAVY = {
    "pydantic",
    "pydantic_core",
    "jsonrpcserver",
    "litellm",
    "openai",
    "aiohttp",
    "httpx",
    "yaml",
    "pydantic_settings",
    "jsonschema",
    "click",
    "rich",
}

# Programs of their own, and a module of an optional package.
NOT_IMPORTED = {"backends.local.llama_server"}


@cache
def files() -> dict[str, Path]:
    """By module name without the package's own: "errors", "backends.litellm.setup", "backends"."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        found["bridge_worker" if name == "__init__" else name] = path
    return found


@cache
def modules() -> dict[str, ast.Module]:
    """Each module parsed. It takes a second of CPU, so it is called in a test, not while tests are collected."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files().items()}
