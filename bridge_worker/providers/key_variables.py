"""Which provider's key is in the environment, by the names that providers' own tools and LiteLLM give it.

Owns these names. Refuses to look anywhere else, and to say what a key is.
"""

from __future__ import annotations

import os
import re

# Whose key is another provider's, or has another name.
_KEY_OF = {"cohere_chat": "cohere", "text-completion-openai": "openai", "text-completion-codestral": "codestral"}
_KEY_NAMES = {"gemini": ("google",), "together_ai": ("together",), "huggingface": ("hf",), "perplexity": ("perplexityai",)}


def owner(provider: str) -> str:
    """The provider whose key it is."""
    return _KEY_OF.get(provider, provider)


def variable(provider: str) -> str | None:
    """The variable that holds its key; None where there is none."""
    names = (owner(provider), *_KEY_NAMES.get(owner(provider), ()))
    stem = "|".join(re.sub(r"[^A-Z0-9]", "", name.upper()) for name in names)
    named = re.compile(rf"({stem})(API|ACCESS|AUTH)?(KEY|TOKEN)")
    return next((name for name, value in os.environ.items() if value and named.fullmatch(name.replace("_", ""))), None)
