"""Owns the config file and the settings; does not know LiteLLM."""
