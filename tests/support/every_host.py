"""All hosts of all providers on 127.0.0.1: a proxy that ends TLS itself, with certificates of its own authority.

Owns the certificates (made by the program openssl), the proxy and the keys of all providers. One reply serves whatever host is
called. Nothing leaves this machine. Refuses to know the wire formats: a reply is bytes.

    with EveryHost(folder) as hosts, Worker(env=hosts.environment()) as worker:
        hosts.reply = lambda host: http_reply(b"[]")
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from tests.support import provider_hosts

ELSEWHERE = "elsewhere.example"
KEY = "sk-0123456789abcdef"
_READ_SECONDS = 60.0
# Beside the keys: where a provider has no host of its own, or a token is fetched before the call.
_SETTINGS = provider_hosts._SETTINGS | {
    "AZURE_API_BASE": "https://account.azure.example",
    "AZURE_API_VERSION": "2024-10-21",
    "AZURE_AI_API_BASE": "https://account.azure-ai.example",
    "DATABRICKS_API_BASE": "https://account.databricks.example/serving-endpoints",
    "DATABRICKS_CLIENT_ID": "client",
    "DATABRICKS_CLIENT_SECRET": KEY,
    "AIOHTTP_OPENAI_API_BASE": "https://aiohttp.example/v1/chat/completions",
    "CUSTOM_OPENAI_API_BASE": "https://custom.example/v1",
    "HOSTED_VLLM_API_BASE": "https://vllm.example/v1",
    "LITELLM_PROXY_API_BASE": "https://proxy.example",
    "LM_STUDIO_API_BASE": "https://studio.example/v1",
    "XINFERENCE_API_BASE": "https://xinference.example/v1",
}


class Received(NamedTuple):
    """``text`` is the request as it came, headers and body."""

    host: str
    text: str


def http_reply(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    named = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    return f"HTTP/1.1 {status}\r\n".encode() + b"".join(f"{n}: {v}\r\n".encode() for n, v in named.items()) + b"\r\n" + body


class EveryHost:
    """``reply`` makes the bytes for a request to a host; None is silence until `release`. Set it between two calls."""

    def __init__(self, folder: Path) -> None:
        self.reply: Callable[[str], bytes | None] = lambda host: http_reply(b"{}")
        self.received: list[Received] = []
        self._authority, self._certificate = _certificates(folder)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self._certificate)
        self._silent = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.release()

    def release(self) -> None:
        """Closes the connections that got no reply."""
        self._silent.set()
        self._silent = threading.Event()

    def environment(self, providers: list[str]) -> Mapping[str, str]:
        """With the key of each provider, and with this proxy and its authority."""
        keys = {re.sub(r"\W", "_", f"{provider}_API_KEY").upper(): KEY for provider in providers}
        del keys["DATABRICKS_API_KEY"]  # its token is fetched instead, by another HTTP client
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), f"http://127.0.0.1:{self.port}")
        trusted = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"), str(self._authority))
        return keys | _SETTINGS | proxies | trusted

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_READ_SECONDS)
            request = _read_request(connection)
            if request.startswith("CONNECT "):
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                host = request.split(" ", 2)[1].removesuffix(":443")
                with self._context.wrap_socket(connection, server_side=True) as inner:
                    self._respond(inner, host, _read_request(inner))
            elif match := re.match(r"\w+ http://([^/\s]+)", request):
                self._respond(connection, match[1], request)

    def _respond(self, connection: socket.socket, host: str, request: str) -> None:
        self.received.append(Received(host, request))
        if (reply := self.reply(host)) is None:
            self._silent.wait()
        else:
            connection.sendall(reply)


def _read_request(connection: socket.socket) -> str:
    data = b""
    while b"\r\n\r\n" not in data and (more := connection.recv(65_536)):
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while length and len(body) < int(length[1]) and (more := connection.recv(65_536)):
        body += more
    return (head + b"\r\n\r\n" + body).decode("utf-8", "replace")


def _certificates(folder: Path) -> tuple[Path, Path]:
    """(the authority, a certificate with its key) for each host that a provider contacts, by the reviewed table."""
    names = {re.sub(r"https?://|:\d+", "", host) for line in provider_hosts.accepted() for host in re.findall(r"`([^`]+)`", line)}
    names |= {match[1] for value in _SETTINGS.values() if (match := re.match(r"https://([^/]+)", value))} | {ELSEWHERE}
    hosts = ",".join(f"DNS:{name}" for name in sorted(names) if re.fullmatch(r"[\w.-]+", name) and len(name) < 250)
    authority, certificate = folder / "authority.pem", folder / "certificate.pem"
    _openssl("req", "-x509", "-subj", "/CN=tests", *_new_key(folder / "authority.key"), "-out", str(authority))
    signed = ["-CA", str(authority), "-CAkey", str(folder / "authority.key")]
    extensions = ["-addext", f"subjectAltName={hosts}", "-addext", "basicConstraints=critical,CA:FALSE"]
    key = folder / "certificate.key"
    _openssl("req", "-x509", "-subj", "/CN=hosts", *_new_key(key), *signed, *extensions, "-out", str(certificate))
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    return authority, certificate


def _new_key(path: Path) -> list[str]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path), "-days", "2"]


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"these tests need the program openssl, version 3: {done.stderr[-1000:]}"
