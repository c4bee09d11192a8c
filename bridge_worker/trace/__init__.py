"""Owns the trace file: writing, reading and showing what went over the pipe; does not know the session or the methods."""
