"""LiteLLM and openai under deferred imports: every name of every module is what it is without them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping

from bridge_worker.backends.litellm import setup
from bridge_worker.deferred_imports.sources import Sources
from tests.support.package_modules import PACKAGE

# Prints what each name of each module is: a module by name, a class or function by its place, other values by their type; of a
# TypedDict also its hints, because deferred annotations are evaluated then, and of a pydantic model its fields.
DESCRIBE = """
import gc, importlib, json, os, re, sys, types, typing
gc.disable()
sys.path.insert(0, sys.argv[1])
from bridge_worker.backends.litellm import setup
setup.set_environment()
setup.defer_imports()
import litellm
import pydantic
count = sum(name.partition(".")[0] in ("litellm", "openai") for name in sys.modules)
import openai.resources
wanted = json.load(sys.stdin)
modules = wanted or sorted(name for name in sys.modules if name.partition(".")[0] in ("litellm", "openai"))

def describe(value):
    if isinstance(value, types.ModuleType):
        return "module " + value.__name__
    if typing.is_typeddict(value):
        return f"{value.__module__}.{value.__qualname__} {hints(value)} {sorted(value.__required_keys__)}"
    if isinstance(value, type) and issubclass(value, pydantic.BaseModel):
        value.model_rebuild(raise_errors=False)
        fields = {name: (words(str(field.annotation)), field.is_required()) for name, field in value.model_fields.items()}
        return f"{value.__module__}.{value.__qualname__} {[one.__name__ for one in value.__mro__]} {fields}"
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{type(value).__module__}.{type(value).__qualname__}"

def words(annotation):
    # Not their order: `Dict[str, Union[int, str]]` is `Dict[str, Union[str, int]]` to `typing`, which keeps the first.
    return sorted(re.findall(r"[\\w.]+", re.sub(" at 0x[0-9a-f]+", "", annotation)))

def hints(value):
    try:
        return typing.get_type_hints(value, include_extras=True)
    except NameError as error:
        return error

def read(module, name):
    try:
        return describe(getattr(module, name))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

found = {}
for name in modules:
    module = importlib.import_module(name)
    names = {*dir(module), *getattr(vars(module).get("__builtins__"), "table", ()), *(wanted[name] if wanted else ())}
    # Not the generic models that pydantic makes on the way, `A[B]`.
    found[name] = {one: read(module, one) for one in sorted(names) if one.isidentifier() and not one.startswith("__")}
json.dump({"at_import": count, "names": found}, sys.stdout)
sys.stdout.flush()
os._exit(0)
"""


def describe(wanted: Mapping[str, Iterable[str]], **env: str) -> tuple[int, dict[str, dict[str, str]]]:
    command = [sys.executable, "-I", "-W", "ignore", "-c", DESCRIBE, str(PACKAGE.parent)]
    environment = os.environ | {"OMNI_BRIDGE_EAGER": ""} | env
    done = subprocess.run(
        command,
        input=json.dumps({name: list(names) for name, names in wanted.items()}),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    described = json.loads(done.stdout)
    return described["at_import"], described["names"]


def test_every_name_of_every_module_means_what_it_means_without_deferred_imports() -> None:
    eager_count, eager = describe({}, OMNI_BRIDGE_EAGER="1")
    count, deferred = describe(eager)
    differing = {
        f"{module}.{name}": (value, deferred[module].get(name))
        for module, names in eager.items()
        for name, value in names.items()
        if deferred[module].get(name) != value
    }
    assert not differing
    failing = {
        f"{module}.{name}": value
        for module, names in deferred.items()
        for name, value in names.items()
        if "Error: " in value and value != eager[module].get(name)
    }
    assert not failing
    assert count < eager_count / 2, "deferred imports are not on"


def test_each_constant_that_waits_is_made_when_it_is_used() -> None:
    """A name that a package no longer has would silently be of no use."""
    code = f"""
import importlib, sys
sys.path.insert(0, {str(PACKAGE.parent)!r})
from bridge_worker.backends.litellm import setup
setup.set_environment()
setup.defer_imports()
for module, names in setup.CONSTANTS.items():
    found = importlib.import_module(module)
    print(*(name not in vars(found) and bool(getattr(found, name)) for name in names))
"""
    environment = os.environ | {"OMNI_BRIDGE_EAGER": ""}
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    assert set(done.stdout.split()) == {"True"}


def test_the_digests_are_those_of_the_installed_sources() -> None:
    """After another version of either: `bin/generate.py`, then this file and the whole suite."""
    digests = setup.read_digests()
    assert digests == {package: Sources(package).digest() for package in digests}
