"""The click group of the commands for interactive use; each command is one file.

Owns their list and how a command ends: an error is one line with a hint, never a traceback. Refuses to be imported by the serving
process, which never loads click or rich.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from bridge_worker.cli.command_error import WorkerReportedError
from bridge_worker.runtime.flags import parser
from bridge_worker.version import __version__

# Each is a module here with a click command of its name. A module is imported when its command runs; --help imports all.
COMMANDS = {
    "Use models": ("chat", "models", "tokens"),
    "Check and observe": ("demo", "doctor", "trace", "replay", "cassette"),
    "For programs": ("schema", "completion"),
}
_NAMES = [name for names in COMMANDS.values() for name in names]
_EXAMPLES = (
    ("omni-bridge demo", "the protocol at work"),
    ("omni-bridge chat -m local/smollm2", "chat with a model on this machine"),
    ("git diff | omni-bridge chat 'Write a commit message'", ""),
    ("omni-bridge --stdio", "serve, as an agent starts it"),
)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return _NAMES

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _NAMES:
            return None
        module = import_module(f"bridge_worker.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, names in COMMANDS.items():
            commands = ((name, self.get_command(ctx, name)) for name in names)
            with formatter.section(section):
                formatter.write_dl([(name, command.get_short_help_str(80)) for name, command in commands if command])
        with formatter.section("Examples"):
            formatter.write_dl(_EXAMPLES, col_max=60)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The flags of the serving process; argparse parses them, not click."""
        flags = [action for action in parser()._actions if action.help]
        with formatter.section("Serving an agent, omni-bridge --stdio [flags]"):
            formatter.write_dl((f"{action.option_strings[0]} {action.metavar or ''}".strip(), str(action.help)) for action in flags)
        with formatter.indentation():
            formatter.write_text("A flag with a value is also a variable: --log-level is OMNI_BRIDGE_LOG_LEVEL. The flag wins.")


def _print_versions(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from importlib.metadata import version  # 40 ms

    from bridge_worker.providers import price_map

    of_map = f"price map of {price_map.DATE}" if price_map.DATE else "price map of an unknown day"
    click.echo(f"omni-bridge {__version__} (LiteLLM {version('litellm')}, {of_map})")
    context.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_versions, help="Show this and LiteLLM's version."
)
def omni_bridge() -> None:
    """Chat with any LLM provider: for interactive use, for agents over line-delimited JSON-RPC 2.0 on stdin and stdout.

    omni-bridge COMMAND --help has the details.
    """


def run(arguments: Sequence[str]) -> NoReturn:
    """Never returns. Exit codes: 0; 1: the call failed; 2: the user must correct something; 130: Ctrl-C; 70: a bug."""
    os._exit(_code_of(arguments))


def _code_of(arguments: Sequence[str]) -> int:
    try:
        code = omni_bridge.main(arguments, prog_name="omni-bridge", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        return _fail(error.format_message(), 2)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "omni-bridge"
        return _fail(f"omni-bridge: {_line(error.format_message())}; see {path} --help", 2)
    except WorkerReportedError as error:
        return error.exit_code
    except click.ClickException as error:
        return _fail(f"omni-bridge: {_line(error.format_message())}", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except (BrokenPipeError, SystemExit):  # the reader, such as head, ended; click turns a broken pipe into SystemExit
        return 0
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        bug = f"{type(error).__name__} at {os.path.basename(frame.filename)}:{frame.lineno}: {error}"
        return _fail(f"omni-bridge: internal error: {_line(bug)}; please report it", 70)


def _line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _fail(text: str, code: int) -> int:
    with contextlib.suppress(OSError):  # stderr may be closed
        click.echo(text, err=True)
    return code
