"""A Python environment in which LiteLLM is not installed, and a worker that runs in it.

Owns the folder of links to the other packages. Refuses to touch the environment of the tests.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import bridge_worker

_UNINSTALLED = ("litellm", "openai", "aiohttp", "httpx", "httpx_aiohttp", "tiktoken", "tokenizers")
_RUN = "import sys; sys.path[:0] = {paths!r}; import runpy; runpy.run_module('bridge_worker', run_name='__main__', alter_sys=True)"


def command(folder: Path) -> tuple[str, ...]:
    """The command of a worker whose only packages are those linked in ``folder``."""
    site = Path(sys.modules["pydantic"].__file__ or sysconfig.get_path("purelib")).parent.parent
    for package in site.iterdir():
        if package.name.split("-")[0].split(".")[0].lower() not in _UNINSTALLED and package.suffix != ".pth":
            (folder / package.name).symlink_to(package)
    code = folder / "bridge_worker"
    code.unlink(missing_ok=True)  # where it is installed too
    code.symlink_to(Path(bridge_worker.__file__).parent)
    return (sys.executable, "-I", "-S", "-X", "utf8", "-c", _RUN.format(paths=[str(folder)]))
