"""Owns the log, spans and counters; does not know message content."""
