"""Loads the operator's own code that a gateway's config names, such as ``custom_callbacks.handler``.

Owns the locations of that code: the config's folder, in a file that no other user can write to, or an installed package. Refuses
code from a bucket, and to decide what the loaded object is good for.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from bridge_worker.config.source import writable_by_others


class NotLoaded(Exception):
    """As text it is the reason."""


def load(name: str, folder: str) -> Any:
    """The object ``name`` ("module.attribute"). A file runs once, whichever settings name it. Raises NotLoaded."""
    module, _, attribute = name.rpartition(".")
    if "://" in name:
        raise NotLoaded("code in a bucket is not read; put the file next to the config")
    try:
        return getattr(_from_file(module, folder) or importlib.import_module(module), attribute)
    except NotLoaded:
        raise
    except ModuleNotFoundError as error:
        what = f"{module.replace('.', '/')}.py is not next to the config" if error.name == module else f"it needs {error.name}"
        raise NotLoaded(f"{what}, and no such package is installed") from error
    except AttributeError as error:
        raise NotLoaded(f"{module} has no {attribute}") from error
    except Exception as error:
        raise NotLoaded(f"its import ends with {type(error).__name__}") from error


def _from_file(module: str, folder: str) -> Any:
    path = Path(folder, *module.split(".")).with_suffix(".py")
    if not path.is_file():
        return None
    if who := writable_by_others(str(path)):
        raise NotLoaded(f"{path.name} is writable by {who}, who could run code here; chmod go-w it")
    name = f"omni_bridge_operator.{module}"
    if (loaded := sys.modules.get(name)) and loaded.__file__ == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101  # for mypy: it is a .py file
    assert spec.loader is not None  # noqa: S101
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made  # dataclasses and pickles look there
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[name]
        raise
    return made
