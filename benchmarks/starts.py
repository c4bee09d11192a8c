"""How long a start takes, by several ways of starting: from the spawn to `initialize`, to the first chat through LiteLLM, in CPU.

    .venv-dev/bin/python -m benchmarks.starts bin/omni-bridge dist/omni-bridge/omni-bridge [--rounds 10]

The ways take turns, so that whatever else the machine does is everybody's. Prints each figure's minimum and median.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time

from tests.support.upstream import Upstream
from tests.support.worker import clean_environment

INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "omni-bridge/1"}}
CHAT = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "chat",
    "params": {"model": "openai/x", "messages": [{"role": "user", "content": "hello"}]},
}


def start(command: str, upstream: str) -> dict[str, float]:
    began = time.perf_counter()
    environment = clean_environment() | {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream}
    with subprocess.Popen([command, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin
        assert process.stdout
        took = {}
        for name, message in (("initialize", INITIALIZE), ("first chat", CHAT)):
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            while json.loads(line := process.stdout.readline()).get("id") != message["id"]:
                pass
            assert b"result" in line, line
            took[name] = time.perf_counter() - began
        process.stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return took | {"CPU": usage.ru_utime + usage.ru_stime}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commands", nargs="+")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with Upstream() as upstream:
        for command in options.commands:
            start(command, upstream.base_url)  # the files are in the page cache from here on
        runs = [{command: start(command, upstream.base_url) for command in options.commands} for _ in range(options.rounds)]
    for command in options.commands:
        figures = {name: [run[command][name] * 1000 for run in runs] for name in runs[0][command]}
        shown = (f"{name} {min(each):.0f} / {statistics.median(each):.0f} ms" for name, each in figures.items())
        print(f"{command}: {', '.join(shown)}")


if __name__ == "__main__":
    main()
