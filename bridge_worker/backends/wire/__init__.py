"""Owns the sans-IO decoders of the providers' wire formats; does not know LiteLLM, HTTP connections, clocks or tasks."""
