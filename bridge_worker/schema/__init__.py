"""Owns the bridge's wire types and their JSON Schema; does not know behaviour."""
