"""Serves one gateway file with LiteLLM's own proxy and with the worker, sends both the same requests, and says where they differ.

Owns the comparison: which names are requested, and what of a request and its response is compared (the provider's host and path,
the key, the body, the order of calls, the content, the price, that it failed). Every host of the file is replaced by one recording
stand-in, and so is the environment. Refuses to judge: a difference is a line. `bin/try-config FILE...` runs it.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from tests.support import litellm_proxy, provider_formats
from tests.support.data import Json
from tests.support.forked_proxies import Proxies
from tests.support.provider_formats import Completion, Format
from tests.support.worker import Worker, clean_environment

KEY = "sk-try-config-master-0001"
REPLY = "Grüße"
_REPEATS = 6  # requests for a name with several deployments, of which one is chosen at random
_UNSET = re.compile(r"UNSET|MISSING")  # a reference to such a variable stays without a value

# ---- the stand-in --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A request that arrived at the stand-in. ``host`` and ``path`` are the file's."""

    host: str
    path: str
    key: str
    body: str

    def __str__(self) -> str:
        return f"{self.host}{self.path} {self.key} {self.body}"


_FORMATS: Sequence[tuple[str, type[Format]]] = (
    (r"/chat/completions$", provider_formats.OpenAI),
    (r"/v1/messages$", provider_formats.Anthropic),
    (r":(stream)?[gG]enerateContent$", provider_formats.Gemini),
    (r"/api/chat$", provider_formats.Ollama),
    (r"/converse(-stream)?$", provider_formats.BedrockConverse),
    (r"/v2/chat$", provider_formats.Cohere),
)
_FAILURES = {"down": 503, "limited": 429, "denied": 401, "refused": 400}  # by a word of the model's name


class StandIn:
    """A provider for every format on one port. Anything that is sent there through a proxy setting is refused, and recorded too."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                owner.respond(self)

            def do_GET(self) -> None:
                owner.send(self, 404, {})

            def do_CONNECT(self) -> None:
                owner.record(Call(self.path.removesuffix(":443"), "", "", ""))
                self.send_error(503)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self) -> list[Call]:
        calls, self._calls = self._calls, []
        return calls

    def record(self, call: Call) -> None:
        self._calls.append(call)

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers.get("content-length") or 0)) or b"{}")
        host, _, path = handler.path.lstrip("/").partition("/")
        bare = "/" + path.partition("?")[0]
        credential = next((value for name, value in handler.headers.items() if name.lower() in _CREDENTIALS), "")
        credential = "" if credential == "Bearer none" else credential  # the worker's word for no key
        self.record(Call(host, "/" + _without_key(path), credential, json.dumps(_comparable(body), sort_keys=True)))
        status = next((code for word, code in _FAILURES.items() if word in f"{body.get('model')} {bare}"), 200)
        if bare.endswith("/embeddings"):
            count = len(body["input"]) if isinstance(body["input"], list) else 1
            data = [{"object": "embedding", "index": at, "embedding": [0.5, 0.25]} for at in range(count)]
            self.send(handler, status, {"object": "list", "data": data, "model": body["model"], "usage": _EMBEDDED})
            return
        made = next((kind for pattern, kind in _FORMATS if re.search(pattern, bare)), None)
        if made is None:
            self.send(handler, 404, {"error": {"message": "no such path"}})
        elif status != 200:
            self.send(handler, status, made().error(status, f"it is {status}"))
        elif body.get("stream") or "stream" in bare:
            self._stream(handler, made(), body)
        else:
            self.send(handler, 200, made().whole(Completion(REPLY)) | ({"model": body["model"]} if "model" in body else {}))

    def _stream(self, handler: BaseHTTPRequestHandler, spoken: Format, body: Json) -> None:
        data = b"".join(spoken.events(Completion(REPLY)))
        data = data.replace(b'"served-model"', json.dumps(body.get("model", "served-model")).encode())
        self._write(handler, 200, spoken.stream_type, data)

    def send(self, handler: BaseHTTPRequestHandler, status: int, body: Json) -> None:
        self._write(handler, status, "application/json", json.dumps(body).encode())

    def _write(self, handler: BaseHTTPRequestHandler, status: int, kind: str, data: bytes) -> None:
        handler.send_response(status)
        handler.send_header("content-type", kind)
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


_EMBEDDED = {"prompt_tokens": 8, "total_tokens": 8}
_CREDENTIALS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")


def _without_key(path: str) -> str:
    return re.sub(r"([?&]key=)[^&]+", r"\1...", path)


def _comparable(body: Json) -> Json:
    """Without `"stream": false`, which the worker sends and the proxy leaves out."""
    return {name: value for name, value in body.items() if (name, value) != ("stream", False)}


# ---- the file --------------------------------------------------------------------------------------------------------------------


def prepare(text: str, origin: str) -> tuple[str, dict[str, str]]:
    """The file with the stand-in as every host and without a database, and the environment that it refers to."""
    text = re.sub(r"(?m)^(\s*)(database_url|store_model_in_db|salt_key)\s*:.*$", r"\1# \2", text)
    text = re.sub(r"(?m)\bmaster_key\s*:\s*[^,}\s]+", f"master_key: {KEY}", text)
    text = re.sub(r"""\b((?:api_base|base_url)["']?\s*:\s*["']?)https?://""", rf"\1{origin}/", text)
    environment = dict(provider_formats.environment(f"{origin}/default"))
    for name in sorted(set(re.findall(r"os\.environ/(\w+)", text))):
        if not _UNSET.search(name):
            environment[name] = _value(name, origin)
    for provider in set(re.findall(r"""\bmodel["']?\s*:\s*["']?([a-z0-9_]+)/""", text)):
        environment.setdefault(f"{provider.upper()}_API_BASE", f"{origin}/{provider}/v1")
        environment.setdefault(f"{provider.upper()}_API_KEY", f"sk-of-{provider}-0001")
    environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), origin)
    return text, environment | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "LITELLM_MASTER_KEY": KEY}


