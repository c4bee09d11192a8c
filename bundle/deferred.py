"""The modules that chats load, as deferred imports rewrite them, for a bundle that has no sources to rewrite.

Owns which modules these are: those that a process has loaded once it has rehearsed all formats. The bundle has each of them twice;
the others are bytecode only and are loaded as usual. Refuses to know how modules are rewritten (`bridge_worker.deferred_imports`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import CodeType

from bridge_worker.deferred_imports import code_cache
from bridge_worker.deferred_imports.rewriting import Rewritten

# Prints the source of each module. Its process keeps what it rewrites, and `rewritten` reads it there.
_LOADED = """
import os, sys, types
sys.path.insert(0, sys.argv[1])
from bridge_worker.deferred_imports.hook import DeferringLoader
from bridge_worker.runtime.engine_process import load_litellm
load_litellm()
from bridge_worker.backends.litellm import rehearsal, router, warm_up
from bridge_worker.backends.litellm.chat import LiteLLM
warm_up.warm_up()
rehearsal.rehearse_rest(LiteLLM())
deployment = {"model_name": "any", "litellm_params": {"model": "openai/any", "api_key": "none"}}
router.make({"model_list": [deployment], "num_retries": 0}, None)
sources = {vars(module)["__spec__"].loader.path for module in list(sys.modules.values())
           if isinstance(module, types.ModuleType)
           and isinstance(getattr(vars(module).get("__spec__"), "loader", None), DeferringLoader)}
print(*sorted(sources), sep="\\n", flush=True)
os._exit(0)
"""


def rewritten(site: Path, target: str, work: Path) -> Iterator[tuple[str, Path]]:
    """Path in the bundle -> file, in ``work``. ``site`` is the folder of the installed packages, ``target`` the bundle's.

    Nothing where deferred imports were tested with other versions than the installed ones. Raises ValueError for a module that the
    process could not keep.
    """
    code = [sys.executable, "-I", "-X", "utf8", "-W", "ignore", "-c", _LOADED, str(Path(__file__).parents[1])]
    loaded = subprocess.run(code, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, text=True).stdout
    for number, source in enumerate(loaded.split("\n")[:-1]):
        kept = code_cache.load(source)
        if kept is None:
            raise ValueError(f"no rewritten {source} is kept: its folder must be writable")
        path = f"{target}/{Path(source).relative_to(site).as_posix()}"
        file = work / f"deferred-{number}.pyc"
        late = {name: _moved(code, path) for name, code in kept.late.items()}
        file.write_bytes(_content(replace(kept, code=_moved(kept.code, path), late=late)))
        yield Path(code_cache.place_of(path)).as_posix(), file


def _moved(code: CodeType, path: str) -> CodeType:
    """``code`` with ``path`` as its file."""
    constants = tuple(_moved(each, path) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.replace(co_filename=path, co_consts=constants)


def _content(rewritten: Rewritten) -> bytes:
    """`marshal` writes an object with one reference in another form, and how many a text has depends on the modules that are
    loaded: so each part is held here."""
    held: list[object] = [rewritten.code, rewritten.table, rewritten.builtins, rewritten.submodules, rewritten.late]
    for each in held:  # grows while it is read
        if isinstance(each, CodeType):
            names = (each.co_names, each.co_varnames, each.co_freevars, each.co_cellvars)
            held += [each.co_consts, *names, each.co_name, each.co_qualname, each.co_linetable, each.co_exceptiontable]
        elif isinstance(each, tuple | frozenset):
            held += each
        elif isinstance(each, dict):
            held += [*each, *each.values()]
    return code_cache.content_of(rewritten)
