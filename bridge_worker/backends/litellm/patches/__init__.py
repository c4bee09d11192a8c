"""Owns the corrections of LiteLLM that the bridge applies; does not know requests."""
