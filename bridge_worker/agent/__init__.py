"""Owns what an agent's loop needs above a single chat; does not know JSON-RPC, a provider or LiteLLM."""
