"""What a fresh interpreter loads and changes when modules of the package are imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bridge_worker
from tests.support.package_modules import HEAVY, NOT_IMPORTED, files


@pytest.mark.rule("LIF-2", "OFF-1")
def test_starting_the_command_loads_nothing_heavy() -> None:
    assert not loaded_by("bridge_worker.cli.main") & HEAVY


@pytest.mark.rule("OFF-1")
def test_the_offline_models_and_the_methods_do_not_load_litellm() -> None:
    assert not loaded_by("bridge_worker.methods.dispatcher") & {"litellm", "openai", "httpx"}


def loaded_by(module: str) -> set[str]:
    """Top names of all that is loaded in a fresh interpreter by importing ``module``."""
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(json.loads(out))
    assert module in loaded
    return {name.split(".")[0] for name in loaded}


def test_chat_stays_a_function_whatever_else_was_imported() -> None:
    code = (
        "import bridge_worker.methods.dispatcher; from bridge_worker import achat, chat; assert callable(chat) and callable(achat)"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    names = {module.split(".")[0] for module in files()}
    assert not names & set(bridge_worker.__all__), "a submodule of that name would take the function's place"


CHANGES = """
import gc, importlib, json, os, sys, types
import httpx, jsonrpcserver, litellm, logging, openai, pydantic

def state():
    found = {f"os.environ[{name}]": value for name, value in os.environ.items()}
    for name in [name for name in sys.modules if name.split(".")[0] in ("litellm", "httpx", "openai", "jsonrpcserver", "pydantic")]:
        for attribute, value in list(vars(sys.modules[name]).items()):
            if isinstance(value, (types.ModuleType, dict)):
                continue
            found[f"{name}.{attribute}"] = value
            if isinstance(value, type) and value.__module__ == name:
                found |= {f"{name}.{attribute}.{member}": one for member, one in vars(value).items() if callable(one)}
    found |= {f"logger {name}": (one.level, list(one.handlers)) for name, one in logging.root.manager.loggerDict.items()
              if isinstance(one, logging.Logger) and name.startswith("LiteLLM")}
    found["sys.excepthook"], found["sys.stdout"] = sys.excepthook, sys.stdout
    found["gc"] = gc.isenabled(), gc.get_threshold()
    return found

before = state()
for module in json.loads(sys.argv[1]):
    importlib.import_module(module)
after = state()
print(json.dumps([name for name in {**before, **after} if name in before and before[name] is not after.get(name)
                  and before[name] != after.get(name)] + [name for name in after if name.startswith("os.") and name not in before]))
"""


def test_importing_any_module_changes_neither_the_environment_nor_a_library() -> None:
    """Patches, variables, loggers and switches are rows of `backends.litellm.setup.prepare`, which runtime/ calls."""
    names = [f"bridge_worker.{module}" for module in files() if module not in ("bridge_worker", "__main__", *NOT_IMPORTED)]
    command = [sys.executable, "-I", "-W", "ignore", "-c", CHANGES, json.dumps(names)]
    env = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # else its import fetches prices
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert json.loads(out.splitlines()[-1]) == []


_COLLECTS_IN_THE_LOCK = """
import gc, sys
sys.path.insert(0, sys.argv[1])
from bridge_worker.deferred_imports import namespace

def resolve(phase, info):
    with namespace._Locked():
        pass

gc.callbacks.append(resolve)
gc.set_threshold(1)
for _ in range(20_000):
    with namespace._Locked():
        [[]]
gc.disable()
print(namespace._lock.owner, namespace._lock.count)
"""


def test_a_finalizer_may_resolve_a_name_while_the_lock_is_taken() -> None:
    """It may run within acquire() and release() of importlib's locks, which Python 3.11 does not let it enter."""
    code = [sys.executable, "-I", "-c", _COLLECTS_IN_THE_LOCK, str(Path(bridge_worker.__file__).parents[1])]
    done = subprocess.run(code, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("None 0\n", "")
