"""Owns the methods of the protocol, over the ports of ``core``; does not know backends, bytes or tasks."""
