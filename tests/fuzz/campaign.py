"""Lines that nobody in his right mind sends, by the thousand, to the real process.

    .venv-dev/bin/python -m tests.fuzz.campaign --lines 1000000 --seed 7       longer, by hand

Owns the mutations and what must hold of the answers: as many for each legible id as requests had it, nothing but messages on
standard output, and life goes on. Refuses to know what an answer says. A line that breaks a rule is printed as hostile.txt has it.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz import strict_json
from tests.support.worker import Worker, wait_until

HERE = Path(__file__).parent
MAX_ID = 1024  # characters or digits of an id, rule RPC-4
MAX_BATCH = 1000  # members of a batch, rule BND-4
CHUNK = 200  # lines after which all must have a response
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 0.5, 1e308, -0.0, "", "x", "\x00", "\ud800", "é☃🦜", "x" * 5000),
    *(
        [],
        {},
        [[]],
        [None],
        {"": None},
        {"type": "text"},
        {"role": "user"},
        {"a": {"b": {"c": []}}},
        "offline/echo",
        "offline/tools",
    ),
    *("../x", "https://127.0.0.1/", "data:,", "os.environ/HOME", "__proto__", "constructor", "1", 1.0, "notifications/cancelled"),
]
NAMES = [
    "api_base",
    "id",
    "jsonrpc",
    "method",
    "params",
    "model",
    "messages",
    "tools",
    "stream",
    "deadlines",
    "type",
    "role",
    "",
    "\x00",
]


class Found(AssertionError):
    """A rule that was broken, with the lines that did it."""


def valid() -> list[Any]:
    return [json.loads(line) for line in (HERE / "valid.jsonl").read_text(encoding="utf-8").splitlines()]


def hostile() -> list[bytes]:
    rows = (HERE / "hostile.txt").read_text(encoding="utf-8").splitlines()
    return [_evaluate(ast.parse(row, mode="eval").body) for row in rows if not row.startswith("#")]


def _evaluate(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    assert isinstance(node, ast.BinOp)
    left, right = _evaluate(node.left), _evaluate(node.right)
    return left * right if isinstance(node.op, ast.Mult) else left + right


def lines(seed: int) -> Iterator[bytes]:
    """Without end; the same for the same seed."""
    rng = random.Random(seed)
    messages, bad = valid(), hostile()
    for number in range(1_000_000_000):
        kind = rng.random()
        if kind < 0.1:
            yield rng.choice(bad)
            continue
        message = _with_new_ids(rng.choice(messages), number)
        if kind < 0.65:
            for _ in range(rng.randint(1, 4)):
                message = _mutated(message, rng)
        line = json.dumps(message, ensure_ascii=rng.random() < 0.5).encode("utf-8", "backslashreplace")
        yield _torn(line, rng, bad) if kind > 0.8 else line


def _with_new_ids(message: Any, number: int) -> Any:
    if isinstance(message, list):
        return [_with_new_ids(member, number * 10 + position) for position, member in enumerate(message)]
    return message | {"id": number * 10} if "id" in message else message


def _mutated(value: Any, rng: random.Random) -> Any:
    """With a value somewhere in it replaced, removed, added or renamed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(VALUES)
    if isinstance(value, list):
        position = rng.randrange(len(value))
        change = [_mutated(value[position], rng)] * rng.choice([1, 1, 1, 0, 2])
        return value[:position] + change + value[position + 1 :]
    name = rng.choice(list(value))
    match rng.randrange(8):
        case 0:
            return {key: member for key, member in value.items() if key != name}
        case 1:
            return value | {rng.choice(NAMES): rng.choice(VALUES)}
        case 2:
            return {(rng.choice(NAMES) if key == name else key): member for key, member in value.items()}
        case _:
            return value | {name: _mutated(value[name], rng)}


