"""The command's first decision: what starts with a flag serves an agent, what starts with a word is for a person.

Owns that, and refuses to load click and rich for an agent, who would wait for them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from bridge_worker.runtime.startup import serve
from bridge_worker.security.isolation import isolate

_FOR_A_PERSON = {"--help", "-h", "--version"}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Never returns: the process is ended by what it runs."""
    isolated = arguments is not None or isolate()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or not words[0].startswith("-") or not _FOR_A_PERSON.isdisjoint(words):
        _for_a_person(words)
    serve(words, isolated)


def _for_a_person(words: list[str]) -> NoReturn:
    try:
        from bridge_worker.cli.commands import run  # click: not on the way to the first answer

        run(words)
    except KeyboardInterrupt:  # so early that no command could take it
        os._exit(130)
