"""``omni-bridge chat``: sends one prompt, or starts an interactive chat.

Owns how the prompt is made from arguments, stdin and flags. Refuses to know how a response is shown (`conversation`) and how an
interactive chat reads its lines (`repl`). stdout has the text of the response and nothing else.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from bridge_worker.cli.command_error import CONVERT_HINT, CommandError
from bridge_worker.cli.conversation import Cancelled, Conversation, usage_summary
from bridge_worker.cli.model_choice import LOCAL, default_model, prompt_for_model
from bridge_worker.cli.options import model_option
from bridge_worker.cli.terminal import is_terminal, note
from bridge_worker.cli.worker_process import Worker

_EXAMPLES = """\b
Examples:
  omni-bridge chat "Why is the sky blue?"
  omni-bridge chat -m anthropic/claude-haiku-4-5
  git diff | omni-bridge chat "Write a commit message for this"
  omni-bridge chat --json hello | jq .usage
"""


@click.command(epilog=_EXAMPLES)
@click.argument("prompt", nargs=-1)
@model_option
@click.option("--local", is_flag=True, help=f"Use {LOCAL}, a model on this machine; bin/omni-bridge installs it.")
@click.option("-s", "--system", metavar="TEXT", help="The system prompt.")
@click.option(
    "--config", envvar="OMNI_BRIDGE_CONFIG", metavar="FILE", help="A LiteLLM gateway's config.yaml; its first model is the default."
)
@click.option("-t", "--temperature", type=float, metavar="NUMBER")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="NUMBER", help="The most tokens of the response.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as one line of JSON instead of its text.")
def chat(
    prompt: tuple[str, ...],
    model: str | None,
    local: bool,
    system: str | None,
    config: str | None,
    temperature: float | None,
    max_tokens: int | None,
    as_json: bool,
) -> int:
    """Send a prompt to a model and stream its response.

    Text from a pipe is added below PROMPT, or is the prompt. Without both, an interactive chat starts. Ctrl-C cancels the
    response that is being streamed.
    """
    text = _full_prompt(" ".join(prompt))
    if text is None and (as_json or not is_terminal(sys.stdin, sys.stdout)):
        raise click.UsageError("no prompt: pass PROMPT as an argument or pipe text to stdin")
    name = model or (LOCAL if local else None) or default_model(config) or prompt_for_model()
    options: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
    given = {option: value for option, value in options.items() if value is not None}
    with Worker(config=config) as worker:
        conversation = Conversation(worker, name, system=system, options=given)
        if text is not None:
            return _send(conversation, text, as_json)
        from bridge_worker.cli.repl import run_repl  # loads readline, which only a terminal needs

        worker.initialize("chat")  # reports an error of the config before the first prompt
        return run_repl(conversation)


def _send(conversation: Conversation, text: str, as_json: bool) -> int:
    try:
        result = conversation.send(text, quietly=as_json)
    except Cancelled:
        return 130
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
    note(usage_summary(result))
    return 0


def _full_prompt(prompt: str) -> str | None:
    """The argument and the text from the pipe; None when both are empty."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else piped_text()
    return "\n\n".join(part for part in (prompt, piped.rstrip("\n")) if part.strip()) or None


def piped_text() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise CommandError(f"the text from the pipe is not UTF-8 at byte {error.start}", 2, hint=CONVERT_HINT) from None
