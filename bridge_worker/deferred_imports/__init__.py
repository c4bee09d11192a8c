"""Owns PEP 810's lazy imports for packages that are named to it; does not know the bridge, or why a package is named."""
