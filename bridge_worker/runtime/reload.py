"""What a reload of the config changes, and what it leaves as it was until the next start.

Owns the comparison of two configs, the environment between them, and how mistakes are told to a client. Refuses to load LiteLLM and
to decide when: that is the engine's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from bridge_worker.config.source import Source
from bridge_worker.errors import BridgeError
from bridge_worker.security.error_text import clean
from bridge_worker.security.redaction import Redactor

_MISTAKE_BYTES = 500  # of one; a config that is all wrong has hundreds
_MISTAKES = 50


def set_environment(source: Source, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """A variable that only the old config had set is again what it was at the start."""
    for name in old.keys() - new.keys():
        if name in source.environ:
            os.environ[name] = source.environ[name]
        else:
            os.environ.pop(name, None)
    os.environ.update(new)


def refused(source: Source, mistakes: tuple[str, ...], redactor: Redactor) -> BridgeError:
    """A file is told by its name beside the first one: no error shows a path of this machine."""
    folder = os.path.dirname(source.path or "")
    told = [mistake.replace(folder + os.sep, "") if folder else mistake for mistake in mistakes[:_MISTAKES]]
    told = [clean(mistake, redactor, _MISTAKE_BYTES) for mistake in told]
    message = f"the config is wrong, so the old one goes on: {told[0]}" + (f" (and {len(mistakes) - 1} more)" if told[1:] else "")
    return BridgeError("invalid_request", message, extra={"mistakes": told})
