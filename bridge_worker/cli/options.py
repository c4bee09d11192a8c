"""Options that several commands share, with their shell completion.

Owns the values that a shell can complete. Refuses to wait for LiteLLM: model names come from the price map's file.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def complete_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from bridge_worker.providers import price_map

    names = ["local/smollm2", "offline/echo", *sorted(name for name, _, facts in price_map.rows() if facts["mode"] in _CHAT_MODES)]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


_CHAT_MODES = ("chat", "completion", "responses")

model_option = click.option(
    "-m",
    "--model",
    metavar="NAME",
    envvar="OMNI_BRIDGE_MODEL",
    show_envvar=True,
    shell_complete=complete_model,
    help="LiteLLM's name, provider/model.",
)
