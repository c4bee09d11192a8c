"""The child process in which llama.cpp runs: ``python -m bridge_worker.backends.local.llama_server``, one for each model.

Owns llama.cpp: nothing else imports xllamacpp. Refuses to know the bridge's shapes: what llama.cpp's server says passes through.
Speaks lines of JSON with its parent, `local_process`, on its standard input and output:

    in    {"file": ..., "context_tokens": ..., ...}                  first, once: what to load
          {"id": 1, "work": "chat" | "count" | "embed", "body": {}}   many at once
          {"cancel": 1}
    out   {"loaded": {}} or {"failed": "why"}                        once
          {"id": 1, "chunk": {}}                                     as llama.cpp's server says it, OpenAI's shape
          {"id": 1, "end": true}                                     always the last of an id, also of a cancelled one

A process of its own because llama.cpp's faults are those of native code (a broken file, no memory, an assertion: the process is
gone), and because its memory is given back when it ends. It costs no speed that could be measured. It never outlives its parent:
the end of standard input, or of the parent, ends it at once. It opens no port: llama.cpp's server insists on a listener, so that is
a socket in the private folder that the process runs in, and counting tokens is asked there.
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
_BATCH = 128  # tokens of a prompt that are read between two looks at whether it was cancelled
_COUNTERS = 2  # threads that count tokens, beside those that generate


def main() -> NoReturn:
    out = os.dup(1)
    os.dup2(2, 1)  # whatever native code prints
    watch_parent(_leave)
    settings = json.loads(sys.stdin.buffer.readline() or b"null")
    if settings is None:
        _leave()
    engine = _Engine(settings["slots"], out)
    reader = threading.Thread(target=_read, args=(engine,))
    reader.start()  # beside the loading: the end of the input counts there too
    engine.load(settings)
    reader.join()
    _leave()


def _read(engine: _Engine) -> None:
    for line in sys.stdin.buffer:
        engine.take(json.loads(line))
    _leave()


def _leave() -> NoReturn:
    """Without llama.cpp's farewell, which would wait for what it computes."""
    shutil.rmtree(os.getcwd(), ignore_errors=True)
    os._exit(0)


class _Engine:
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
            self._say({"loaded": _facts()})
            self._server.set_result(server)
        except BaseException as error:
            self._say({"failed": str(error)})
            with suppress(AttributeError, OSError, TypeError):  # Windows
                ctypes.CDLL(None).exit(1)  # libc's: llama.cpp, whose log is a thread's, then says what was wrong with the file
            os._exit(1)

    def take(self, order: Mapping[str, Any]) -> None:
        if "cancel" in order:
            self._cancel(order["cancel"])
            return
        id = order["id"]
        self._working[id] = self._pools[order["work"]].submit(self._work, id, order["work"], order["body"])
        self._working[id].add_done_callback(lambda _: self._ended(id))

    def _cancel(self, id: int) -> None:
        working = self._working.get(id)
        if working and not working.cancel():  # one that waits for a slot ends here; one that runs at its next token
            self._cancelled.add(id)

    def _ended(self, id: int) -> None:
        self._working.pop(id, None)
        self._cancelled.discard(id)
        self._say({"id": id, "end": True})

    def _work(self, id: int, work: str, body: Mapping[str, Any]) -> None:
        try:
            server = self._server.result()
            if work == "chat":
                self._chat(server, id, body)
            elif work == "embed":
                self._chunk(id, server.handle_embeddings(json.dumps(body).encode()))
            else:
                self._chunk(id, _ask("POST", "/v1/chat/completions/input_tokens", body))
        except Exception as error:  # what llama.cpp throws it means for the caller: a parameter, an image, a template that fails
            self._chunk(id, json.dumps({"error": {"code": 400, "message": str(error), "type": "invalid_request_error"}}).encode())

    def _chat(self, server: Any, id: int, body: Mapping[str, Any]) -> None:
        def take_chunk(chunk: bytes) -> bool:
            self._chunk(id, chunk)
            return id in self._cancelled  # True stops it, and its slot is free

        server.handle_chat_completions(json.dumps(body).encode(), take_chunk)

    def _chunk(self, id: int, chunk: bytes) -> None:
        self._write(b'{"id":%d,"chunk":%s}\n' % (id, chunk))

    def _say(self, message: Mapping[str, Any]) -> None:
        self._write(json.dumps(message).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        with self._lock, suppress(OSError):  # a parent that is gone is found out by the watch
            while line:
                line = line[os.write(self._out, line) :]


def _load(settings: Mapping[str, Any]) -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise RuntimeError(f"llama.cpp is not installed ({error})") from None
    with suppress(OSError):  # where memory runs out, this process goes and not the worker
        Path("/proc/self/oom_score_adj").write_text("500")
    params = xllamacpp.CommonParams()
    params.model.path = settings["file"]
    params.n_ctx = settings["context_tokens"] * settings["slots"]
    params.n_parallel = settings["slots"]
    params.n_batch = params.n_ubatch = settings["context_tokens"] if settings["embed"] else _BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.cache_ram_mib = 0  # else the prompts of the past are kept, up to 8 GB
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
    """Whether the file says how its vectors are pooled, as models for embeddings do. A chat model's are averaged."""
    with open(file, "rb") as opened:
        return b".pooling_type" in opened.read(1 << 16)


def _facts() -> dict[str, Any]:
    """What is true of the model as it was loaded."""
    props = json.loads(_ask("GET", "/props"))
    meta = json.loads(_ask("GET", "/v1/models"))["data"][0]["meta"]
    return {
        "context_tokens": props["default_generation_settings"]["n_ctx"],
        "trained_tokens": meta["n_ctx_train"],
        "parameters": meta["n_params"],
        "dimensions": meta["n_embd"],
        "version": version("xllamacpp"),
        "tools": props["chat_template_caps"]["supports_tools"],
    }


def _ask(method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
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
