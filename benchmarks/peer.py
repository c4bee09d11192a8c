"""The peers that are compared, and one of them running: its processes, its load client, its clocks.

Owns what each peer is started with, and reads processor time and memory where Linux reports them. Refuses to know what is measured.
What is counted is the same for all: from a request handed over to its answer parsed, seen by a client that costs microseconds.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks import formats, setting_up
from benchmarks.setting_up import GENAI, HERE, LOAD, PORTKEY, PROXY, PROXY_PYTHON, PYTHON, UPSTREAM, WORKER, Absent

Json = dict[str, Any]
MODEL, HANGS = "openai/gpt-4o-mini", "openai/gpt-4o"
KEY = "sk-benchmark"
_BEARER = f"authorization: Bearer {KEY}"
IN_PROCESS = str(HERE / "peers/in_process.py")


@dataclass(frozen=True)
class Peer:
    """``server`` gives the command of a peer with a port, ``client`` its load client's; both from (upstream's base URL, port).

    ``set_up`` raises Absent where the peer can't be had.
    """

    name: str
    about: str
    client: Callable[[str, int], Sequence[str]]
    server: Callable[[str, int], Sequence[str]] | None = None
    set_up: Callable[[], None] = lambda: None
    is_extra: bool = False  # measured with --all only


def _port(path: str, *headers: str) -> Callable[[str, int], Sequence[str]]:
    return lambda upstream, port: [LOAD, "http", f"http://127.0.0.1:{port}{path}", *(h.format(upstream) for h in headers)]


def _proxy(upstream: str, port: int) -> Sequence[str]:
    """Any model of the upstream, nothing else: no database, no callbacks, one worker as everywhere here."""
    config = Path(tempfile.mkdtemp(prefix="omni-bridge-bench-")) / "config.yaml"
    params = {"model": "openai/*", "api_base": upstream, "api_key": KEY}
    models = [{"model_name": "*", "litellm_params": params}]
    config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": KEY}}))  # YAML enough
    return [PROXY_PYTHON, PROXY, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]


def config(folder: Path, upstream: str, *, limits: bool) -> tuple[str, ...]:
    """The flags of a worker with a gateway's config: five deployments of one model, a fallback, cooldowns.

    ``limits``: requests and tokens a minute, never reached; LiteLLM's Router must then choose and count each chat.
    """
    params: Json = {"model": "openai/gpt-4o-mini", "api_base": upstream} | (_LIMITS if limits else {})
    models = [{"model_name": MODEL, "litellm_params": params | {"api_key": f"{KEY}-{number}"}} for number in range(5)]
    models.append({"model_name": HANGS, "litellm_params": params | {"model": HANGS, "api_key": KEY}})
    models.append({"model_name": "spare", "litellm_params": params | {"api_key": KEY}})
    router = {"fallbacks": [{MODEL: ["spare"]}], "num_retries": 1, "cooldown_time": 5, "allowed_fails": 1}
    file = folder / ("limits.yaml" if limits else "plain.yaml")
    file.write_text(json.dumps({"model_list": models, "router_settings": router}))  # YAML enough
    return "--config", str(file)


_LIMITS = {"rpm": 10_000_000, "tpm": 1_000_000_000}


def _with_config(*, limits: bool) -> Callable[[str, int], Sequence[str]]:
    def command(upstream: str, _: int) -> Sequence[str]:
        folder = Path(tempfile.mkdtemp(prefix="omni-bridge-bench-"))
        return [LOAD, "pipe", *WORKER, *config(folder, upstream, limits=limits)]

    return command


PLAIN, WORKER_NAME, LANE, FULL, ORDINARY, PROXY_NAME, PORTKEY_NAME, FLOOR = (
    "plain script",
    "omni-bridge",
    "omni-bridge, config",
    "omni-bridge, config with limits",
    "omni-bridge, LiteLLM's own path",
    "LiteLLM proxy",
    "Portkey gateway",
    "upstream",
)
PEERS = (
    Peer(PLAIN, "`litellm.acompletion` in a script of its own", lambda *_: [PYTHON, IN_PROCESS, "litellm"]),
    Peer(WORKER_NAME, "the worker as an agent starts it", lambda *_: [LOAD, "pipe", *WORKER]),
    Peer(LANE, "with five deployments, a fallback and cooldowns: the lane", _with_config(limits=False)),
    Peer(FULL, "the same with limits, so that LiteLLM's Router chooses: full mode", _with_config(limits=True)),
    Peer(
        ORDINARY,
        "the same as omni-bridge where LiteLLM's own path must serve",
        lambda *_: [LOAD, "pipe", *WORKER, "--engine", "litellm"],
        is_extra=True,
    ),
    Peer(PROXY_NAME, "its server, one process", _port("/v1/chat/completions", _BEARER), _proxy, setting_up.proxy_environment),
    Peer(
        "FastAPI bridge",
        "`POST /chat` around litellm, uvicorn",
        _port("/chat"),
        lambda _, port: [PROXY_PYTHON, str(HERE / "peers/fastapi_bridge.py"), str(port)],
        setting_up.proxy_environment,
        is_extra=True,
    ),
    Peer(
        PORTKEY_NAME,
        "npm's `@portkey-ai/gateway`",
        _port("/v1/chat/completions", "x-portkey-provider: openai", "x-portkey-custom-host: {}", _BEARER),
        lambda _, port: ["node", str(PORTKEY), f"--port={port}", "--headless"],
        setting_up.portkey,
    ),
    Peer(
        "genai",
        "a client in Rust, in the agent itself",
        lambda upstream, _: [GENAI, f"{upstream}/"],
        set_up=setting_up.genai,
        is_extra=True,
    ),
    Peer(
        "aiohttp", "a raw HTTP client in Python, which knows no provider", lambda *_: [PYTHON, IN_PROCESS, "aiohttp"], is_extra=True
    ),
    Peer(FLOOR, "the provider's stand-in, asked by the load client itself", _port("/v1/chat/completions")),
)


SETTLE_SECONDS = 10.0
REST_SECONDS = 2.0


class Upstream:
    """The provider's stand-in, running."""

    def __init__(self) -> None:
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            file.write(formats.routes())
            file.flush()
            self.process = subprocess.Popen([UPSTREAM, file.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self.process.stdout
            self.port = int(self.process.stdout.readline())
        self.address = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.address}/v1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def environment(self) -> Mapping[str, str]:
        """What all peers are started with. Nobody fetches a price map: there is no such thing on a machine without a network."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMNI_BRIDGE_", "LITELLM_", "PYTHON"))}
        given = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": self.base_url, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        return kept | given | formats.environment(self.address)


class Running:
    """A peer that has finished a first chat, ``first_chat_s`` after it was started."""

    def __init__(self, peer: Peer, upstream: Upstream) -> None:
        self.peer = peer
        env = dict(upstream.environment())
        port = upstream.port if peer.name == FLOOR else _free_port()
        began = time.perf_counter()
        self._log = tempfile.TemporaryFile()
        self._server: subprocess.Popen[bytes] | None = None
        if peer.server:
            command = peer.server(upstream.base_url, port)
            self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=env)
        self._client = subprocess.Popen(
            peer.client(upstream.base_url, port), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=env
        )
        if self._server:
            threading.Thread(target=self._end_with_server, daemon=True).start()
        ready = self._hear()
        self.first_chat_s = time.perf_counter() - began
        self.chats = 1
        self.pid: int = self._server.pid if self._server else ready["pid"]
        self.settle()

    def settle(self) -> None:
        """Returns when it has been at rest for `REST_SECONDS`: some load more behind their first chat, or once there is no request,
        which is no part of the next chats."""
        deadline = time.monotonic() + SETTLE_SECONDS
        used, since = self._cpu(), time.monotonic()
        while time.monotonic() < min(deadline, since + REST_SECONDS):
            time.sleep(0.2)
            before, used = used, self._cpu()
            if used - before > 0.005:
                since = time.monotonic()

    def messages(self, messages: list[Json]) -> None:
        self._send({"op": "messages", "messages": messages})

    def load(self, *, stream: bool = False, seconds: float = 0.0, count: int = 0, in_flight: int = 1, **more: str) -> Json:
        """The client's figures, with ``cpu_s``: the processor time of the peer's processes meanwhile."""
        before = self._cpu()
        self._send({"op": "load", "stream": stream, "seconds": seconds, "count": count, "in_flight": in_flight, **more})
        load: Json = self._hear()
        self.chats += load["chats"]
        return load | {"cpu_s": self._cpu() - before}

    def cancel(self, count: int) -> list[int]:
        """When so many streams were cancelled: CLOCK_MONOTONIC, ns."""
        self._send({"op": "cancel", "count": count})
        times: list[int] = self._hear()
        return times

    def memory_mib(self) -> float:
        """Proportional: a page that processes share counts once."""
        return sum(_proportional_kib(pid) for pid in self.pids()) / 1024

    def close(self) -> float:
        """Ends it as its user would: a child by the end of its input. Seconds until the child was gone."""
        began = time.perf_counter()
        self._client.communicate()
        took = time.perf_counter() - began
        if self._server:
            self._server.kill()
            self._server.wait()
        self._log.close()
        return took

    def _end_with_server(self) -> None:
        assert self._server
        self._server.wait()
        self._client.kill()

    def _send(self, command: Json) -> None:
        assert self._client.stdin
        self._client.stdin.write(json.dumps(command, ensure_ascii=False).encode() + b"\n")
        self._client.stdin.flush()

    def _hear(self) -> Any:
        assert self._client.stdout
        if not (line := self._client.stdout.readline()):
            if self._server:
                self._server.kill()
            self._log.seek(0)
            raise Absent(f"it ended: {self._log.read().decode(errors='replace')[-800:].strip()}")
        return json.loads(line)

    def pids(self) -> list[int]:
        """The peer's process and whatever it has started."""
        found = [self.pid]
        for pid in found:
            with suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def _cpu(self) -> float:
        return sum(map(processor_seconds, self.pids()))


def processor_seconds(pid: int) -> float:
    """Another process's clock, to the nanosecond: clock_getcpuclockid(3) computes its number just so."""
    with suppress(OSError):  # it has ended since it was listed
        return time.clock_gettime((~pid << 3) | 2)
    return 0.0


def _proportional_kib(pid: int) -> int:
    with suppress(OSError):
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(row for row in rows if row.startswith("Pss:")).split()[1])
    return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
