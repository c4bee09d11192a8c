"""``omni-bridge demo``: what it prints is a real conversation, line by line."""

from __future__ import annotations

import json
import re

from tests.support.worker import run

_LINE = re.compile(r"^ *(?P<ms>\d+\.\d) (?P<arrow>-->|<--) (?P<message>\{.*\})$", re.M)


def test_the_demo_shows_every_line_with_its_time_and_direction() -> None:
    code, out, err = run("demo")
    assert code == 0, err
    assert "\x1b" not in out  # stdout is not a terminal
    lines = [(found["arrow"], json.loads(found["message"]), float(found["ms"])) for found in _LINE.finditer(out)]
    assert [ms for _, _, ms in lines] == sorted(ms for _, _, ms in lines)
    sent = [message for arrow, message, _ in lines if arrow == "-->"]
    received = [message for arrow, message, _ in lines if arrow == "<--"]
    requested = [message["id"] for message in sent if "id" in message]
    assert [message["id"] for message in received if "id" in message] == requested  # each has one response
    responses = {message["id"]: message for message in received if "id" in message}
    chats = {message["id"]: message["params"] for message in sent if message["method"] == "chat"}
    local_id = next(id for id, params in chats.items() if params["model"] == "local/smollm2")
    deltas = [m["params"]["delta"]["content"] for m in received if m.get("params", {}).get("requestId") == local_id]
    assert len(deltas) > 5
    assert "".join(deltas) == responses[local_id]["result"]["content"]
    outcomes = [
        responses[id]["error"]["data"]["kind"] if "error" in responses[id] else responses[id]["result"]["finish_reason"]
        for id in chats
    ]
    assert outcomes == [responses[local_id]["result"]["finish_reason"], "tool_calls", "stop", "cancelled", "model_not_found"]
    assert "Next steps" in out
    assert err == ""
