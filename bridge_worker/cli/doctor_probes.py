"""What only a running worker can show: that it starts, keeps its stdout clean, and that its models answer.

Owns the questions and what their answers mean. Refuses to wait longer for a model than `MODEL_SECONDS`, and to spend more than a
few tokens on it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

from bridge_worker.cli.command_error import of_answer, remedy_for
from bridge_worker.cli.doctor_checks import Check
from bridge_worker.cli.model_choice import FIRST_MODELS, LOCAL
from bridge_worker.cli.worker_process import Answer, Json, Worker
from bridge_worker.providers import key_variables

MODEL_SECONDS = 30.0
_AT_ONCE = 8
_POLL_SECONDS = 0.05
_TOKENS = 16
_NO_SUCH_MODEL = "doctor/there-is-none"  # LiteLLM prints a list of providers when it is asked for one that it does not know


def of_worker(worker: Worker) -> Iterator[Check]:
    """Its start, and that nothing but messages comes out of it: LiteLLM would print there, at errors above all."""
    started = time.monotonic()
    worker.greet("doctor")
    greeted = _ms(started)
    worker.replay("this is no message")
    answer = worker.call("chat", {"model": "offline/echo", "messages": [{"role": "user", "content": "ping"}]})
    if answer.get("result", {}).get("content") != "ping":
        yield Check("worker", "problem", "offline/echo does not echo", "install omni-bridge anew")
    failed = worker.call("chat", {"model": _NO_SUCH_MODEL, "messages": [{"role": "user", "content": "ping"}]})
    loaded = _ms(started)
    if failed.get("error", {}).get("data", {}).get("kind") == "internal":
        yield Check("worker", "problem", failed["error"]["message"], "install omni-bridge anew")
    yield Check("worker", "ok", f"greets after {greeted} ms, LiteLLM is loaded after {loaded} ms")


def of_stdout(worker: Worker) -> Check:
    """After the worker's end."""
    if worker.stray:
        return Check("stdout", "problem", f"not only messages: {worker.stray[0]:.100}", "please report it")
    return Check("stdout", "ok", "nothing but messages, with an error and LiteLLM's debug log among them")


def of_log(lines: Sequence[str]) -> Iterator[Check]:
    """What the worker itself calls an error: a part of the config that LiteLLM does not take, say."""
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if told.get("level") in ("error", "critical") and str(told.get("logger")).startswith("bridge_worker"):
            yield Check("worker's log", "problem", f"{told['message']:.500}", "mend what it says")


def of_litellm(worker: Worker) -> Iterator[Check]:
    """A check for each part of the bridge that does not fit the installed LiteLLM: patches, formats, modes."""
    end = time.monotonic() + MODEL_SECONDS
    while (rows := worker.call("status", {})["result"]["degraded"]) is None and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    if rows is None:
        yield Check("LiteLLM fits", "note", "not known: LiteLLM is still loading", "run omni-bridge doctor again")
    elif not rows:
        yield Check("LiteLLM fits", "ok", "each patch, format and mode of the bridge")
    for row in rows or ():
        remedy = f"{row['effect']}; install the version of LiteLLM that omni-bridge pins, or a newer omni-bridge"
        yield Check("LiteLLM fits", "problem", f"not the {row['part']}: {row['reason']}", remedy)


def of_models(worker: Worker, names: Sequence[str], *, offline: bool) -> Iterator[Check]:
    """A round trip of each, ``offline`` only of those that need no network."""
    for at in range(0, len(names), _AT_ONCE):
        some = names[at : at + _AT_ONCE]
        described = [worker.request("models/get", {"model": name}) for name in some]
        asked = [(name, _ask(worker, name, answer.response(), offline)) for name, answer in zip(some, described, strict=True)]
        yield from (check if isinstance(check, Check) else _settled(name, check) for name, check in asked)


def configured_models(worker: Worker) -> list[str]:
    """Without those that stand for many, and those that every worker has."""
    listed = worker.call("models/list", {})
    if "error" in listed:
        raise of_answer(listed["error"])
    rows = listed["result"]["models"]
    return [row["model"] for row in rows if "*" not in row["model"] and not row["model"].startswith("offline/")]


def models_with_a_key(local: bool) -> list[str]:
    """Without a config: a small one of each well-known provider whose key is there."""
    found = [model for model in dict.fromkeys(FIRST_MODELS.values()) if key_variables.variable(model.partition("/")[0])]
    return [*found, *([LOCAL] if local else []), "offline/echo"]


def _ask(worker: Worker, name: str, described: Json, offline: bool) -> Check | Answer:
    if "error" in described:
        return _failed(name, described["error"])
    info = described["result"]
    here = info["provider"] in ("offline", "local")
    if info["key_present"] is False:
        variable = f"{str(info['provider']).upper()}_API_KEY"
        return Check(name, "problem", f"no key for {info['provider']}", f"set {variable}, or api_key in the config")
    if offline and not here:
        return Check(name, "skipped", "not asked, because of --offline")
    deadline = {"total_ms": int(MODEL_SECONDS * 1000)}
    if info["mode"] == "embedding":
        return worker.request("embed", {"model": name, "input": "ping", "deadlines": deadline})
    if info["mode"] in ("chat", "completion", "responses", None):
        limit = {} if name.startswith("offline/") else {"max_tokens": _TOKENS}
        messages = [{"role": "user", "content": "Say: ok"}]
        return worker.request("chat", {"model": name, "messages": messages, "deadlines": deadline, **limit})
    return Check(name, "skipped", f"is for {info['mode']}")


def _settled(name: str, answer: Answer) -> Check:
    started = time.monotonic()
    response = answer.response()
    if "error" in response:
        return _failed(name, response["error"])
    result = response["result"]
    ms = result["timing"]["total_ms"] if "timing" in result else (time.monotonic() - started) * 1000
    cost = result.get("cost_usd")
    price = f", ${cost:.6f}" if cost else ""
    return Check(name, "ok", f"{result['provider']} answered in {ms:.0f} ms{price}")


def _failed(name: str, error: Json) -> Check:
    kind = error["data"]["kind"]
    refused = "the provider refuses this key; look where it lists yours"
    remedy = refused if kind == "authentication" else remedy_for(kind) or "mend what it says"
    return Check(name, "problem", " ".join(str(error["message"]).split()), remedy)


def _ms(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