def _value(name: str, origin: str) -> str:
    if re.search(r"BASE|URL|ENDPOINT|HOST", name):
        return f"{origin}/{name.lower()}"
    return f"sk-{name.lower()}-0001" if re.search(r"KEY|TOKEN|SECRET|PASS", name) else name.lower()


def names(config: Json) -> dict[str, int]:
    """What is requested, and how often: each model name, alias, id and LiteLLM name, models of wildcards, and an unknown one."""
    wanted: dict[str, int] = {}
    models = [model for model in config.get("model_list") or () if isinstance(model, dict)]
    for model in models:
        params, name = model.get("litellm_params") or {}, str(model.get("model_name"))
        several = sum(str(other.get("model_name")) == name for other in models) > 1
        for one in _instances(name):
            wanted[one] = _REPEATS if several else 1
        if id := (model.get("model_info") or {}).get("id"):
            wanted[str(id)] = 1
        if isinstance(params.get("model"), str) and "*" not in params["model"]:
            wanted.setdefault(params["model"], 1)
    settings = config.get("router_settings")
    aliases = settings.get("model_group_alias") if isinstance(settings, dict) else None
    wanted |= {str(alias): 1 for alias in (aliases if isinstance(aliases, dict) else ())}
    return wanted | {"default": 1, "no-such-model": 1}


def _instances(name: str) -> Iterator[str]:
    if "*" not in name:
        yield name
        return
    yield name.replace("*", "gpt-4o-mini")
    yield "gpt-4o-mini"


# ---- the comparison ------------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What came of the requests for one name: which calls arrived, in the order of each request, and how each ended."""

    attempts: set[tuple[str, ...]] = field(default_factory=set)
    ends: set[str] = field(default_factory=set)


