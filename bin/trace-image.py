"""Makes docs/trace.png: the page of a trace that a real worker has written, in a real browser.

    .venv-dev/bin/python bin/trace-image.py [FOLDER]     also leaves trace.jsonl and trace.html in FOLDER

The providers are tests/support/upstream.py's stand-in, at paces of real ones; the worker, its trace and the page are as
anybody has them.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the code beside this script, not an installed one

from tests.support.browser import Browser  # noqa: E402
from tests.support.programs import program  # noqa: E402
from tests.support.upstream import DONE, USAGE, Pause, Step, Upstream, chunk  # noqa: E402
from tests.support.worker import COMMAND, Worker  # noqa: E402

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
STORY = "Once there was a river that did not know where it was going, and so it asked every stone that it met on its way. " * 3


def streamed(model: str, wait: float, pace: float, text: str, tokens: int) -> list[Any]:
    """An answer whose first piece takes ``wait`` seconds and each other ``pace``."""
    steps: list[Any | Step] = [Pause(wait)]
    for place, word in enumerate(text.split(" ")):
        steps += [chunk({"content": word + " "}, model=model), Pause(pace * (1 + (place * 7 % 5) / 4))]
    usage = USAGE | {"prompt_tokens": tokens, "completion_tokens": len(text.split()), "total_tokens": tokens + len(text.split())}
    return [*steps, chunk({}, "stop", model), chunk({}, model=model) | {"choices": [], "usage": usage}, DONE]


def record(trace: Path) -> None:
    with Upstream() as upstream:
        for model, wait, pace, tokens in (
            ("gpt-4o-mini", 0.25, 0.012, 310),
            ("gpt-4o", 0.5, 0.02, 840),
            ("gpt-4.1", 0.7, 0.016, 2_400),
        ):
            upstream.script(model, chunks=streamed(f"{model}-2026-01-01", wait, pace, STORY, tokens))
        embedding = {"object": "embedding", "index": 0, "embedding": [0.1] * 64}
        usage = {"prompt_tokens": 6, "total_tokens": 6}
        upstream.script(
            "text-embedding-3-small",
            body={"object": "list", "model": "text-embedding-3-small", "data": [embedding], "usage": usage},
        )
        upstream.script("gpt-4.1-mini", body={"error": {"message": "slow down"}}, status=429, headers={"retry-after": "7"})
        env = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}
        with Worker("--trace", str(trace), env=env) as worker:
            play(worker)


def play(worker: Worker) -> None:
    """Some seconds of two agents at work."""
    worker.call("initialize", {"protocolVersion": "omni-bridge/1", "clientInfo": {"name": "agent", "version": "1"}})
    worker.wait_for(lambda message: isinstance(message, dict) and message.get("method") == "notifications/ready")
    running = [send_chat(worker, "openai/gpt-4o-mini"), send_chat(worker, "openai/gpt-4o")]
    time.sleep(0.3)
    running += [send_chat(worker, "openai/gpt-4.1"), send_chat(worker, "openai/gpt-4o-mini")]
    worker.request("embed", {"model": "openai/text-embedding-3-small", "input": "a river"})
    time.sleep(0.4)
    messages: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
    turn = worker.call("chat", {"model": "offline/tools", "messages": messages, "tools": [WEATHER]})["result"]
    messages += [turn["message"], {"role": "tool", "tool_call_id": turn["tool_calls"][0]["id"], "content": "4 degrees, rain"}]
    worker.call("chat", {"model": "offline/tools", "messages": messages, "tools": [WEATHER]})
    stopped = send_chat(worker, "openai/gpt-4o")
    worker.call("chat", {"model": "openai/gpt-4.1-mini", "messages": messages[:1]})
    running.append(send_chat(worker, "openai/gpt-4o-mini"))
    worker.wait_for_delta(stopped)
    time.sleep(0.4)
    worker.notify("notifications/cancelled", {"requestId": stopped, "reason": "the user pressed Esc"})
    running.append(send_chat(worker, "local/smollm2", max_tokens=30))
    worker.call("chat", {"model": "openai/gpt-4o", "messages": [{"role": "robot"}]})
    time.sleep(0.2)
    running += [send_chat(worker, "openai/gpt-4.1"), send_chat(worker, "openai/gpt-4o-mini")]
    for id in running:
        worker.response(id)
    worker.call("shutdown")
    worker.exit_code()


def send_chat(worker: Worker, model: str, **params: Any) -> int | str:
    return worker.request(
        "chat", {"model": model, "stream": True, "messages": [{"role": "user", "content": "Tell me a story."}], **params}
    )


def main() -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        folder.mkdir(exist_ok=True, parents=True)
        (folder / "trace.jsonl").unlink(missing_ok=True)
        record(folder / "trace.jsonl")
        subprocess.run([*COMMAND, "trace", "trace.jsonl", "--html", "trace.html"], cwd=folder, check=True)
        with Browser(program("chromium")) as browser:
            browser.open(folder / "trace.html", width=1360, height=1000)
            browser.evaluate("open(all.find(asked => asked.outcome === 'cancelled'))")
            browser.screenshot(ROOT / "docs" / "trace.png")
            browser.open(folder / "trace.html", width=1360, height=1000, dark=True)
            browser.screenshot(folder / "dark.png")
            print(browser.problems, browser.requests)
    return 0


if __name__ == "__main__":
    sys.exit(main())
