"""``omni-bridge demo``: the protocol at work, for whoever sees it for the first time.

Owns a script of requests, and how the lines that go over the pipe are shown. It is a client like any other: the worker it starts is
the real one, and nothing shown is made up. Refuses to be imported by what serves.
"""

from __future__ import annotations

import click

from bridge_worker.cli.model_choice import EXAMPLE
from bridge_worker.cli.transcript_view import Screen
from bridge_worker.cli.worker_process import Json, Worker
from bridge_worker.config.local_models import DEFAULT, PREFIX, packaged_file
from bridge_worker.version import __version__

_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"],
        },
    },
}


@click.command()
def demo() -> None:
    """Show the protocol at work, with a model on this machine."""
    show = Screen()
    with Worker("--local", watch=show.line) as talk:
        _play(talk, show, PREFIX + DEFAULT if packaged_file() else "offline/echo")


def _play(talk: Worker, show: Screen, model: str) -> None:
    show.title(f"omni-bridge {__version__}: lines of JSON-RPC over a child's pipe.   --> to the worker   <-- from it   times in ms")

    show.title("1. A handshake. It is optional; an agent learns the limits by it.")
    talk.greet("demo")

    if model.startswith(PREFIX):
        show.title(f"2. A streamed chat. {model} is a real language model, on this machine: no key, no network, no port.")
    else:
        show.title("2. A streamed chat. llama.cpp is not installed, so offline/echo answers; bin/omni-bridge demo installs it.")
    question = [{"role": "user", "content": "In one short sentence: why is the sky blue?"}]
    result = talk.call("chat", {"model": model, "stream": True, "max_tokens": 40, "temperature": 0, "messages": question})
    show.text(f"The answer: {' '.join(result['result']['content'].split())}")

    show.title("3. An agent's turn: the model calls a tool, the agent runs it, the model answers. Here offline/tools plays it.")
    messages: list[Json] = [{"role": "user", "content": "What is the weather in Oslo?"}]
    turn = talk.call("chat", {"model": "offline/tools", "messages": messages, "tools": [_WEATHER]})["result"]
    call = turn["tool_calls"][0]
    show.text(f"The agent runs {call['function']['name']}({call['function']['arguments']}) itself, and appends the result.")
    messages += [turn["message"], {"role": "tool", "tool_call_id": call["id"], "content": "4 degrees, rain"}]
    talk.call("chat", {"model": "offline/tools", "messages": messages, "tools": [_WEATHER]})

    show.title("4. A cancel: the model is stopped at once, and the request still gets its one answer, with what had come.")
    story = [{"role": "user", "content": "Tell me a very long story."}]
    told = talk.request("chat", {"model": model, "stream": True, "messages": story})
    next(told, None)
    data = told.cancel().get("error", {}).get("data", {})
    show.text(f"Stopped, upstream_closed: {data.get('upstream_closed')}; what had come: {data.get('partial', {}).get('content')!r}")

    show.title("5. An error: a kind to decide by, whether to try again, and a sentence for a person.")
    error = talk.call("chat", {"model": "nobody/knows-me", "messages": question})["error"]
    show.text(f"{error['data']['kind']}, retryable: {error['data']['retryable']}; {error['message']}")

    show.title("6. The end. In-flight requests are finished first.")
    talk.call("shutdown", {})
    show.title("What to try next")
    for line in _NEXT:
        show.text(line)


_NEXT = (
    "ask it         bin/omni-bridge chat -m local/smollm2   is a talk by turns; with a question behind it, one answer",
    f"your own key   export OPENAI_API_KEY=...   then bin/omni-bridge chat -m {EXAMPLE}",
    'one line       echo \'{"jsonrpc":"2.0","id":1,"method":"chat","params":{"model":"local/smollm2","messages":'
    '[{"role":"user","content":"hello"}]}}\' | bin/omni-bridge --stdio',
    "your gateway   bin/omni-bridge --stdio --config config.yaml   with a LiteLLM gateway's file",
    "from Rust      the README shows it; protocol.md is the whole contract",
)
