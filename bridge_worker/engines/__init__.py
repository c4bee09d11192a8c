"""Owns the engine processes: the link to one, starting, watching and replacing them; does not know a method or a backend."""
