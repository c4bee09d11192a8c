"""Entry point: a leading flag starts the worker; a subcommand name runs a CLI command.

Owns that decision. Refuses to load click and rich for the worker, so that they do not delay its start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from bridge_worker.runtime.startup import serve
from bridge_worker.security.isolation import isolate

_COMMAND_FLAGS = {"--help", "-h", "--version"}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Never returns: the worker or the command ends the process."""
    isolated = arguments is not None or isolate()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or not words[0].startswith("-") or not _COMMAND_FLAGS.isdisjoint(words):
        _run_command(words)
    serve(words, isolated)


def _run_command(words: list[str]) -> NoReturn:
    try:
        from bridge_worker.cli.commands import run  # loads click

        run(words)
    except KeyboardInterrupt:  # during the import, before a command handles it
        os._exit(130)
