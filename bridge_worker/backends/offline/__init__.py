"""Owns the models that need no key and no network; does not know LiteLLM."""
