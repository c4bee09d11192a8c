"""Finds the variable of the environment that has a provider's key, by the names of LiteLLM and of the providers' own tools.

Owns these names. Refuses to look outside the environment, and to return a key.
"""

from __future__ import annotations

import os
import re

# Providers that use another provider's key, and other names of a provider's key.
_KEY_OF = {"cohere_chat": "cohere", "text-completion-openai": "openai", "text-completion-codestral": "codestral"}
_KEY_NAMES = {"gemini": ("google",), "together_ai": ("together",), "huggingface": ("hf",), "perplexity": ("perplexityai",)}


def owner(provider: str) -> str:
    """The provider that issues the key."""
    return _KEY_OF.get(provider, provider)


def variable(provider: str) -> str | None:
    """The name of the set variable that has the provider's key, or None."""
    names = (owner(provider), *_KEY_NAMES.get(owner(provider), ()))
    stem = "|".join(re.sub(r"[^A-Z0-9]", "", name.upper()) for name in names)
    named = re.compile(rf"({stem})(API|ACCESS|AUTH)?(KEY|TOKEN)")
    return next((name for name, value in os.environ.items() if value and named.fullmatch(name.replace("_", ""))), None)
