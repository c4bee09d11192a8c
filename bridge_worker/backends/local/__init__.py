"""Owns models run by llama.cpp in a child process; does not know LiteLLM."""
