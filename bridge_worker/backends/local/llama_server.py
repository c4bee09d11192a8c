"""The child process in which llama.cpp runs: ``python -m bridge_worker.backends.local.llama_server``, one for each model.

Owns llama.cpp: nothing else imports xllamacpp. Refuses to know the bridge's shapes: the server's output passes through.
Exchanges lines of JSON with its parent, `llama_process`, on its standard input and output:

    in    {"file": ..., "context_tokens": ..., ...}                  first, once: what to load
          {"id": 1, "work": "chat" | "count" | "embed", "body": {}}   several at a time
          {"cancel": 1}
    out   {"loaded": {}} or {"failed": "why"}                        once
          {"id": 1, "chunk": {}}                                     from llama.cpp's server, in OpenAI's shape
          {"id": 1, "end": true}                                     always the last of an id, also of a cancelled one

A separate process, because llama.cpp fails as native code does (a broken file, no memory, an assertion: the process exits), and
because its memory is released when it ends. The speed is the same. It never outlives its parent: the end of standard input, or of
the parent, ends it immediately. It opens no port: llama.cpp's server requires a listener, which is a socket in the private folder
that the process runs in; tokens are counted over that socket.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from bridge_worker.system.process_watch import watch_parent

_SOCKET = "engine.sock"  # relative to the working directory: a socket's path may have 107 characters only
_BATCH = 128  # tokens of a prompt between two checks for a cancel
_COUNTERS = 2  # threads that count tokens, besides those that generate


def main() -> NoReturn:
    out = os.dup(1)
    os.dup2(2, 1)  # for what native code prints
    watch_parent(_leave)
    settings = json.loads(sys.stdin.buffer.readline() or b"null")
    if settings is None:
        _leave()
    server = _Server(settings["slots"], out)
    reader = threading.Thread(target=_read, args=(server,))
    reader.start()  # during the loading, so that the end of the input is detected there too
    server.load(settings)
    reader.join()
    _leave()


def _read(server: _Server) -> None:
    for line in sys.stdin.buffer:
        server.take(json.loads(line))
    _leave()


def _leave() -> NoReturn:
    """Exits without llama.cpp's clean-up, which would wait for its computation."""
    shutil.rmtree(os.getcwd(), ignore_errors=True)
    os._exit(0)


class _Server:
    def __init__(self, slots: int, out: int) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._cancelled: set[int] = set()
        self._working: dict[int, Future[None]] = {}
        generators = ThreadPoolExecutor(slots)
        self._pools = {"chat": generators, "embed": generators, "count": ThreadPoolExecutor(_COUNTERS)}
        self._server: Future[Any] = Future()

    def load(self, settings: Mapping[str, Any]) -> None:
        try:
            server = _load(settings)
            self._send({"loaded": _facts()})
            self._server.set_result(server)
        except BaseException as error:
            self._send({"failed": str(error)})
            with suppress(AttributeError, OSError, TypeError):  # Windows
                ctypes.CDLL(None).exit(1)  # libc's exit flushes llama.cpp's log, which has the reason
            os._exit(1)

    def take(self, message: Mapping[str, Any]) -> None:
        if "cancel" in message:
            self._cancel(message["cancel"])
            return
        id = message["id"]
        self._working[id] = self._pools[message["work"]].submit(self._work, id, message["work"], message["body"])
        self._working[id].add_done_callback(lambda _: self._ended(id))

    def _cancel(self, id: int) -> None:
        working = self._working.get(id)
        if working and not working.cancel():  # a waiting call ends here, a running one at its next token
            self._cancelled.add(id)

    def _ended(self, id: int) -> None:
        self._working.pop(id, None)
        self._cancelled.discard(id)
        self._send({"id": id, "end": True})

    def _work(self, id: int, work: str, body: Mapping[str, Any]) -> None:
        try:
            server = self._server.result()
            if work == "chat":
                self._chat(server, id, body)
            elif work == "embed":
                self._chunk(id, server.handle_embeddings(json.dumps(body).encode()))
            else:
                self._chunk(id, _call("POST", "/v1/chat/completions/input_tokens", body))
        except Exception as error:  # llama.cpp throws for what the caller sent: a parameter, an image, a failing template
            self._chunk(id, json.dumps({"error": {"code": 400, "message": str(error), "type": "invalid_request_error"}}).encode())

    def _chat(self, server: Any, id: int, body: Mapping[str, Any]) -> None:
        def take_chunk(chunk: bytes) -> bool:
            self._chunk(id, chunk)
            return id in self._cancelled  # True stops it, and its slot is free

        server.handle_chat_completions(json.dumps(body).encode(), take_chunk)

    def _chunk(self, id: int, chunk: bytes) -> None:
        self._write(b'{"id":%d,"chunk":%s}\n' % (id, chunk))

    def _send(self, message: Mapping[str, Any]) -> None:
        self._write(json.dumps(message).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        with self._lock, suppress(OSError):  # the watch detects an exited parent
            while line:
                line = line[os.write(self._out, line) :]


def _load(settings: Mapping[str, Any]) -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise RuntimeError(f"llama.cpp is not installed ({error})") from None
    with suppress(OSError):  # when memory runs out, the kernel kills this process and not the worker
        Path("/proc/self/oom_score_adj").write_text("500")
    params = xllamacpp.CommonParams()
    params.model.path = settings["file"]
    params.n_ctx = settings["context_tokens"] * settings["slots"]
    params.n_parallel = settings["slots"]
    params.n_batch = params.n_ubatch = settings["context_tokens"] if settings["embed"] else _BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.cache_ram_mib = 0  # else it keeps past prompts, up to 8 GB
    params.warmup = False
    params.verbosity = 1  # errors
    params.ui = False
    params.hostnames = [_SOCKET]
    params.n_threads_http = _COUNTERS
    if settings["chat_template"]:
        params.chat_template = settings["chat_template"]
    if settings["embed"]:
        params.embedding = True
        if not _pools(settings["file"]):
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(params)


def _pools(file: str) -> bool:
    """True when the file sets how its vectors are pooled, as embedding models do. A chat model's are averaged."""
    with open(file, "rb") as opened:
        return b".pooling_type" in opened.read(1 << 16)


def _facts() -> dict[str, Any]:
    """The facts about the loaded model."""
    props = json.loads(_call("GET", "/props"))
    meta = json.loads(_call("GET", "/v1/models"))["data"][0]["meta"]
    return {
        "context_tokens": props["default_generation_settings"]["n_ctx"],
        "trained_tokens": meta["n_ctx_train"],
        "parameters": meta["n_params"],
        "dimensions": meta["n_embd"],
        "version": version("xllamacpp"),
        "tools": props["chat_template_caps"]["supports_tools"],
    }


def _call(method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
    connection = http.client.HTTPConnection("engine")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(_SOCKET)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        return connection.getresponse().read()
    finally:
        connection.close()


if __name__ == "__main__":
    main()
