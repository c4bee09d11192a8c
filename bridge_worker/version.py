"""The bridge's version: the only place that has it. Owns nothing else, and refuses to import anything."""

__version__ = "0.1.0"
