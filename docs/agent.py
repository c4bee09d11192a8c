"""A small agent: a tool, a stream, and a run that repeats.

    python docs/agent.py openai/gpt-4o-mini --record run.cassette     # once, with a key
    python docs/agent.py openai/gpt-4o-mini --replay run.cassette     # anywhere, without key, network and LiteLLM

It needs the standard library and omni-bridge on PATH. Flags after the model go to the worker.
"""

import json
import subprocess
import sys

TOOL = {
    "type": "function",
    "function": {"name": "square", "parameters": {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}},
}


class Bridge:
    """The worker, and one request at a time."""

    def __init__(self, *flags):
        self.process = subprocess.Popen(["omni-bridge", "--stdio", *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.requests = 0

    def chat(self, **params):
        """Prints the deltas, and returns the result."""
        self.requests += 1
        request = {"jsonrpc": "2.0", "id": self.requests, "method": "chat", "params": params}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            message = json.loads(line)
            if message.get("method") == "notifications/chat/delta":
                print(json.dumps(message["params"]["delta"], ensure_ascii=False))
            elif message.get("id") == self.requests:
                if "error" in message:
                    raise SystemExit(f"{message['error']['code']} {message['error']['message']}")
                return message["result"]
        raise SystemExit("the worker has ended")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def run(model, *flags):
    bridge = Bridge(*flags)
    messages = [{"role": "user", "content": "What is the square of 12?"}]
    while True:
        result = bridge.chat(model=model, messages=messages, tools=[TOOL], stream=True)
        messages.append(result["message"])
        if not result["tool_calls"]:
            break
        for call in result["tool_calls"]:
            n = json.loads(call["function"]["arguments"])["n"]
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": str(n * n)})
    print(result["content"], result["finish_reason"], result["usage"], result["cost_usd"])
    bridge.close()


if __name__ == "__main__":
    run(*sys.argv[1:])
