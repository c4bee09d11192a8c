"""Checks that need a running worker: its start, its stdout, its log, and a call of each model.

Owns the requests and the meaning of their responses. Refuses to wait longer for a model than `MODEL_SECONDS`, and to spend more
than a few tokens on it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

from bridge_worker.cli.command_error import from_wire_error, hint_for_kind
from bridge_worker.cli.doctor_checks import REINSTALL_HINT, Check
from bridge_worker.cli.model_choice import LOCAL
from bridge_worker.cli.worker_process import Json, PendingResponse, Worker
from bridge_worker.providers import key_variables
from bridge_worker.providers.facts import FIRST_MODELS

MODEL_SECONDS = 30.0
_AT_ONCE = 8
_POLL_SECONDS = 0.05
_TOKENS = 16
_UNKNOWN_MODEL = "doctor/unknown"  # for an unknown provider LiteLLM prints a list of all providers
_ENGINE_LOST = "an engine process is lost"  # as `engines.supervisor` logs it
_LOG_HINT = "correct the cause that the line names"


def of_worker(worker: Worker) -> Iterator[Check]:
    """Measures the start. Also causes an error of LiteLLM, because LiteLLM prints to stdout mainly with errors."""
    started = time.monotonic()
    worker.initialize("doctor")
    initialized = _ms(started)
    worker.replay("this is not a message")
    echo = worker.call("chat", {"model": "offline/echo", "messages": [{"role": "user", "content": "ping"}]})
    if echo.get("result", {}).get("content") != "ping":
        yield Check("worker", "problem", "offline/echo does not echo", REINSTALL_HINT)
    failed = worker.call("chat", {"model": _UNKNOWN_MODEL, "messages": [{"role": "user", "content": "ping"}]})
    loaded = _ms(started)
    if failed.get("error", {}).get("data", {}).get("kind") == "internal":
        yield Check("worker", "problem", failed["error"]["message"], REINSTALL_HINT)
    yield Check("worker", "ok", f"initialized after {initialized} ms, LiteLLM is loaded after {loaded} ms")


def of_stdout(worker: Worker) -> Check:
    """Call it after the worker has exited."""
    if worker.stray:
        return Check("stdout", "problem", f"not only messages: {worker.stray[0]:.100}", "please report it")
    return Check("stdout", "ok", "nothing but messages, with an error and LiteLLM's debug log among them")


def of_log(lines: Sequence[str]) -> Iterator[Check]:
    """The errors that the worker logged itself, such as a part of the config that LiteLLM rejects."""
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("message") == _ENGINE_LOST:
            detail = f"process {record['pid']} was lost ({record['how']}) with {record['requests']} requests"
            yield Check("engines", "problem", detail, "report it, if this machine has memory left; the log has what it wrote last")
        elif record.get("level") in ("error", "critical") and str(record.get("logger")).startswith("bridge_worker"):
            yield Check("worker's log", "problem", f"{record['message']:.500}", _LOG_HINT)


def of_litellm(worker: Worker) -> Iterator[Check]:
    """A check for each part of the bridge that does not fit the installed LiteLLM: patches, formats, modes."""
    end = time.monotonic() + MODEL_SECONDS
    while (rows := worker.call("status", {})["result"]["degraded"]) is None and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    if rows is None:
        yield Check("LiteLLM fits", "note", "unknown: LiteLLM is still loading", "run omni-bridge doctor again")
    elif not rows:
        yield Check("LiteLLM fits", "ok", "all patches, formats and modes of the bridge")
    for row in rows or ():
        hint = f"{row['effect']}; install the version of LiteLLM that omni-bridge pins, or a newer omni-bridge"
        yield Check("LiteLLM fits", "problem", f"without the {row['part']}: {row['reason']}", hint)


def of_models(worker: Worker, names: Sequence[str], *, offline: bool) -> Iterator[Check]:
    """Calls each model; with ``offline`` only those that need no network."""
    for at in range(0, len(names), _AT_ONCE):
        some = names[at : at + _AT_ONCE]
        described = [worker.request("models/get", {"model": name}) for name in some]
        called = [(name, _call(worker, name, info.response(), offline)) for name, info in zip(some, described, strict=True)]
        yield from (call if isinstance(call, Check) else _check_response(name, call) for name, call in called)


def configured_models(worker: Worker) -> list[str]:
    """The config's models, without wildcard names and the offline models of every worker."""
    listed = worker.call("models/list", {})
    if "error" in listed:
        raise from_wire_error(listed["error"])
    rows = listed["result"]["models"]
    return [row["model"] for row in rows if "*" not in row["model"] and not row["model"].startswith("offline/")]


def models_with_a_key(local: bool) -> list[str]:
    """One small model of each well-known provider with a configured key; for use without a config."""
    found = [model for model in dict.fromkeys(FIRST_MODELS.values()) if key_variables.variable(model.partition("/")[0])]
    return [*found, *([LOCAL] if local else []), "offline/echo"]


def _call(worker: Worker, name: str, described: Json, offline: bool) -> Check | PendingResponse:
    if "error" in described:
        return _failed(name, described["error"])
    info = described["result"]
    on_this_machine = info["provider"] in ("offline", "local")
    if info["key_present"] is False:
        variable = f"{str(info['provider']).upper()}_API_KEY"
        return Check(name, "problem", f"no key for {info['provider']}", f"set {variable}, or api_key in the config")
    if offline and not on_this_machine:
        return Check(name, "skipped", "not called, because of --offline")
    deadline = {"total_ms": int(MODEL_SECONDS * 1000)}
    if info["mode"] == "embedding":
        return worker.request("embed", {"model": name, "input": "ping", "deadlines": deadline})
    if info["mode"] in ("chat", "completion", "responses", None):
        limit = {} if name.startswith("offline/") else {"max_tokens": _TOKENS}
        messages = [{"role": "user", "content": "Reply with: ok"}]
        return worker.request("chat", {"model": name, "messages": messages, "deadlines": deadline, **limit})
    return Check(name, "skipped", f"its mode is {info['mode']}")


def _check_response(name: str, pending: PendingResponse) -> Check:
    started = time.monotonic()
    response = pending.response()
    if "error" in response:
        return _failed(name, response["error"])
    result = response["result"]
    ms = result["timing"]["total_ms"] if "timing" in result else (time.monotonic() - started) * 1000
    cost = result.get("cost_usd")
    price = f", ${cost:.6f}" if cost else ""
    return Check(name, "ok", f"{result['provider']} responded in {ms:.0f} ms{price}")


def _failed(name: str, error: Json) -> Check:
    kind = error["data"]["kind"]
    rejected = "the provider rejects this key; compare it with the keys of your account there"
    hint = rejected if kind == "authentication" else hint_for_kind(kind) or _LOG_HINT
    return Check(name, "problem", " ".join(str(error["message"]).split()), hint)


def _ms(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
