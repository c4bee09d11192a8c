"""Makes the bundle: a folder with an interpreter of its own that runs where there is no Python. See docs/packaging.md."""
