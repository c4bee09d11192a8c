"""Owns one chat, from its request to its result or error; does not know JSON-RPC, LiteLLM or any provider's format."""