def _torn(line: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Bytes changed, taken out, put in, doubled; or the half of another line behind it."""
    data = bytearray(line)
    for _ in range(rng.randint(1, 5)):
        at, length = rng.randrange(len(data) + 1), rng.randint(1, 8)
        match rng.randrange(4):
            case 0:
                data[at : at + length] = rng.randbytes(length)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = rng.choice(
                    [b'"', b"{", b"[", b"\\u", b"\\", b"\x00", b"\xff", b",", b":", b"e9", b"\r", data[at : at + 9]]
                )
            case _:
                data[at:] = rng.choice(others)[:500]
    return bytes(data).replace(b"\n", b"").replace(b"shutdown", b"")


def owed(line: bytes) -> Counter[Any]:
    """How many answers each legible id is to get: read here by other means than the bridge's."""
    try:
        value = strict_json.decode(line)
    except (ValueError, RecursionError):
        return Counter()
    members = value if isinstance(value, list) else [value]
    if len(members) > MAX_BATCH:
        return Counter()  # one error with a null id
    return Counter((type(m["id"]), m["id"]) for m in members if isinstance(m, dict) and _needs_response(m))


def _needs_response(message: dict[str, Any]) -> bool:
    is_response = message.get("jsonrpc") == "2.0" and "method" not in message and ("result" in message or "error" in message)
    id = message.get("id")
    is_too_long = type(id) in (int, str) and len(str(id).lstrip("-")) > MAX_ID
    return type(id) in (int, str) and not is_too_long and not is_response


def check(worker: Worker, sent: list[bytes]) -> None:
    """Sends them all, waits for all answers, and raises `Found`. ``CHUNK`` lines at most, for each is looked at."""
    worker.received.clear()
    sentinel = f"sentinel-{time.monotonic_ns()}"
    due = sum((owed(line) for line in sent), Counter[Any]()) + Counter({(str, sentinel): 1})
    worker.write(b"\n".join(sent) + b"\n")
    worker.request("ping", id=sentinel)
    try:
        wait_until(lambda: worker.ended or sum(response_counts(worker).values()) >= sum(due.values()), "all answers")
        got = response_counts(worker)
    except AssertionError:
        got = response_counts(worker)
    if worker.ended or got != due:
        raise Found(
            f"owed and not given: {due - got}; given and not owed: {got - due}; ended: {worker.ended}\n{worker.stderr[-2000:]}"
        )
    for message in worker.received:
        for one in message if isinstance(message, list) else [message]:
            if one.get("jsonrpc") != "2.0" or not ("method" in one or (("result" in one) != ("error" in one))):
                raise Found(f"not a message: {one}")
            if "error" in one and one["error"]["data"]["kind"] == "internal":
                raise Found(f"the bridge broke: {one}\n{worker.stderr[-2000:]}")


def response_counts(worker: Worker) -> Counter[Any]:
    singles = [one for message in worker.received for one in (message if isinstance(message, list) else [message])]
    return Counter((type(m["id"]), m["id"]) for m in singles if "method" not in m and m["id"] is not None)


def smallest(start: Any, sent: list[bytes]) -> list[bytes]:
    """The least of ``sent`` with which a fresh worker breaks the rule too."""
    for size in (len(sent) // 2, len(sent) // 8, 1):
        pieces = [sent[at : at + max(1, size)] for at in range(0, len(sent), max(1, size))]
        for piece in pieces:
            with start() as worker:
                try:
                    check(worker, piece)
                except Found:
                    sent = piece
                    break
    return sent


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    made = lines(options.seed)
    began = time.monotonic()
    with start_worker() as worker:
        for done in range(0, options.lines, CHUNK):
            sent = [next(made) for _ in range(CHUNK)]
            try:
                check(worker, sent)
            except Found as found:
                print(f"seed {options.seed}, line {done}: {found}")
                print(*smallest(start_worker, sent)[:3], sep="\n")
                return 1
    print(f"{options.lines} lines of seed {options.seed} in {time.monotonic() - began:.0f} s: every rule holds")
    return 0


def start_worker() -> Worker:
    """Whose ``openai/`` models refuse the connection."""
    return Worker("--max-in-flight=100000", env={"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"})


if __name__ == "__main__":
    sys.exit(main())
