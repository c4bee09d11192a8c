"""``omni-bridge demo``: shows the protocol at work to a first-time user.

Owns a script of requests and the text between them. It is an ordinary client: it starts a real worker and shows the real lines.
Refuses to be imported by the serving process.
"""

from __future__ import annotations

import click

from bridge_worker.cli.transcript_view import Screen
from bridge_worker.cli.worker_process import Json, Worker
from bridge_worker.config.local_models import DEFAULT, PREFIX, packaged_file
from bridge_worker.providers.facts import EXAMPLE_MODEL
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
    with Worker("--local", watch=show.line) as worker:
        _play(worker, show, PREFIX + DEFAULT if packaged_file() else "offline/echo")


def _play(worker: Worker, show: Screen, model: str) -> None:
    show.title(f"omni-bridge {__version__}: lines of JSON-RPC over a child's pipe.   --> to the worker   <-- from it   times in ms")

    show.title("1. The handshake. It is optional; its response has the limits.")
    worker.initialize("demo")

    if model.startswith(PREFIX):
        show.title(f"2. A streamed chat. {model} is a real language model, on this machine: no key, no network, no port.")
    else:
        show.title("2. A streamed chat. llama.cpp is not installed, so this is offline/echo; bin/omni-bridge demo installs it.")
    question = [{"role": "user", "content": "In one short sentence: why is the sky blue?"}]
    result = worker.call("chat", {"model": model, "stream": True, "max_tokens": 40, "temperature": 0, "messages": question})
    show.text(f"The response: {' '.join(result['result']['content'].split())}")

    show.title("3. A tool call: the model requests it, the agent runs it, the model continues. The model here is offline/tools.")
    messages: list[Json] = [{"role": "user", "content": "What is the weather in Oslo?"}]
    turn = worker.call("chat", {"model": "offline/tools", "messages": messages, "tools": [_WEATHER]})["result"]
    call = turn["tool_calls"][0]
    show.text(f"The agent runs {call['function']['name']}({call['function']['arguments']}) itself, and appends the result.")
    messages += [turn["message"], {"role": "tool", "tool_call_id": call["id"], "content": "4 degrees, rain"}]
    worker.call("chat", {"model": "offline/tools", "messages": messages, "tools": [_WEATHER]})

    show.title("4. A cancel: the model stops, and the request gets its one response, with the content received so far.")
    story = [{"role": "user", "content": "Write a very long story."}]
    pending = worker.request("chat", {"model": model, "stream": True, "messages": story})
    next(pending, None)
    data = pending.cancel().get("error", {}).get("data", {})
    show.text(f"upstream_closed: {data.get('upstream_closed')}; received so far: {data.get('partial', {}).get('content')!r}")

    show.title("5. An error: its kind for a program, whether a retry can help, and a sentence for the user.")
    error = worker.call("chat", {"model": "unknown-provider/model", "messages": question})["error"]
    show.text(f"{error['data']['kind']}, retryable: {error['data']['retryable']}; {error['message']}")

    show.title("6. The shutdown. Requests in flight are finished first.")
    worker.call("shutdown", {})
    show.title("Next steps")
    for line in _NEXT:
        show.text(line)


_NEXT = (
    "chat with it   bin/omni-bridge chat -m local/smollm2   interactive; with a prompt as argument, one response",
    f"your own key   export OPENAI_API_KEY=...   then bin/omni-bridge chat -m {EXAMPLE_MODEL}",
    'one line       echo \'{"jsonrpc":"2.0","id":1,"method":"chat","params":{"model":"local/smollm2","messages":'
    '[{"role":"user","content":"hello"}]}}\' | bin/omni-bridge --stdio',
    "your gateway   bin/omni-bridge --stdio --config config.yaml   with a LiteLLM gateway's file",
    "from Rust      README.md has the code; protocol.md is the whole contract",
)
