"""Records which hosts a chat, an embed and a rerank of each provider contact, when only the provider's own key is set.

Owns the recording: a proxy on 127.0.0.1 that refuses each request, and a resolver that records each name and resolves none. Nothing
leaves this machine. `docs/hosts.md` is the reviewed table; `python -m tests.support.provider_hosts --accept` writes it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge_worker.providers.facts import DEFAULT_LOCAL_SERVICES, SERVICE_OF
from tests.support.worker import clean_environment

if TYPE_CHECKING:  # it would read the environment too early
    from bridge_worker.runtime.app import App

Table = dict[str, dict[str, list[str]]]  # provider -> method -> hosts

TABLE = Path(__file__).parents[2] / "docs/hosts.md"
METHODS = ("chat", "embed", "rerank")
_CALL_SECONDS = 20.0
_RUN_SECONDS = 300.0
# Settings without which no request can be formed: they name a region, a project or an account, never a host.
_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "AKIA0123456789ABCDEF",
    "AWS_SECRET_ACCESS_KEY": "key-of-aws",
    "AWS_REGION_NAME": "eu-west-1",
    "CLOUDFLARE_ACCOUNT_ID": "account",
    "SNOWFLAKE_ACCOUNT_ID": "account",
    "VERTEXAI_PROJECT": "project",
    "VERTEXAI_LOCATION": "europe-west1",
    "WATSONX_PROJECT_ID": "project",
}

_MODELS = {"scaledown": "compress"}  # of a provider that refuses every other name before it sends anything

# ---- the recording, in a process of its own ------------------------------------------------------------------------------------


class Recorder:
    """The hosts contacted since the last `take`. ``port`` is where the proxy listens."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._hosts: set[str] = set()
        threading.Thread(target=self._listen, daemon=True).start()
        sys.addaudithook(self._on_event)

    def take(self) -> set[str]:
        taken, self._hosts = self._hosts, set()
        return taken

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The resolver: a name is recorded and not resolved, an address is recorded and not connected to."""
        if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", None):
            self._refuse(f"{arguments[0]}:{arguments[1]}")
        elif event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][1] != self.port:
            self._refuse(f"{arguments[1][0]}:{arguments[1][1]}")

    def _refuse(self, host: str) -> None:
        self._hosts.add(f"{host} (not by the proxy)")
        raise socket.gaierror(socket.EAI_NONAME, "the recording resolver resolves no name")

    def _listen(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._refuse_request, args=(connection,), daemon=True).start()

    def _refuse_request(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and (data := connection.recv(65_536)):
                head += data
            if match := re.match(rb"(?:CONNECT |\w+ (https?)://)([^/\s]+)", head):
                scheme, host = match[1], match[2].decode().removesuffix(":443")
                self._hosts.add(f"{scheme.decode()}://{host}" if scheme else host)
            connection.sendall(b"HTTP/1.1 503 Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def _providers() -> list[str]:
    import litellm

    names = {str(getattr(provider, "value", provider)) for provider in litellm.provider_list}
    return sorted(names - {"local"})  # the bridge's own, which runs on this machine


def _models(provider: str, method: str) -> list[str]:
    """A plain name, one with an owner as model hubs have it, and a model of the provider: the price map's or ours."""
    from bridge_worker.providers import price_map

    mode = {"chat": "chat", "embed": "embedding", "rerank": "rerank"}[method]
    known = [name for name, owner, facts in price_map.rows() if owner == provider and facts["mode"] == mode][:1]
    ours = [f"{provider}/{_MODELS[provider]}"] if provider in _MODELS else []
    return [f"{provider}/x", f"{provider}/owner/name", *known, *ours]


def _keys(provider: str) -> dict[str, str]:
    """The variables of its key, and nothing that names a host."""
    import litellm

    from bridge_worker.providers.key_variables import owner

    named = {re.sub(r"\W", "_", name.upper()) for name in (provider, owner(provider))}
    names = {*(f"{name}_API_KEY" for name in named), *litellm.validate_environment(f"{provider}/x")["missing_keys"]}
    return {name: f"key-of-{provider}" for name in names if not re.search(r"_(BASE|URL|ENDPOINT|HOST)$", name)}


