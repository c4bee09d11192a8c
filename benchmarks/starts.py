"""How long a new worker takes for its first chat: by provider, with and without a gateway's config, by several ways of starting.

    .venv-dev/bin/python -m benchmarks.starts bin/omni-bridge dist/omni-bridge/omni-bridge [--rounds 10]

The plain script and the commands take turns, so that other load of the machine is everybody's. Prints a table for each command:
medians, and the ratio to the plain script, which imports LiteLLM and has no config. CPU is that of all processes of the command.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import formats
from benchmarks.peer import MODEL, Upstream
from benchmarks.setting_up import PYTHON, needed

Json = dict[str, Any]
INITIALIZE: Json = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "omni-bridge/1"}}
MODELS = {"OpenAI": MODEL} | {one.name: one.model for one in formats.FORMATS}
PLAIN = """
import asyncio, sys
import litellm
response = asyncio.run(litellm.acompletion(model=sys.argv[1], messages=[{"role": "user", "content": "hello"}]))
assert response.choices[0].message.content
print('{"id": 2, "result": {}}', flush=True)
"""


class Start(NamedTuple):
    """Seconds from the spawn to each response, and of CPU until the process has ended. A plain script has no `initialize`."""

    initialize: float
    first_chat: float
    cpu: float


def start(command: Sequence[str], requests: Sequence[Json], environment: Mapping[str, str]) -> Start:
    """Sends each request when the one before has its response; the last one is the chat."""
    began = time.perf_counter()
    took = [0.0]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin
        assert process.stdout
        for request in requests:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            while json.loads(line := process.stdout.readline()).get("id") != request["id"]:
                pass
            assert b"result" in line, line
            took.append(time.perf_counter() - began)
        process.stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    initialize, first_chat = took[-2:]
    return Start(initialize, first_chat, usage.ru_utime + usage.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commands", nargs="+")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    needed()
    runs: dict[tuple[str, str], list[Start]] = {}
    with Upstream() as upstream, tempfile.TemporaryDirectory() as folder:
        flags = {"": (), ", config": ("--config", _config(folder))}
        for number in range(options.rounds + 1):
            for key, one in _round(options.commands, flags, upstream.environment()):
                if number:  # the first round brings the files into the page cache
                    runs.setdefault(key, []).append(one)
    for command in options.commands:
        print(_table(command, runs, flags))


def _config(folder: str) -> str:
    """One deployment of each provider, under the name that it has without a config."""
    deployments = [{"model_name": model, "litellm_params": {"model": model}} for model in MODELS.values()]
    file = Path(folder, "config.yaml")
    file.write_text(json.dumps({"model_list": deployments, "router_settings": {"num_retries": 1}}))  # YAML enough
    return str(file)


def _round(
    commands: Sequence[str], flags: Mapping[str, Sequence[str]], environment: Mapping[str, str]
) -> Iterable[tuple[tuple[str, str], Start]]:
    """((provider and kind of config, command), its start); the plain script's command is empty."""
    for provider, model in MODELS.items():
        chat = {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "chat",
            "params": {"model": model, "messages": [{"role": "user", "content": "hello"}]},
        }
        yield (provider, ""), start([PYTHON, "-c", PLAIN, model], [chat], environment)
        for command in commands:
            for suffix, more in flags.items():
                yield (provider + suffix, command), start([command, "--stdio", *more], [INITIALIZE, chat], environment)


def _table(command: str, runs: Mapping[tuple[str, str], list[Start]], flags: Mapping[str, object]) -> str:
    rows = [
        f"\n{command}\n",
        "|  | `initialize`, ms | first chat, ms | x plain script | CPU, ms | x plain script |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for provider in MODELS:
        plain = _median(runs[provider, ""])
        for suffix in flags:
            own = _median(runs[provider + suffix, command])
            rows.append(
                f"| {provider}{suffix} | {own.initialize * 1000:.0f} | {own.first_chat * 1000:.0f} | "
                f"{own.first_chat / plain.first_chat:.2f} | {own.cpu * 1000:.0f} | {own.cpu / plain.cpu:.2f} |"
            )
    return "\n".join(rows)


def _median(starts: Sequence[Start]) -> Start:
    return Start(*map(statistics.median, zip(*starts, strict=True)))


if __name__ == "__main__":
    main()