class Comparison:
    """A proxy for each of ``files``, one worker that reads them one after the other, and the stand-in."""

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        self.stand_in = StandIn()
        self._folder = folder
        self._environment: dict[str, str] = {}
        for file in files:
            self._environment |= prepare(file.read_text(encoding="utf-8-sig"), self.stand_in.origin)[1]
        self._config = folder / "worker" / "gateway.yaml"
        self._config.parent.mkdir()
        self._put("omni_bridge: {}\n")
        self._worker = Worker("--config", str(self._config), env=self._environment)
        base = clean_environment() | litellm_proxy.STARTED
        self._proxies = Proxies(litellm_proxy.install() / "python", base, folder / "proxies.log")

    def close(self) -> None:
        self._proxies.__exit__()
        self._worker.close()
        self.stand_in.close()

    def differences(self, file: Path) -> list[str]:
        """A line for each. Files beside ``file`` that it includes or imports are found."""
        text, _ = prepare(file.read_text(encoding="utf-8"), self.stand_in.origin)
        path = self._copy(file, text)
        refused = self._reload()
        try:
            port = self._proxies.start(path, self._environment)
        except RuntimeError as error:
            return [] if refused else [f"the gateway refuses the file and the worker serves it: {error}"]
        if refused:
            return [f"the worker refuses the file and the gateway serves it: {refused}"]
        wanted = names(yaml.safe_load(text) or {})
        return [line for name, count in wanted.items() for line in self._compare(name, count, port)]

    def _copy(self, file: Path, text: str) -> Path:
        """The worker's file and, in the same folder, the proxy's; what they include or import has the file's name."""
        for other in file.parent.glob(f"{file.stem}.*"):
            content = other.read_text(encoding="utf-8")
            target = self._config.parent / other.name
            target.write_text(content if other.suffix == ".py" else prepare(content, self.stand_in.origin)[0])
            target.chmod(0o600)
        self._put(text)
        return self._config

    def _put(self, text: str) -> None:
        self._config.write_text(text, encoding="utf-8")
        self._config.chmod(0o600)

    def _reload(self) -> str:
        """Why the worker refuses the file; empty when it serves it. A start judges in the same way."""
        response = self._worker.call("config/reload")
        return str(response["error"]["message"]) if "error" in response else ""

    def _compare(self, name: str, count: int, port: int) -> Iterator[str]:
        gateway, worker = Seen(), Seen()
        for at in range(count):
            for seen, call in ((gateway, self._call_gateway), (worker, self._call_worker)):
                self.stand_in.take()
                seen.ends.add(call(name, port, stream=at % 2 == 1))
                seen.attempts.add(tuple(map(str, self.stand_in.take())))
        if gateway.attempts != worker.attempts and (count == 1 or not _overlap(gateway.attempts, worker.attempts)):
            yield f"{name}: the gateway sends {_shown(gateway.attempts)}, the worker {_shown(worker.attempts)}"
        if gateway.ends != worker.ends:
            yield f"{name}: the gateway ends with {sorted(gateway.ends)}, the worker with {sorted(worker.ends)}"

    def _call_gateway(self, name: str, port: int, *, stream: bool) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            body: Json = {"model": name, "messages": _MESSAGES} | ({"stream": True} if stream else {})
            if "embed" in name:
                body = {"model": name, "input": ["hello"]}
            headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
            path = "/v1/embeddings" if "embed" in name else "/v1/chat/completions"
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read().decode()
            if response.status != 200:
                return "an error"
            cost = response.getheader("x-litellm-response-cost")
            return f"ok {_content(text, stream=stream)}" + ("" if stream else f" {_cost(cost)}")
        finally:
            connection.close()

    def _call_worker(self, name: str, _: int, *, stream: bool) -> str:
        if "embed" in name:
            response = self._worker.call("embed", {"model": name, "input": "hello"})
        else:
            response = self._worker.call("chat", {"model": name, "messages": _MESSAGES, "stream": stream})
        if "error" in response:
            return "a fault" if response["error"]["code"] == -32603 else "an error"
        result = response["result"]
        return f"ok {result.get('content', '')}" + ("" if stream else f" {_cost(result['cost_usd'])}")


_MESSAGES = [{"role": "user", "content": "hello"}]


def _content(text: str, *, stream: bool) -> str:
    if not stream:
        body = json.loads(text)
        return str(body["choices"][0]["message"]["content"]) if "choices" in body else ""
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event.get("choices", ()))


def _cost(cost: object) -> str:
    """The proxy has 0.0 for what it has no price for, or no header; the worker has null."""
    return f"{float(str(cost)):.9g}" if cost not in (None, "None", "") and float(str(cost)) else "unpriced"


def _overlap(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> bool:
    """Of a choice at random six requests may not show every deployment; a shared one is enough."""
    return bool(one & other)


def _shown(attempts: set[tuple[str, ...]]) -> str:
    return " | ".join(" then ".join(calls) or "nothing" for calls in sorted(attempts))[:600]


def main() -> int:
    files = [Path(name) for name in sys.argv[1:]]
    if not files or not all(file.is_file() for file in files):
        sys.stderr.write("usage: bin/try-config FILE...\n")
        return 2
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(Path(folder), files)
        try:
            for file in files:
                lines = comparison.differences(file.resolve())
                found += len(lines)
                for line in lines or ["no difference"]:
                    sys.stdout.write(f"{os.path.relpath(file)}: {line}\n")
                sys.stdout.flush()
        finally:
            comparison.close()
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
