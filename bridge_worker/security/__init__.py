"""Owns what may enter and leave the process: redaction, URLs, isolation; does not know the rest of the bridge."""
