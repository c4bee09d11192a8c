"""Owns what serves models, behind the ports of ``core``; does not know JSON-RPC, the session or the methods."""
