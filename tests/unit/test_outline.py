"""Outlines of long lines: the same JSON with short strings, whatever the chunks it arrives in."""

from __future__ import annotations

import json
import random
import string
from typing import Any

import pytest

from bridge_worker.errors import BridgeError
from bridge_worker.protocol.framing import Fault, Framer, Message
from bridge_worker.protocol.outline import Outline

MEBIBYTE = 1024 * 1024


def outline_of(line: bytes, cuts: list[int]) -> Any:
    outline = Outline()
    for start, end in zip([0, *cuts], [*cuts, len(line)], strict=True):
        outline.feed(line[start:end])
    return json.loads(outline.text())


def some_value(random: random.Random, depth: int = 0) -> Any:
    kind = random.choice("sssnld" if depth < 3 else "ssn")
    if kind == "l":
        return [some_value(random, depth + 1) for _ in range(random.randrange(4))]
    if kind == "d":
        return {f'k{number}"\\': some_value(random, depth + 1) for number in range(random.randrange(4))}
    if kind == "n":
        return random.choice([None, True, 1.5, -3])
    text = "".join(random.choices(string.ascii_letters + '"\\\n é€😀', k=random.choice([0, 3, 30])))
    return text * random.choice([1, 1, 1, 700])


@pytest.mark.parametrize("seed", range(40))
def test_an_outline_has_all_but_the_long_strings(seed: int) -> None:
    source = random.Random(seed)
    value = {"params": [some_value(source) for _ in range(6)], "id": 'last "\\', "method": "chat"}
    line = json.dumps(value, ensure_ascii=seed % 2 == 0).encode()
    cuts = sorted(source.randrange(len(line) + 1) for _ in range(source.choice([0, 1, 5, 40])))
    assert is_outline(outline_of(line, cuts), value)


def is_outline(found: Any, value: Any) -> bool:
    if isinstance(value, dict):
        return found.keys() == value.keys() and all(is_outline(found[name], value[name]) for name in value)
    if isinstance(value, list):
        return len(found) == len(value) and all(map(is_outline, found, value))
    is_long = isinstance(value, str) and len(value.encode()) > 1024
    return (is_long and len(found) == 1100) or bool(found == value and len(str(found)) < 8192)


def test_a_framer_decodes_an_outline_of_a_long_request_only() -> None:
    text = "é" * MEBIBYTE
    framer = Framer(outlines=True)
    request = {"id": 1, "method": "chat", "params": {"model": "openai/one", "messages": [{"content": text}]}}
    whole = {
        "short": {**request, "params": {"messages": [{"content": "hi"}]}},
        "a batch": [request],
        "a response": {"id": 1, "result": text},
        "a request that is compared": {**request, "params": {**request["params"], "idempotency_key": "one"}},
    }
    for value in [request, *whole.values()]:
        line = json.dumps(value, ensure_ascii=False).encode()
        (message,) = [item for at in range(0, len(line) + 1, 100_000) for item in framer.feed((line + b"\n")[at : at + 100_000])]
        assert isinstance(message, Message)
        assert message.line == line
        assert (message.value == value) == (value is not request)
    assert message.value["id"] == 1


@pytest.mark.parametrize("end", [b'"}', b'"', b""])
def test_a_long_line_with_a_fault_outside_of_its_long_strings_is_unreadable(end: bytes) -> None:
    framer = Framer(outlines=True)
    line = b'{"id":1,"method":"chat","params":{"text":"' + b"x" * 2 * MEBIBYTE + end
    (fault,) = framer.feed(line + b"\n")
    assert isinstance(fault, Fault)
    assert isinstance(fault.error, BridgeError)
