"""``omni-bridge chat``: one question and its answer, or a talk.

Owns what the words, the pipe and the flags together ask for. Refuses to know how an answer comes and looks (`conversation`), and
what a person types after another (`repl`). stdout has the answer's text and nothing else.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from bridge_worker.cli.command_error import Problem
from bridge_worker.cli.conversation import Cancelled, Conversation, what_it_took
from bridge_worker.cli.model_choice import LOCAL, found_model, offered_model
from bridge_worker.cli.options import model_option
from bridge_worker.cli.terminal import looked_at, note
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
@click.option("--local", is_flag=True, help=f"Take {LOCAL}, a model on this machine; bin/omni-bridge installs it.")
@click.option("-s", "--system", metavar="TEXT", help="What the model is told before the talk.")
@click.option(
    "--config", envvar="OMNI_BRIDGE_CONFIG", metavar="FILE", help="A LiteLLM gateway's config.yaml; its first model answers."
)
@click.option("-t", "--temperature", type=float, metavar="NUMBER")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="NUMBER", help="The longest answer.")
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

    PROMPT is the question; what is piped in stands below it, or is the question. Without both you talk by turns. Ctrl-C cancels the
    answer that is coming.
    """
    text = _question(" ".join(prompt))
    if text is None and (as_json or not looked_at(sys.stdin, sys.stdout)):
        raise click.UsageError("there is nothing to say: give a PROMPT, or pipe a text in")
    name = model or (LOCAL if local else None) or found_model(config) or offered_model()
    options: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
    given = {option: value for option, value in options.items() if value is not None}
    with Worker(config=config) as worker:
        talk = Conversation(worker, name, system=system, options=given)
        if text is not None:
            return _ask(talk, text, as_json)
        from bridge_worker.cli.repl import take_turns  # readline, which a pipe has no use for

        worker.greet("chat")  # a mistake in the config is told before the first question
        return take_turns(talk)


def _ask(talk: Conversation, text: str, as_json: bool) -> int:
    try:
        result = talk.say(text, quietly=as_json)
    except Cancelled:
        return 130
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
    note(what_it_took(result))
    return 0


def _question(prompt: str) -> str | None:
    """None: there is none, and somebody could be asked for it."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else piped_text()
    return "\n\n".join(part for part in (prompt, piped.rstrip("\n")) if part.strip()) or None


def piped_text() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise Problem(f"what is piped in is not UTF-8 at byte {error.start}; iconv can make it so", 2) from None
