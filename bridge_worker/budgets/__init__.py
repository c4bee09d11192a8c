"""Owns what a path may spend, and its stores; does not know JSON-RPC or LiteLLM."""
