"""Owns the commands for interactive use; does not know how a request is served."""
