"""Owns the serving process: start, loading, server, reload, end; does not know a method or a provider."""
