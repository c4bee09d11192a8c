"""Refuses a schema that LiteLLM would inline without end, or into references that lead nowhere.

Owns the two functions of LiteLLM that replace ``$ref`` by its definition (PRIVATE): `unpack_defs` and OCI's own. They leave a
recursive reference as it is and drop its definition, so that the provider refuses what it can't read. Refuses to know providers.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from bridge_worker.errors import BridgeError
from bridge_worker.security.schema_size import SchemaTooLarge, is_recursive

_common: Any = importlib.import_module("litellm.litellm_core_utils.prompt_templates.common_utils")
_vertex: Any = importlib.import_module("litellm.llms.vertex_ai.common_utils")
_oci: Any = importlib.import_module("litellm.llms.oci.common_utils")

_unpack: Callable[..., None] = _common.unpack_defs
_resolve_oci: Callable[..., Any] = _oci.resolve_oci_schema_refs


def install() -> None:
    """Puts the checks into LiteLLM. A second call changes nothing."""
    _common.unpack_defs = _vertex.unpack_defs = unpack_defs
    _oci.resolve_oci_schema_refs = resolve_oci_schema_refs


def unpack_defs(schema: dict[str, Any], defs: dict[str, Any], max_inlined_bytes: int | None = None) -> None:
    _check(schema, defs)
    try:
        _unpack(schema, defs, max_inlined_bytes=max_inlined_bytes)
    except (AttributeError, TypeError) as error:  # a "$ref" that is no string, a definition that is no object
        raise _refused("it has a $ref that is no string, or a definition that is no object") from error


def resolve_oci_schema_refs(schema: Any) -> Any:
    _check(schema, {})
    return _resolve_oci(schema)


def _check(schema: object, definitions: dict[str, Any]) -> None:
    try:
        recursive = is_recursive(schema, definitions)
    except SchemaTooLarge as error:
        raise _refused(str(error)) from None
    if recursive:
        raise _refused("it has a recursive $ref, and this provider takes no references; write the levels that are needed")


def _refused(reason: str) -> BridgeError:
    return BridgeError("rejected_by_provider", f"a schema of this request can't be sent to this provider: {reason}")
