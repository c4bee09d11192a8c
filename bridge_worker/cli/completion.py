"""``omni-bridge completion``: prints click's script with which a shell completes commands, flags and models.

Owns the printing. Refuses to write into the user's shell files.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_HOW = """\b
Write it to a file that the shell reads:
  bash  omni-bridge completion bash >~/.local/share/bash-completion/completions/omni-bridge
  zsh   omni-bridge completion zsh >~/.zfunc/_omni-bridge       with ~/.zfunc in fpath
  fish  omni-bridge completion fish >~/.config/fish/completions/omni-bridge.fish
"""


@click.command(epilog=_HOW)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands, flags and model names."""
    script = get_completion_class(shell)
    assert script  # noqa: S101  # the choices are click's own
    root = context.find_root()
    click.echo(script(root.command, {}, "omni-bridge", "_OMNI_BRIDGE_COMPLETE").source())
