"""Prints, as JSON, what the LiteLLM of this interpreter is like: patches, formats, parameters, providers, settings, hosts, costs.

`bin/try_litellm.py` runs it with the pinned and with the tried version and compares the two. Run it in the project's folder;
with --hosts it also records which hosts each provider contacts, which takes half a minute.
"""

import ast
import contextlib
import importlib.metadata
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

_STARTS = 2  # of a worker; the cheaper one counts
_START_SECONDS = 300.0
_INITIALIZE = {"protocolVersion": "omni-bridge/1", "capabilities": {}, "clientInfo": {"name": "try-litellm", "version": "0"}}


def main() -> None:
    began = time.process_time()
    from bridge_worker.backends.litellm import setup

    setup.set_environment()
    import litellm

    imported = round(time.process_time() - began, 2)
    from litellm.types.utils import all_litellm_params

    from bridge_worker.security.refused_params import is_refused

    parameters = sorted({*all_litellm_params, *litellm.OPENAI_CHAT_COMPLETION_PARAMS})
    costs, degraded = start_worker()
    facts = {
        "version": importlib.metadata.version("litellm"),
        "patches": patches(),
        "degraded": degraded,
        "parameters": {name: is_refused(name) for name in parameters},
        "providers": sorted(str(getattr(provider, "value", provider)) for provider in litellm.provider_list),
        "settings": settings(Path(litellm.__file__)),
        "Router arguments": sorted(litellm.Router.get_valid_args()),
        "costs": {"import: CPU, s": imported, **costs},
        "hosts": hosts() if "--hosts" in sys.argv else None,
    }
    print(json.dumps(facts))


def patches() -> dict[str, list[str]]:
    """name -> [state, reason, file to correct, test that shows the fault]. Applied here as a worker applies them."""
    from bridge_worker.backends.litellm import setup
    from bridge_worker.backends.litellm.patches.table import PATCHES, UnsafeError, install_rest
    from bridge_worker.security.url_policy import UrlPolicy

    with contextlib.suppress(UnsafeError):  # the patch's own row has the reason
        setup.prepare(UrlPolicy())
        install_rest()
    files = {
        patch.name: f"bridge_worker/backends/litellm/patches/{patch.make.__module__.rpartition('.')[2]}.py" for patch in PATCHES
    }
    return {patch.name: [*state_of(patch), files[patch.name], patch.evidence] for patch in PATCHES}


def state_of(patch) -> list[str]:  # type: ignore[no-untyped-def]
    """[state, reason]."""
    if patch.problem:
        return ["does not apply", f"{patch.problem}; without it: {patch.wrong}"]
    try:
        needed = patch.is_needed()
    except Exception as error:
        return ["check fails", f"{type(error).__name__}: {error}"[:200]]
    if needed:
        return ["holds", patch.place or ""]
    return ["removed upstream" if patch.place is None else "no longer needed", patch.wrong]


def settings(package: Path) -> list[str]:
    """Names of the attributes that LiteLLM's module assigns at its top: `litellm_settings` of a gateway's config."""
    found = set()
    for node in ast.parse(package.read_text(encoding="utf-8")).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets if isinstance(node, ast.Assign) else []
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return sorted(name for name in found if name.islower() and not name.startswith("_") and not name.endswith("_models"))


def hosts() -> dict[str, object]:
    """What the recording fails for must not hide the other facts."""
    from tests.support import provider_hosts

    try:
        table = provider_hosts.record()
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return {"error": (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]}
    return {
        "rows": dict(provider_hosts.by_method(table)),
        "page": provider_hosts.page(table),
        "forbidden": list(provider_hosts.forbidden(table)),
    }


# ---- a worker --------------------------------------------------------------------------------------------------------------------


def start_worker() -> tuple[dict[str, float], list[dict[str, str]]]:
    """What a real worker costs until it has tried all of its parts, and which of them do not fit."""
    runs = [one_start() for _ in range(_STARTS)]
    cpu, memory = min(run[0] for run in runs), min(run[1] for run in runs)
    return {"start of a worker: CPU, s": round(cpu, 2), "memory of a worker, MiB": round(memory / 2**20, 1)}, runs[-1][2]


def one_start() -> tuple[float, int, list[dict[str, str]]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMNI_BRIDGE_", "LITELLM_"))}
    command = [sys.executable, "-I", "-X", "utf8", "-m", "bridge_worker", "--stdio"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as worker:
        watchdog = threading.Timer(_START_SECONDS, worker.kill)
        watchdog.start()
        try:
            status = next(status for status in statuses(worker) if status["degraded"] is not None)
        finally:
            watchdog.cancel()
            worker.stdin.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, status["memory_bytes"] or 0, status["degraded"]


def statuses(worker) -> Iterator[dict]:  # type: ignore[no-untyped-def, type-arg]
    """``status`` again and again. Ends with an OSError or a StopIteration when the worker does."""
    send(worker, 0, "initialize", _INITIALIZE)
    for id in range(1, 1_000_000):
        send(worker, id, "status", {})
        while (message := json.loads(worker.stdout.readline() or b'{"id": null}')).get("id", 0) != id:
            if message.get("id", 0) is None:
                raise RuntimeError("the worker ended while it was loading LiteLLM")
        yield message["result"]
        time.sleep(0.05)


def send(worker, id: int, method: str, params: object) -> None:  # type: ignore[no-untyped-def]
    worker.stdin.write(json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode() + b"\n")
    worker.stdin.flush()


main()
