"""Owns what serves models through LiteLLM, and is the only package that imports it; does not know the wire of the bridge."""
