"""Owns recorded exchanges and faults on purpose, as ports around the backends; does not know LiteLLM, JSON-RPC and the pipe."""
