"""What the Tab key offers.

Owns the arguments that a shell can complete, and their values. Refuses to wait for LiteLLM: a key press is answered from the price
map's file.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def a_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from bridge_worker.providers import price_map

    names = ["local/smollm2", "offline/echo", *sorted(name for name, _, facts in price_map.rows() if facts["mode"] in _ANSWER)]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


_ANSWER = ("chat", "completion", "responses")

model_option = click.option(
    "-m",
    "--model",
    metavar="NAME",
    envvar="OMNI_BRIDGE_MODEL",
    show_envvar=True,
    shell_complete=a_model,
    help="LiteLLM's name, provider/model.",
)
