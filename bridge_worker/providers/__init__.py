"""Owns facts about providers that need no LiteLLM: key variables, the price file; does not know the rest of the bridge."""
