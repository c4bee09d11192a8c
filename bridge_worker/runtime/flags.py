"""Command-line flags of the serving process.

Owns the parser and the config source that the flags name. Refuses to check the values: the config does, for flags, variables
and the file alike.
"""

from __future__ import annotations

import argparse
import os
from typing import NoReturn

from bridge_worker.config.settings import FLAGS, SETTINGS, flag
from bridge_worker.config.source import Source
from bridge_worker.runtime.exit_codes import fail


def config_source(options: argparse.Namespace) -> Source:
    given = {name: getattr(options, name) for name in FLAGS if getattr(options, name) is not None}
    return Source(options.config or os.environ.get("OMNI_BRIDGE_CONFIG"), given)


def parser() -> argparse.ArgumentParser:
    flags = _Parser(
        prog="omni-bridge",
        usage="omni-bridge --stdio [flags]",
        description="Serves one agent: line-delimited JSON-RPC 2.0 on stdin and stdout.",
        add_help=False,  # the command line's --help lists these too
        allow_abbrev=False,
    )
    flags.add_argument("--stdio", action="store_true", help="serve until stdin ends")
    flags.add_argument(
        "--local", action="store_true", help="load the models of this machine ahead; bin/omni-bridge installs llama.cpp"
    )
    flags.add_argument("--check-config", action="store_true", help="report every error in the config, a line each, and exit")
    flags.add_argument(
        "--strict", action="store_true", help="with --check-config: what has no effect or is not served is an error too"
    )
    flags.add_argument(
        "--print-config", action="store_true", help="print the effective config with the source of each value, and exit"
    )
    flags.add_argument("--config", metavar="FILE", help="a LiteLLM gateway's config.yaml; only its models exist then")
    for name in FLAGS:  # their values are checked with those of variables and the file
        about = SETTINGS[name].metadata
        flags.add_argument(flag(name), metavar=about["metavar"] or "|".join(about["choices"]), help=about["help"])
    return flags


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        fail(f"{message}; see omni-bridge --help")
