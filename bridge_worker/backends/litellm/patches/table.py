"""The table of all patches, in the order in which they are applied.

Owns that order and the summary of what was left out. Refuses to know any fault.
"""

from __future__ import annotations

import functools

from bridge_worker.backends.litellm.patches import correctness, hosts, price_map, redirects, schemas
from bridge_worker.backends.litellm.patches.patch import EVERY_PROVIDER, apply_each, effect_without, left_out
from bridge_worker.deferred_imports import hook as deferred_imports
from bridge_worker.system.versions import litellm_version

PATCHES = (*hosts.PATCHES, *redirects.PATCHES, *schemas.PATCHES, *correctness.PATCHES, *price_map.PATCHES)
_WAITING = tuple(patch for patch in PATCHES if patch.waits)


class UnsafeError(Exception):
    """LiteLLM must not be used without a patch that does not fit."""


def install() -> None:
    """Applies each patch by itself. Repeating it changes nothing. Raises UnsafeError."""
    apply_each(patch for patch in PATCHES if not patch.is_of_router and not patch.waits)
    for patch in _WAITING:
        deferred_imports.when_loaded(patch.places[0].partition(":")[0], functools.partial(apply_each, [patch]))
    hosts.refuse({provider: patch.name for patch in left_out(PATCHES) for provider in patch.protects})
    unsafe = [patch.name for patch in left_out(PATCHES) if patch.protects == EVERY_PROVIDER]
    if unsafe:
        names = " and ".join(unsafe)
        raise UnsafeError(f"LiteLLM {litellm_version()} is not safe to use: the security patch {names} does not fit it")


def install_rest() -> None:
    """Those that wait. Repeating it changes nothing."""
    apply_each(_WAITING)


def install_for_router() -> None:
    """Repeating it changes nothing."""
    apply_each(patch for patch in PATCHES if patch.is_of_router)


def degraded() -> list[dict[str, str]]:
    """The rows of ``status`` about patches."""
    return [
        {"part": f"patch {patch.name}", "reason": patch.problem or "", "effect": effect_without(patch)}
        for patch in left_out(PATCHES)
    ]
