"""Versions of installed packages.

Owns how they are looked up, which takes 40 ms the first time: call it in the loading thread. Refuses to import the packages.
"""

from __future__ import annotations

import functools


@functools.cache
def litellm_version() -> str:
    from importlib.metadata import version

    return version("litellm")
