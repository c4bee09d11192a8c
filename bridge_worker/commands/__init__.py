"""The commands for people, in click; one file each.

Owns their list, and how one ends: with a line and a remedy where something is wrong, never a traceback. Refuses to be imported by
what serves, which never loads click or rich.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from bridge_worker import __version__
from bridge_worker.serve import parser

# Each is a module here with a click command of its name; a module is imported when its command is asked for, or all for --help.
COMMANDS = ("demo", "schema", "trace")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"{__name__}.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The flags that serve an agent, which click knows nothing of."""
        flags = [action for action in parser()._actions if action.help]
        with formatter.section("Serving an agent, omni-bridge --stdio [flags]"):
            formatter.write_dl((f"{action.option_strings[0]} {action.metavar or ''}".strip(), str(action.help)) for action in flags)
        with formatter.indentation():
            formatter.write_text("A flag with a value is also a variable: --log-level is OMNI_BRIDGE_LOG_LEVEL. The flag wins.")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="omni-bridge", message="%(prog)s %(version)s")
def omni_bridge() -> None:
    """Chat with any LLM provider, over line-delimited JSON-RPC 2.0 on stdin and stdout."""


def run(arguments: Sequence[str]) -> NoReturn:
    """Never returns. Exit codes: 0, 2 for what the caller has to mend, 130 for Ctrl-C; a command may have more."""
    try:
        code = omni_bridge.main(arguments, prog_name="omni-bridge", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        code = _fail(error.format_message())
    except click.ClickException as error:
        code = _fail(f"omni-bridge: {' '.join(error.format_message().split()).rstrip('.')}; see omni-bridge --help")
    except click.Abort:
        code = 130
    except BrokenPipeError:  # | head
        code = 0
    os._exit(code if isinstance(code, int) else 0)


def _fail(text: str) -> int:
    click.echo(text, err=True)
    return 2