async def _call(app: App, method: str, model: str) -> None:
    """Whatever it ends in: only its traffic matters."""
    from bridge_worker.protocol.session import Start

    params: dict[str, Any] = {
        "chat": {"messages": [{"role": "user", "content": "hello"}]},
        "embed": {"input": ["hello"]},
        "rerank": {"query": "hello", "documents": ["one", "two"]},
    }[method]
    start = Start(1, method, {"model": model, **params})

    async def notify(*_: object) -> None: ...

    async with asyncio.timeout(_CALL_SECONDS):
        await app.dispatch(start, time.monotonic(), notify)


async def _record_all(recorder: Recorder, providers: list[str]) -> Table:
    from bridge_worker.config.source import Config
    from bridge_worker.runtime.app import App
    from bridge_worker.security.redaction import Redactor

    app = App(Config(), Redactor({}))
    app.start()
    await app.ready()
    clean, table = dict(os.environ), Table()
    for provider in providers or _providers():
        os.environ.update(_SETTINGS | _keys(provider))
        table[provider] = {}
        for method in METHODS:
            recorder.take()
            for model in _models(provider, method):
                await _call(app, method, model)
            table[provider][method] = sorted(recorder.take())
        os.environ.clear()
        os.environ.update(clean)
    return table


def _record(providers: list[str]) -> None:
    """Prints the table as JSON. No network but the recorder is reachable from here."""
    recorder = Recorder()
    proxy = f"http://127.0.0.1:{recorder.port}"
    os.environ.update(dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"), proxy))
    table = asyncio.run(_record_all(recorder, providers))
    sys.stdout.write(json.dumps(table) + "\n")


# ---- the table -----------------------------------------------------------------------------------------------------------------


def record(*providers: str) -> Table:
    """Of all providers, or of these. Raises RuntimeError with the recording process's last words."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.provider_hosts", "--record", *providers],
        cwd=Path(__file__).parents[2],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    table: Table = json.loads(done.stdout.splitlines()[-1])
    return table


def lines(table: Table) -> list[str]:
    """The rows of the table in `docs/hosts.md`."""
    return ["| " + " | ".join((provider, *(_cell(row[method]) for method in METHODS))) + " |" for provider, row in table.items()]


def accepted() -> list[str]:
    """The rows that a reviewer has accepted."""
    return [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]


def by_method(table: Table) -> dict[str, str]:
    """``PROVIDER METHOD`` -> its hosts, as `bin/try-litellm` compares them with the accepted ones."""
    return {f"{provider} {method}": ", ".join(row[method]) for provider, row in table.items() for method in METHODS}


METADATA_SERVER = "http://169.254.169.254"  # of Google's cloud: google-auth looks for a token there, and sends nothing else


def forbidden(table: Table) -> Iterator[str]:
    """What can't be accepted, whatever the reviewed table has: OpenAI, a model hub or this machine, of another provider."""
    owners = {r"api\.openai\.com": {"openai", "text-completion-openai"}, r"(.*\.)?(huggingface\.co|hf\.co)": {"huggingface"}}
    for provider, row in table.items():
        for host in (host for hosts in row.values() for host in hosts):
            if host == METADATA_SERVER and provider in ("vertex_ai", "vertex_ai_beta"):
                continue
            local = SERVICE_OF.get(provider, provider) in DEFAULT_LOCAL_SERVICES
            elsewhere = any(re.fullmatch(pattern, host) and provider not in own for pattern, own in owners.items())
            if elsewhere or "not by the proxy" in host or local != host.startswith("http://"):
                yield f"{provider} contacts {host}"


def page(table: Table) -> str:
    """`docs/hosts.md` with these rows."""
    head, _, _ = TABLE.read_text(encoding="utf-8").partition("| provider |")
    rows = "\n".join(lines(table))
    return f"{head}| provider | chat | embed | rerank |\n|---|---|---|---|\n{rows}\n"


def _cell(hosts: list[str]) -> str:
    return ", ".join(f"`{host}`" for host in hosts)


def _accept() -> None:
    TABLE.write_text(page(record()), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", nargs="*", metavar="PROVIDER", help="print the table as JSON")
    parser.add_argument("--accept", action="store_true", help="write docs/hosts.md; review the difference before a commit")
    given = parser.parse_args()
    if given.accept:
        _accept()
    elif given.record is not None:
        _record(given.record)
