"""Owns the process and its surroundings: descriptors, signals, processes, Redis; does not know what the bridge serves."""
