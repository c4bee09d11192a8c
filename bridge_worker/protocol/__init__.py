"""Owns JSON-RPC and MCP without I/O: framing, session, lifecycle; does not know the methods, descriptors or clocks."""
