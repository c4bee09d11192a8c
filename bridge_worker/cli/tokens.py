"""``omni-bridge tokens``: counts the tokens of a text. Owns reading and printing; refuses to count, the worker does."""

from __future__ import annotations

import json
import sys

import click

from bridge_worker.cli.chat import piped_text
from bridge_worker.cli.command_error import CONVERT_HINT, CommandError, from_wire_error
from bridge_worker.cli.model_choice import default_model
from bridge_worker.cli.options import model_option
from bridge_worker.cli.terminal import is_terminal, note
from bridge_worker.cli.worker_process import Worker
from bridge_worker.providers.facts import FIRST_MODELS

_DEFAULT = next(iter(FIRST_MODELS.values()))
_EXAMPLES = """\b
Examples:
  omni-bridge tokens README.md
  git diff | omni-bridge tokens -m anthropic/claude-haiku-4-5
  omni-bridge tokens --text "how long is this?"
"""


@click.command(epilog=_EXAMPLES, short_help="Count the tokens of a text.")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--text", help="Count this instead of a file.")
@model_option
@click.option("--config", envvar="OMNI_BRIDGE_CONFIG", metavar="FILE", help="A LiteLLM gateway's config.yaml.")
@click.option("--json", "as_json", is_flag=True, help="Print the count, the tokenizer and whether it is exact, as JSON.")
def tokens(file: str | None, text: str | None, model: str | None, config: str | None, as_json: bool) -> int:
    """Count the tokens of FILE or of the text from a pipe, as the only message of a chat. No provider is called.

    The count includes the few tokens that frame a message.
    """
    content = text if text is not None else _read(file)
    name = model or default_model(config) or _DEFAULT
    messages = [{"role": "user", "content": content}]
    with Worker(config=config) as worker:
        response = worker.call("tokens/count", {"model": name, "messages": messages})
    if "error" in response:
        raise from_wire_error(response["error"])
    count = response["result"]
    click.echo(json.dumps({"model": name, **count}) if as_json else str(count["input_tokens"]))
    note(f"for {name}, {'exact' if count['exact'] else 'an estimate'} with {count['tokenizer']}")
    return 0


def _read(file: str | None) -> str:
    if file in (None, "-"):
        if is_terminal(sys.stdin):
            raise click.UsageError("no text: pass FILE or --text, or pipe text to stdin")
        return piped_text()
    assert file  # noqa: S101  # for mypy
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read()
    except OSError as error:
        raise CommandError(f"{file} can't be read: {error.strerror}", 2) from None
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is not UTF-8 at byte {error.start}", 2, hint=CONVERT_HINT) from None
