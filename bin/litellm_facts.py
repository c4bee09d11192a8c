"""Prints, as JSON, what the LiteLLM of this interpreter is like: patches, parameters, providers, settings and Router arguments.

`bin/try_litellm.py` runs it with the pinned and with the tried version and compares the two. Run it in the project's folder.
"""

import ast
import importlib.metadata
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))


def main() -> None:
    started = time.process_time()
    from bridge_worker.backends.litellm import setup
    from bridge_worker.security.url_policy import UrlPolicy

    setup.prepare(UrlPolicy())
    import litellm

    costs = {
        "import CPU, s": round(time.process_time() - started, 2),
        "memory, MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    from litellm.types.utils import all_litellm_params

    from bridge_worker.backends.litellm.patches.correctness import PATCHES
    from bridge_worker.security.refused_params import is_refused

    parameters = sorted({*all_litellm_params, *litellm.OPENAI_CHAT_COMPLETION_PARAMS})
    facts = {
        "version": importlib.metadata.version("litellm"),
        "patches": {patch.name: state_of(patch) for patch in PATCHES},
        "parameters": {name: is_refused(name) for name in parameters},
        "providers": sorted(str(getattr(provider, "value", provider)) for provider in litellm.provider_list),
        "settings": settings(Path(litellm.__file__)),
        "Router arguments": sorted(litellm.Router.get_valid_args()),
        "costs": costs,
    }
    print(json.dumps(facts))


def state_of(patch) -> list[str]:  # type: ignore[no-untyped-def]
    """[state, detail]."""
    if patch.problem:
        return ["does not apply", patch.problem]
    try:
        needed = patch.is_needed()
    except Exception as error:
        return ["check fails", f"{type(error).__name__}: {error}"[:200]]
    if needed:
        return ["holds", patch.place or ""]
    return ["removed upstream" if patch.place is None else "no longer needed", patch.wrong]


def settings(package: Path) -> list[str]:
    found = set()
    for node in ast.parse(package.read_text(encoding="utf-8")).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets if isinstance(node, ast.Assign) else []
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return sorted(name for name in found if name.islower() and not name.startswith("_") and not name.endswith("_models"))


main()
