"""omni-bridge: chat with 100+ LLM providers through one small wire.

As a process it is ``omni-bridge --stdio``; in Python, `chat` and `achat`.
"""

from typing import TYPE_CHECKING, Any

from bridge_worker.version import __version__ as __version__

__all__ = ["BridgeError", "ChatResult", "achat", "chat"]

if TYPE_CHECKING:
    from bridge_worker.runtime.in_process import BridgeError as BridgeError
    from bridge_worker.runtime.in_process import ChatResult as ChatResult
    from bridge_worker.runtime.in_process import achat as achat
    from bridge_worker.runtime.in_process import chat as chat


def __getattr__(name: str) -> Any:
    """On first use: the process that serves stdio imports this file too, and must not wait for pydantic."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bridge_worker.runtime import in_process

    return getattr(in_process, name)
